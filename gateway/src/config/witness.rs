//! The section `witness`: how the gateway's own connections are witnessed, and what else is looked at on its node.

use std::path::{Path, PathBuf};

use recorder_user::witness::{
    WitnessOptions,
    bypass::{AllowRule, Pattern},
    origin::OriginPaths,
};
use serde_json::{Value, json};

use super::{WitnessMode, problem::Problems, raw, units};

/// How connections are witnessed, and what else is looked at on the gateway's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// By what.
    pub mode: WitnessMode,
    /// The socket of the probe whose programs witness; none where this process loads its own.
    pub probe: Option<PathBuf>,
    /// The size of the programs' ring, a power of two; a probe has its own.
    pub ring_bytes: u32,
    /// What else is looked at.
    pub bypass: Bypass,
}

/// What is looked at beside the gateway's own connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// Further addresses of API servers, as `HOST:PORT`: a Service's, a load balancer's.
    pub endpoints: Vec<HostPort>,
    /// Further addresses by which clients reach this gateway: its Service's.
    pub gateway_addresses: Vec<HostPort>,
    /// Whether what else a client's cgroup connects to is recorded with its session.
    pub watch_clients: bool,
    /// Who may speak with the API server without the gateway.
    pub allow: Vec<AllowRule>,
    /// Where the host's files are.
    pub host: HostPaths,
}

/// Mounts of the host's; the defaults are right outside of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPaths {
    /// Its `/proc`.
    pub proc: PathBuf,
    /// Its root of cgroup2; none to look for it.
    pub cgroups: Option<PathBuf>,
    /// Its `/var/log/pods`.
    pub pod_logs: PathBuf,
    /// Its `/var/log/containers`.
    pub container_logs: PathBuf,
}

impl Default for HostPaths {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            cgroups: None,
            pod_logs: "/var/log/pods".into(),
            container_logs: "/var/log/containers".into(),
        }
    }
}

impl HostPaths {
    /// Where to look for who is behind a connection.
    #[must_use]
    pub fn origin_paths(&self) -> OriginPaths {
        let found = OriginPaths::default();
        let cgroups = self.cgroups.clone().or(found.cgroups);
        OriginPaths {
            proc: self.proc.clone(),
            cgroups,
            pod_logs: self.pod_logs.clone(),
            container_logs: self.container_logs.clone(),
        }
    }
}

/// A host name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Reads `HOST:PORT`, `IP:PORT` or `[IPV6]:PORT`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => {
                rest.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?
            }
            None => host,
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let is_name = (1..=253).contains(&bare.len()) && bare.bytes().all(fits);
        (is_name || host.starts_with('[')).then(|| Self { host: bare.to_owned(), port })
    }

    fn text(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

pub(super) fn validate(given: Option<Value>, directory: &Path, problems: &mut Problems) -> Witness {
    let raw = given.and_then(|value| problems.shape::<raw::Witness>("witness", value));
    let raw = raw.unwrap_or_default();
    let mode = mode(raw.mode.as_deref(), problems);
    if raw.probe.is_some() && matches!(mode, WitnessMode::TcpInfo | WitnessMode::Off) {
        problems.add("witness.probe", "a probe is for the modes auto and ebpf");
    }
    if raw.probe.is_some() && raw.ring_size.is_some() {
        problems
            .add("witness.ringSize", "the ring is the probe's: see `recorder probe --ring-size`");
    }
    let ring_bytes = ring_bytes(raw.ring_size, problems);
    let probe = raw.probe.map(|socket| directory.join(socket));
    let mut places = |key: &str, given: Vec<String>| {
        let key = format!("witness.{key}");
        if given.len() > ADDRESSES_MAX {
            problems.add(&key, format!("has more than {ADDRESSES_MAX} entries"));
        }
        let mut found = Vec::new();
        for (i, text) in given.iter().enumerate() {
            match HostPort::parse(text) {
                Some(place) => found.push(place),
                None => problems.add(
                    format!("{key}[{i}]"),
                    format!(
                        "`{}` is not HOST:PORT, for example 10.96.0.1:443",
                        text.escape_debug()
                    ),
                ),
            }
        }
        found
    };
    let endpoints = places("endpoints", raw.endpoints);
    let gateway_addresses = places("gatewayAddresses", raw.gateway_addresses);
    if raw.allow.len() > RULES_MAX {
        problems.add("witness.allow", format!("has more than {RULES_MAX} rules"));
    }
    let rules = raw.allow.into_iter().enumerate();
    let allow = rules.filter_map(|(i, rule)| allow(&format!("witness.allow[{i}]"), rule, problems));
    let allow = allow.collect();
    let host = raw.host.and_then(|value| problems.shape::<raw::WitnessHost>("witness.host", value));
    let default = HostPaths::default();
    let host = host.map_or(default.clone(), |host| HostPaths {
        proc: host.proc.map_or(default.proc, |path| directory.join(path)),
        cgroups: host.cgroups.map(|path| directory.join(path)),
        pod_logs: host.pod_logs.map_or(default.pod_logs, |path| directory.join(path)),
        container_logs: host
            .container_logs
            .map_or(default.container_logs, |path| directory.join(path)),
    });
    let watch_clients = raw.watch_clients.unwrap_or(false);
    let bypass = Bypass { endpoints, gateway_addresses, watch_clients, allow, host };
    Witness { mode, probe, ring_bytes, bypass }
}

fn ring_bytes(given: Option<String>, problems: &mut Problems) -> u32 {
    let default = WitnessOptions::default().ring_bytes;
    let any = 0..=u64::MAX;
    let bytes = units::size_key("witness.ringSize", given, default.into(), any, problems);
    WitnessOptions::ring_bytes(bytes).unwrap_or_else(|| {
        problems.add("witness.ringSize", "is no power of two from 4KiB to 1GiB");
        default
    })
}

fn mode(given: Option<&str>, problems: &mut Problems) -> WitnessMode {
    match given {
        None | Some("auto") => WitnessMode::Auto,
        Some("ebpf") => WitnessMode::Ebpf,
        Some("tcp-info") => WitnessMode::TcpInfo,
        Some("off") => WitnessMode::Off,
        Some(other) => {
            problems.add("witness.mode", format!("`{other}` is none of auto, ebpf, tcp-info, off"));
            WitnessMode::Auto
        }
    }
}

fn allow(path: &str, given: Value, problems: &mut Problems) -> Option<AllowRule> {
    let raw: raw::WitnessAllow = problems.shape(path, given)?;
    let mut pattern = |key: &str, given: Option<String>| {
        Pattern::new(&given?)
            .map_err(|error| problems.add(format!("{path}.{key}"), error.to_string()))
            .ok()
    };
    let is_empty = raw.cgroup.is_none()
        && raw.namespace.is_none()
        && raw.pod.is_none()
        && raw.executable.is_none();
    let rule = AllowRule {
        cgroup: pattern("cgroup", raw.cgroup),
        namespace: pattern("namespace", raw.namespace),
        pod: pattern("pod", raw.pod),
        executable: pattern("executable", raw.executable),
    };
    if is_empty {
        problems.add(path, "would allow nobody; name cgroup, namespace, pod or executable");
        return None;
    }
    if rule.pod.is_some() && rule.namespace.is_none() {
        problems
            .add(format!("{path}.pod"), "needs `namespace`: anyone may name a pod so in their own");
    }
    Some(rule)
}

/// The section with its defaults filled in.
pub(super) fn masked(witness: &Witness) -> Value {
    let Witness { mode, probe, ring_bytes, bypass } = witness;
    let texts = |places: &[HostPort]| places.iter().map(HostPort::text).collect::<Vec<_>>();
    let mut host = json!({
        "proc": bypass.host.proc.display().to_string(),
        "podLogs": bypass.host.pod_logs.display().to_string(),
        "containerLogs": bypass.host.container_logs.display().to_string(),
    });
    if let Some(cgroups) = &bypass.host.cgroups {
        host["cgroups"] = json!(cgroups.display().to_string());
    }
    let mut shown = json!({
        "mode": mode.as_str(),
        "probe": probe,
        "endpoints": texts(&bypass.endpoints),
        "gatewayAddresses": texts(&bypass.gateway_addresses),
        "watchClients": bypass.watch_clients,
        "allow": bypass.allow.iter().map(rule).collect::<Vec<_>>(),
        "host": host,
    });
    if probe.is_none() {
        shown["ringSize"] = json!(units::size_text((*ring_bytes).into()));
    }
    shown
}

fn rule(rule: &AllowRule) -> Value {
    let parts = [
        ("cgroup", &rule.cgroup),
        ("namespace", &rule.namespace),
        ("pod", &rule.pod),
        ("executable", &rule.executable),
    ];
    let named = parts
        .into_iter()
        .filter_map(|(key, part)| Some((key.to_owned(), json!(part.as_ref()?.to_string()))));
    Value::Object(named.collect())
}

/// As many names as the gateway resolves at intervals.
const ADDRESSES_MAX: usize = 256;
/// Each is tried for each connection.
const RULES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: Value) -> (Witness, Vec<String>) {
        let mut problems = Problems::default();
        let witness = validate(Some(given), Path::new("/etc/decklog"), &mut problems);
        let problems = problems.into_vec().iter().map(ToString::to_string).collect();
        (witness, problems)
    }

    #[test]
    fn all_keys_are_read_and_shown_again() {
        let given = json!({
            "mode": "ebpf",
            "probe": "/run/decklog/probe.sock",
            "endpoints": ["10.96.0.1:443", "[fd00::1]:6443", "kubernetes.default.svc:443"],
            "gatewayAddresses": ["decklog.decklog.svc:443"],
            "watchClients": true,
            "allow": [
                {"cgroup": "/system.slice/kubelet.service"},
                {"namespace": "kube-system", "pod": "kube-proxy-*"},
                {"executable": "/usr/bin/kubelet"},
            ],
            "host": {
                "proc": "/host/proc", "cgroups": "/host/cgroup", "podLogs": "/host/log/pods",
                "containerLogs": "/host/log/containers",
            },
        });
        let (witness, problems) = check(given.clone());
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(masked(&witness), given);
        let (witness, problems) = check(json!({"ringSize": "64KiB"}));
        assert_eq!((witness.ring_bytes, problems.len()), (64 << 10, 0));
        assert_eq!(masked(&witness)["ringSize"], "64KiB");
    }

    #[test]
    fn the_defaults_allow_nobody_and_watch_nobody() {
        let (Witness { bypass, .. }, problems) = check(json!({}));
        assert_eq!(problems, Vec::<String>::new());
        assert!(bypass.allow.is_empty() && !bypass.watch_clients && bypass.endpoints.is_empty());
    }

    #[test]
    fn every_mistake_is_named() {
        let (_, problems) = check(json!({
            "mode": "magic",
            "endpoints": ["10.96.0.1", "a b:1", "host:0", "[::1:443", "x:443"],
            "allow": [{}, {"pod": "x"}, {"cgroup": ""}, {"other": "x"}],
        }));
        let places: Vec<_> =
            problems.iter().filter_map(|problem| problem.split(':').next()).collect();
        for place in [
            "witness.mode",
            "witness.endpoints[0]",
            "witness.endpoints[1]",
            "witness.endpoints[2]",
            "witness.endpoints[3]",
            "witness.allow[0]",
            "witness.allow[1].pod",
            "witness.allow[2].cgroup",
        ] {
            assert!(places.contains(&place), "{place} is not in {problems:?}");
        }
        assert!(!places.contains(&"witness.endpoints[4]"));
        for wrong in [
            json!({"ringSize": "3MiB"}),
            json!({"ringSize": "1KiB"}),
            json!({"ringSize": "4MiB", "probe": "probe.sock"}),
        ] {
            let (_, problems) = check(wrong);
            assert!(problems.iter().all(|problem| problem.contains("witness.ringSize")));
            assert_eq!(problems.len(), 1, "{problems:?}");
        }
        assert!(problems.iter().any(|problem| problem.contains("witness.allow[3]")));
    }
}

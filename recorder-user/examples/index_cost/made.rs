//! Exchanges that look like those of a busy cluster, always the same ones.

use std::sync::Arc;

use recorder_user::model::{
    Account, AccountState, BodyFacts, Change, Command, Decision, Effect, ExchangeId,
    ExchangeOpened, ExchangeSettled, ObjectChange, Principal, Record, RequestHead, RequestInfo,
    SessionId, SessionKey, SessionOpened, StreamKind, StreamRequest, Timestamp, Timing, Verdict,
};

pub(crate) const START: i64 = 1_790_000_000_000_000;
/// Between one request and the next.
pub(crate) const STEP_US: i64 = 20_000;
pub(crate) const USERS: u64 = 200;
pub(crate) const TASKS: u64 = 500;
pub(crate) const NAMESPACES: u64 = 300;
pub(crate) const SESSIONS: u64 = 2_000;

/// Steele and others' splitmix64: enough for variety.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Below the bound, and low numbers far more often than high ones.
    fn skewed(&mut self, bound: u64) -> u64 {
        let wide = self.below(bound) + 1;
        self.below(wide)
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// Group, version, plural, kind.
const RESOURCES: [(&str, &str, &str, &str); 10] = [
    ("", "v1", "pods", "Pod"),
    ("", "v1", "pods", "Pod"),
    ("", "v1", "configmaps", "ConfigMap"),
    ("", "v1", "services", "Service"),
    ("", "v1", "secrets", "Secret"),
    ("apps", "v1", "deployments", "Deployment"),
    ("apps", "v1", "deployments", "Deployment"),
    ("apps", "v1", "statefulsets", "StatefulSet"),
    ("batch", "v1", "jobs", "Job"),
    ("networking.k8s.io", "v1", "ingresses", "Ingress"),
];
const VERBS: [&str; 20] = [
    "get", "get", "get", "get", "get", "get", "get", "get", "get", "list", "list", "list", "list",
    "watch", "patch", "patch", "create", "create", "update", "delete",
];
const WORDS: [&str; 12] = [
    "ls -la /var/log",
    "cat /etc/resolv.conf",
    "env",
    "ps aux",
    "curl -s http://localhost:8080/healthz",
    "df -h",
    "tail -n 100 app.log",
    "psql -c 'select 1'",
    "nginx -t",
    "id",
    "date",
    "kill -HUP 1",
];

/// Makes the records of one exchange after the other.
pub(crate) struct Maker {
    noise: Noise,
    number: u64,
    sessions: Vec<(SessionId, Arc<Principal>, Option<String>)>,
}

impl Maker {
    pub(crate) fn new() -> Self {
        let sessions = (0..SESSIONS).map(|number| {
            let user = number % USERS;
            let principal = Principal {
                issuer: "https://idp.example".into(),
                subject: format!("{user:08x}-5a51-4f0e-9b8e-6f1f0c2f8e11"),
                username: format!("agent-{user}@example.com"),
                groups: vec!["agents".into(), format!("team-{}", user % 12)],
                ..Principal::default()
            };
            let task = (number % 4 != 0).then(|| format!("TASK-{}", number % TASKS));
            (SessionId::new(), Arc::new(principal), task)
        });
        Self { noise: Noise(1), number: 0, sessions: sessions.collect() }
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = Record> + '_ {
        self.sessions.iter().map(|(session, principal, task)| {
            Record::SessionOpened(SessionOpened {
                session: *session,
                time: Timestamp::from_micros(START),
                key: SessionKey {
                    issuer: principal.issuer.clone(),
                    subject: principal.subject.clone(),
                    cluster: "prod".into(),
                    task: task.clone(),
                },
                principal: (**principal).clone(),
                kind: recorder_user::model::SessionKind::Api,
            })
        })
    }

    /// The intent and the outcome of the next exchange.
    pub(crate) fn exchange(&mut self) -> [Record; 2] {
        let number = self.number;
        self.number += 1;
        let noise = &mut self.noise;
        let (group, version, resource, kind) = noise.pick(&RESOURCES);
        let is_exec = resource == "pods" && noise.below(12) == 0;
        let verb = if is_exec { "create" } else { noise.pick(&VERBS) };
        let namespace = format!("ns-{}", noise.skewed(NAMESPACES));
        let name = match verb {
            "list" | "watch" => String::new(),
            _ => format!("{}-{}", &resource[..3], noise.skewed(20_000)),
        };
        let (session, principal, task) = self.sessions[noise.skewed(SESSIONS) as usize].clone();
        let exchange = ExchangeId::new();
        let command = is_exec.then(|| {
            let rare = number % 100_000 == 50_000;
            let line = if rare { "rm -rf /data/precious" } else { noise.pick(&WORDS) };
            vec!["sh".into(), "-c".into(), format!("{line} # {}", noise.below(1_000_000))]
        });
        let prefix = if group.is_empty() { "/api".into() } else { format!("/apis/{group}") };
        let path = format!("{prefix}/{version}/namespaces/{namespace}/{resource}/{name}");
        let status = match (noise.below(100), verb) {
            (0..3, _) => 403,
            (3..7, _) => 404,
            (7, _) => 409,
            _ if is_exec => 101,
            (_, "create") => 201,
            _ => 200,
        };
        let agent = match noise.below(10) {
            0 => format!("helm/v3.{}.0", noise.below(8)),
            1 => format!("python-kubernetes/{}.0", 20 + noise.below(12)),
            _ => format!(
                "kubectl/v1.{}.1 (linux/amd64) kubernetes/5e2{}",
                27 + noise.below(9),
                noise.below(5)
            ),
        };
        let effect = match (status, verb) {
            (400.., _) => Effect::Nothing,
            _ if is_exec => Effect::Executed,
            (_, "create") => Effect::Created,
            (_, "patch" | "update") => Effect::Modified,
            (_, "delete") => Effect::Deleted,
            _ => Effect::Read,
        };
        let time = Timestamp::from_micros(START + number as i64 * STEP_US);
        let stream = command.map(|command| StreamRequest {
            kind: StreamKind::Exec,
            container: Some("app".into()),
            command,
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
            ports: Vec::new(),
        });
        let opened = ExchangeOpened {
            exchange,
            session: Some(session),
            time,
            cluster: "prod".into(),
            task,
            command: Some(Command {
                id: format!("{:016x}-4f0e-9b8e-6f1f0c2f8e11", number / 4),
                name: format!("kubectl {}", if is_exec { "exec" } else { verb }),
            }),
            principal: Some(principal),
            peer: "10.1.2.3:50000".into(),
            client_cookie: number / 16,
            head: Some(RequestHead {
                method: "GET".into(),
                target: path.clone(),
                version: "HTTP/2".into(),
                headers: vec![
                    ("user-agent".into(), agent),
                    ("accept".into(), "application/json".into()),
                    ("accept-encoding".into(), "gzip".into()),
                ],
            }),
            request: Some(RequestInfo {
                is_resource_request: true,
                path,
                verb: verb.into(),
                api_prefix: "api".into(),
                api_group: group.into(),
                api_version: version.into(),
                namespace: namespace.clone(),
                resource: resource.into(),
                subresource: if is_exec { "exec".into() } else { String::new() },
                name: name.clone(),
                ..RequestInfo::default()
            }),
            stream,
            verdict: Some(Verdict {
                decision: if status == 403 { Decision::Deny } else { Decision::Allow },
                policies: vec!["base.cedar/agents-may-read".into()],
                policy_set: "4f0e9b8e6f1f0c2f".into(),
                ..Verdict::default()
            }),
            ..ExchangeOpened::default()
        };
        [
            Record::ExchangeOpened(Box::new(opened)),
            Record::ExchangeSettled(Box::new(settled(
                exchange,
                session,
                number,
                status,
                effect,
                |change| {
                    vec![ObjectChange {
                        kind: kind.into(),
                        namespace,
                        name,
                        uid: uid(number),
                        change,
                    }]
                },
            ))),
        ]
    }
}

/// The uid of the object that this exchange changed, if it changed one.
pub(crate) fn uid(number: u64) -> String {
    format!("{:08x}-1111-4f0e-9b8e-{:012x}", Noise(number).next() as u32, number)
}

fn settled(
    exchange: ExchangeId,
    session: SessionId,
    number: u64,
    status: u16,
    effect: Effect,
    objects: impl FnOnce(Change) -> Vec<ObjectChange>,
) -> ExchangeSettled {
    let change = match effect {
        Effect::Created => Some(Change::Created),
        Effect::Modified => Some(Change::Modified),
        Effect::Deleted => Some(Change::Deleted),
        _ => None,
    };
    let objects = change.map(objects).unwrap_or_default();
    let bytes = 400 + number % 4_000;
    ExchangeSettled {
        exchange,
        session: Some(session),
        time: Timestamp::from_micros(START + number as i64 * STEP_US + 9_000),
        status,
        effect,
        object_count: objects.len() as u64,
        objects,
        audit_id: Some(exchange.to_string()),
        response: BodyFacts { bytes, recorded_bytes: bytes, ended: true, ..BodyFacts::default() },
        timing_us: Timing { identify: 9, authorize: 30, open: 90, upstream: 7_000, total: 9_000 },
        account: Account { state: AccountState::Complete, ..Account::default() },
        ..ExchangeSettled::default()
    }
}

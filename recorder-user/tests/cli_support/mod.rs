//! A small store made by hand, and the real binary on it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    path::Path,
    process::{Command as Process, Output},
    sync::Arc,
};

use bytes::Bytes;
use recorder_user::{
    model::{
        Account, AccountState, BodyFacts, CapabilityRecord, Change, Chunk, Command, Decision,
        Direction, Effect, Ending, ExchangeId, ExchangeOpened, ExchangeSettled, Gap, GapStep,
        GatewayStarted, HookState, ObjectChange, Principal, Record, Refusal, Removed, RequestHead,
        RequestInfo, ResponseHead, ResponseStarted, SessionChanged, SessionId, SessionKey,
        SessionOpened, SessionState, SocketEvidence, StreamFacts, StreamKind, StreamRequest, Tier,
        Timestamp, Timing, Verdict,
    },
    store::{Need, Store, StoreOptions, system_clock},
};
use tempfile::TempDir;

/// When the first session began: 2026-09-21 14:13:20 UTC.
pub(crate) const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// An id that sorts by `number` and ends in it.
pub(crate) fn id(kind: u8, number: u8) -> [u8; 16] {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&1_790_000_000_000_u64.to_be_bytes()[2..]);
    (id[6], id[8], id[12], id[14], id[15]) = (0x70, 0x80, number, kind, number);
    id
}

pub(crate) fn session(number: u8) -> SessionId {
    SessionId::from_bytes(id(0xa5, number))
}

pub(crate) fn exchange(number: u8) -> ExchangeId {
    ExchangeId::from_bytes(id(0xec, number))
}

/// A directory with an open store in it.
pub(crate) struct Fixture {
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
}

impl Fixture {
    /// An empty store.
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let options = StoreOptions::new(directory.path().join("store"));
        let (store, _) = Store::open(options, system_clock()).expect("a store");
        Self { directory, store }
    }

    /// Appends records; they can be read when this returns.
    pub(crate) fn append(&self, records: Vec<Record>) {
        let recorder = self.store.recorder();
        block_on(recorder.append_all(records, Need::Written)).expect("appended");
    }

    /// The store, closed in order.
    pub(crate) fn close(self) -> TempDir {
        block_on(self.store.close()).expect("closed");
        self.directory
    }
}

/// The store of most tests: alice's session, closed.
pub(crate) fn alices_store() -> TempDir {
    let fixture = Fixture::new();
    let gateway = fixture.store.gateway_id();
    fixture.append(vec![Record::GatewayStarted(GatewayStarted {
        gateway,
        time: START,
        version: "0.1.0".into(),
        witness: witness(),
        clusters: vec!["prod".into()],
        policy_set: "set-1".into(),
    })]);
    fixture.append(alices_session());
    fixture.close()
}

pub(crate) fn witness() -> CapabilityRecord {
    let hook = |hook: &str, error: Option<&str>| HookState {
        hook: hook.into(),
        error: error.map(Into::into),
    };
    CapabilityRecord {
        tier: Tier::T1,
        kernel: "6.12.0".into(),
        hooks: vec![hook("tcp_sendmsg", None), hook("tcp_recvmsg", Some("not permitted"))],
        self_test: true,
        reason: None,
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// What the binary said.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Each line as JSON.
    pub(crate) fn objects(&self) -> Vec<serde_json::Value> {
        let read = |line: &str| serde_json::from_str(line).expect(line);
        self.out.lines().map(read).collect()
    }
}

/// Runs the real binary on the store below `directory`.
pub(crate) fn recorder(directory: &Path, args: &[&str]) -> Ran {
    let output = command(args).env("DECKLOG_STORE", directory.join("store")).output();
    ran(output.expect("the binary runs"))
}

pub(crate) fn command(args: &[&str]) -> Process {
    let mut command = Process::new(env!("CARGO_BIN_EXE_recorder"));
    command.args(args).env_remove("DECKLOG_STORE").env_remove("RUST_LOG");
    command
}

pub(crate) fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).expect("output is text");
    let code = output.status.code().expect("not killed");
    Ran { code, out: text(output.stdout), err: text(output.stderr) }
}

/// One exchange in the making.
pub(crate) struct Made {
    pub(crate) opened: ExchangeOpened,
    pub(crate) started: Option<ResponseStarted>,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) settled: Option<ExchangeSettled>,
}

impl Made {
    /// An allowed request of alice's that ended well.
    pub(crate) fn new(number: u8, at_ms: i64, command: &str, verb: &str, target: &str) -> Self {
        let time = START.plus_micros(at_ms * 1000);
        let method = match verb {
            "get" | "list" | "watch" => "GET".to_owned(),
            verb => verb.to_uppercase(),
        };
        let opened = ExchangeOpened {
            exchange: exchange(number),
            session: Some(session(1)),
            time,
            cluster: "prod".into(),
            task: Some("fix-123".into()),
            command: Some(Command { id: format!("id of {command}"), name: command.into() }),
            principal: Some(Arc::new(alice())),
            peer: "10.0.0.7:4711".into(),
            head: Some(RequestHead {
                method,
                target: target.into(),
                version: "HTTP/2".into(),
                headers: vec![("user-agent".into(), "kubectl/v1.36.0 (linux/amd64)".into())],
            }),
            request: Some(info(verb, target)),
            verdict: Some(verdict(Decision::Allow, &["base.cedar/shop"])),
            ..ExchangeOpened::default()
        };
        let settled = ExchangeSettled {
            exchange: opened.exchange,
            session: opened.session,
            time: time.plus_micros(12_345),
            status: 200,
            ending: Ending::Finished,
            effect: Effect::Read,
            audit_id: Some(format!("audit-{number}")),
            response: BodyFacts { bytes: 64, ended: true, ..BodyFacts::default() },
            timing_us: Timing {
                identify: 10,
                authorize: 20,
                open: 300,
                upstream: 9000,
                total: 12_345,
            },
            account: Account { state: AccountState::Complete, ..Account::default() },
            ..ExchangeSettled::default()
        };
        Self { opened, started: None, chunks: Vec::new(), settled: Some(settled) }
    }

    /// Changes the outcome.
    pub(crate) fn settled(mut self, change: impl FnOnce(&mut ExchangeSettled)) -> Self {
        change(self.settled.as_mut().expect("has an outcome"));
        self
    }

    /// Adds bytes of the response.
    pub(crate) fn response(mut self, content_type: &str, parts: &[(u64, &[u8])]) -> Self {
        let exchange = self.opened.exchange;
        let headers = vec![("content-type".into(), content_type.into())];
        let head = ResponseHead { status: 200, headers };
        self.started = Some(ResponseStarted { exchange, at_us: 9330, head });
        self.bytes(Direction::Response, parts)
    }

    /// Adds bytes of the request.
    pub(crate) fn request(mut self, content_type: &str, parts: &[(u64, &[u8])]) -> Self {
        let head = self.opened.head.as_mut().expect("has a head");
        head.headers.push(("content-type".into(), content_type.into()));
        self.bytes(Direction::Request, parts)
    }

    fn bytes(mut self, direction: Direction, parts: &[(u64, &[u8])]) -> Self {
        let (exchange, mut offset) = (self.opened.exchange, 0);
        let mut hasher = blake3::Hasher::new();
        for (at_us, part) in parts {
            let data = Bytes::copy_from_slice(part);
            hasher.update(&data);
            self.chunks.push(Chunk { exchange, direction, at_us: *at_us, offset, data });
            offset += part.len() as u64;
        }
        if let Some(settled) = &mut self.settled {
            let facts = BodyFacts {
                bytes: offset,
                recorded_bytes: offset,
                stored_bytes: offset,
                hash: hasher.finalize().to_hex().to_string(),
                ended: true,
                ..BodyFacts::default()
            };
            match direction {
                Direction::Request => settled.request = facts,
                Direction::Response => settled.response = facts,
            }
        }
        self
    }

    /// Makes it an upgraded connection that carried these pieces, in order.
    pub(crate) fn stream(mut self, request: StreamRequest, protocol: &str, parts: &[Part]) -> Self {
        let exchange = self.opened.exchange;
        self.opened.stream = Some(request);
        let headers = vec![
            ("upgrade".into(), "websocket".into()),
            ("sec-websocket-protocol".into(), protocol.into()),
        ];
        let head = ResponseHead { status: 101, headers };
        self.started = Some(ResponseStarted { exchange, at_us: 9330, head });
        let (mut sent, mut received) = (0, 0);
        for (at_us, direction, bytes) in parts {
            let offset = match direction {
                Direction::Request => &mut sent,
                Direction::Response => &mut received,
            };
            let data = Bytes::copy_from_slice(bytes);
            let (at_us, direction) = (*at_us, *direction);
            self.chunks.push(Chunk { exchange, direction, at_us, offset: *offset, data });
            *offset += bytes.len() as u64;
        }
        let last_us = parts.last().map_or(0, |part| part.0);
        if let Some(settled) = &mut self.settled {
            settled.status = 101;
            settled.effect = Effect::Executed;
            settled.time = self.opened.time.plus_micros(i64::try_from(last_us).expect("fits"));
            settled.timing_us.total = last_us;
            settled.request.bytes = sent;
            settled.response.bytes = received;
            settled.stream = Some(StreamFacts {
                transport: "websocket".into(),
                protocol: protocol.into(),
                exit_code: Some(0),
                ..StreamFacts::default()
            });
        }
        self
    }

    pub(crate) fn into_records(self) -> Vec<Record> {
        let mut records = vec![Record::ExchangeOpened(Box::new(self.opened))];
        records.extend(self.started.map(Record::ResponseStarted));
        records.extend(self.chunks.into_iter().map(Record::Chunk));
        records.extend(self.settled.map(|settled| Record::ExchangeSettled(Box::new(settled))));
        records
    }
}

pub(crate) fn alice() -> Principal {
    Principal {
        issuer: "https://idp.example".into(),
        subject: "sub-1".into(),
        username: "alice".into(),
        groups: vec!["agents".into(), "shop".into()],
        ..Principal::default()
    }
}

pub(crate) fn verdict(decision: Decision, policies: &[&str]) -> Verdict {
    let policies = policies.iter().map(|policy| (*policy).into()).collect();
    Verdict { decision, policies, policy_set: "set-1".into(), ..Verdict::default() }
}

/// When, which way, and the bytes on the wire.
pub(crate) type Part = (u64, Direction, Vec<u8>);

/// A binary WebSocket message of the server on a numbered channel.
pub(crate) fn said(at_us: u64, channel: u8, data: &[u8]) -> Part {
    (at_us, Direction::Response, message(channel, data, None))
}

/// A binary WebSocket message of the client, masked.
pub(crate) fn typed(at_us: u64, channel: u8, data: &[u8]) -> Part {
    (at_us, Direction::Request, message(channel, data, Some([0x37, 0xfa, 0x21, 0x3d])))
}

/// RFC 6455 §5.2.
fn message(channel: u8, data: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let length = data.len() + 1;
    let mut frame = vec![0x82];
    let flag = if mask.is_some() { 0x80 } else { 0 };
    match length {
        0..126 => frame.push(flag | length as u8),
        126..0x1_0000 => {
            frame.push(flag | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(flag | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
    let key = mask.unwrap_or_default();
    let plain = [channel].into_iter().chain(data.iter().copied());
    frame.extend(plain.zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The path of an exec.
pub(crate) const EXEC: &str = "/api/v1/namespaces/shop/pods/web-0/exec?command=sh";

/// An exec of a command.
pub(crate) fn exec(tty: bool, command: &[&str]) -> StreamRequest {
    StreamRequest {
        kind: StreamKind::Exec,
        container: Some("app".into()),
        command: command.iter().map(|word| (*word).into()).collect(),
        stdin: true,
        stdout: true,
        stderr: !tty,
        tty,
        ports: Vec::new(),
    }
}

/// How a command ended, as the error channel of version 4 and later says.
pub(crate) fn status(code: i32) -> Vec<u8> {
    if code == 0 {
        return br#"{"metadata":{},"status":"Success"}"#.to_vec();
    }
    format!(
        r#"{{"metadata":{{}},"status":"Failure","message":"command terminated with non-zero exit code: exit status {code}","reason":"NonZeroExitCode","details":{{"causes":[{{"reason":"ExitCode","message":"{code}"}}]}}}}"#
    )
    .into_bytes()
}

/// Enough of the API server's rules for the paths used here.
fn info(verb: &str, target: &str) -> RequestInfo {
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let parts: Vec<String> = path.trim_matches('/').split('/').map(Into::into).collect();
    let mut rest = parts.iter().map(String::as_str);
    let prefix = rest.next().unwrap_or_default().to_owned();
    let mut info = RequestInfo { path, verb: verb.into(), ..RequestInfo::default() };
    if prefix != "api" && prefix != "apis" {
        return info;
    }
    info.is_resource_request = true;
    info.api_group =
        if prefix == "apis" { rest.next().unwrap_or_default().into() } else { String::new() };
    info.api_prefix = prefix;
    info.api_version = rest.next().unwrap_or_default().into();
    let mut rest: Vec<_> = rest.collect();
    if rest.len() > 2 && rest[0] == "namespaces" {
        info.namespace = rest[1].into();
        rest.drain(..2);
    }
    info.resource = rest.first().copied().unwrap_or_default().into();
    info.name = rest.get(1).copied().unwrap_or_default().into();
    info.subresource = rest.get(2).copied().unwrap_or_default().into();
    info
}

pub(crate) fn object(kind: &str, name: &str, uid: &str, change: Change) -> ObjectChange {
    let namespace = "shop".into();
    ObjectChange { kind: kind.into(), namespace, name: name.into(), uid: uid.into(), change }
}

pub(crate) fn opened(number: u8, principal: Principal, task: Option<&str>) -> Record {
    let task: Option<String> = task.map(Into::into);
    let key = SessionKey {
        issuer: principal.issuer.clone(),
        subject: principal.subject.clone(),
        cluster: "prod".into(),
        task,
    };
    Record::SessionOpened(SessionOpened {
        session: session(number),
        time: START,
        key,
        principal,
        kind: recorder_user::model::SessionKind::Api,
    })
}

pub(crate) const ADDED: &[u8] = br#"{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-0","namespace":"shop","uid":"pod-uid","resourceVersion":"7"}}}
"#;
pub(crate) const ERROR: &[u8] = br#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401}}
"#;

/// A visit: reads, an apply, a watch that is cut, a refusal, a gap, and a request without outcome.
pub(crate) fn alices_session() -> Vec<Record> {
    let mut records = vec![opened(1, alice(), Some("fix-123"))];
    let list = "/apis/apps/v1/namespaces/shop/deployments?limit=500";
    let made = Made::new(1, 0, "kubectl get", "list", list)
        .response("application/json", &[(9400, br#"{"kind":"DeploymentList","items":[]}"#)]);
    records.extend(made.into_records());

    let web = "/apis/apps/v1/namespaces/shop/deployments/web";
    let made =
        Made::new(2, 1204, "kubectl apply", "get", web).settled(|settled| settled.status = 404);
    records.extend(made.into_records());
    let made = Made::new(3, 1230, "kubectl apply", "patch", web)
        .request(
            "application/apply-patch+yaml",
            &[(40, br#"{"kind":"Deployment","data":{"x":1}}"#)],
        )
        .response("application/json", &[(30_000, br#"{"kind":"Deployment"}"#)])
        .settled(|settled| {
            settled.status = 201;
            settled.effect = Effect::Created;
            settled.objects = vec![object("Deployment", "web", "web-uid", Change::Created)];
            settled.object_count = 1;
            settled.timing_us.total = 35_000;
            settled.request.removed = vec![Removed { path: "data.x".into(), count: 1 }];
            settled.account.client = Some(SocketEvidence {
                cookie: 77,
                gateway_in_bytes: 900,
                gateway_out_bytes: 1800,
                kernel_in_bytes: Some(900),
                kernel_out_bytes: Some(1800),
                plain_in_bytes: 700,
                plain_out_bytes: 1500,
                ..SocketEvidence::default()
            });
        });
    records.extend(made.into_records());

    let pods = "/api/v1/namespaces/shop/pods?watch=1";
    let made = Made::new(4, 2000, "kubectl get", "watch", pods)
        .response("application/json;stream=watch", &[(500_000, ADDED), (1_500_000, ERROR)])
        .settled(|settled| {
            settled.ending = Ending::TokenExpired;
            settled.time = START.plus_micros(3_500_000);
            settled.timing_us.total = 1_500_000;
        });
    records.extend(made.into_records());
    records.push(changed(
        SessionState::Incomplete(recorder_user::model::IncompleteReason::TokenExpired),
        None,
    ));

    let mut made = Made::new(5, 4100, "kubectl delete", "delete", "/api/v1/namespaces/production")
        .settled(|settled| {
            settled.status = 403;
            settled.effect = Effect::Nothing;
            settled.timing_us.total = 310;
        });
    made.opened.verdict = Some(verdict(Decision::Deny, &["production.cedar/no-deletes"]));
    made.opened.refusal = Some(Refusal {
        phase: "authorize".into(),
        status: 403,
        reason: "Forbidden".into(),
        message: "namespaces \"production\" is forbidden".into(),
    });
    records.extend(made.into_records());

    let made = Made::new(6, 5000, "", "get", "/version").settled(|settled| {
        settled.account = Account {
            state: AccountState::Gap,
            gap_bytes: 120,
            gaps: vec![Gap {
                step: GapStep::Body,
                direction: Direction::Response,
                bytes: 120,
                from: 4096,
                to: 4216,
                cookie: None,
                tcp: false,
            }],
            ..Account::default()
        };
    });
    let mut made = made;
    made.opened.command = None;
    records.extend(made.into_records());

    let mut made = Made::new(7, 6000, "kubectl scale", "patch", &format!("{web}/scale"));
    made.settled = None;
    records.extend(made.into_records());
    records.push(changed(
        SessionState::Incomplete(recorder_user::model::IncompleteReason::TokenExpired),
        Some(START.plus_micros(9_000_000)),
    ));
    records
}

fn changed(state: SessionState, ended: Option<Timestamp>) -> Record {
    let time = ended.unwrap_or(START.plus_micros(3_500_000));
    Record::SessionChanged(SessionChanged {
        session: session(1),
        time,
        state,
        ended,
        by: None,
        why: None,
        account: None,
    })
}

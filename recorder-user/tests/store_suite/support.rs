//! Records to store, and stores to keep them in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use recorder_user::{
    model::{
        Account, AccountState, BodyFacts, CapabilityRecord, Change, Chunk, Command, Decision,
        Direction, Effect, Ending, ExchangeId, ExchangeOpened, ExchangeSettled, GatewayId,
        GatewayStarted, ObjectChange, Principal, Record, RequestHead, RequestInfo, SessionId,
        SessionKey, SessionOpened, Tier, Timestamp, Timing, Verdict,
    },
    store::{
        self, Clock, Reader, Recorder, Recovered, Store, StoreOptions, VerifyError, VerifyReport,
        signing,
    },
};

/// A clock that stands still: segments come out the same.
pub(crate) fn clock() -> Clock {
    Arc::new(|| Timestamp::from_micros(START))
}

pub(crate) const START: i64 = 1_790_000_000_000_000;

pub(crate) fn options(directory: &Path) -> StoreOptions {
    StoreOptions {
        sync_interval: Duration::from_millis(20),
        // Where the test's directory is removed, they are too.
        keys: keys(directory),
        ..StoreOptions::new(directory.into())
    }
}

pub(crate) fn keys(directory: &Path) -> PathBuf {
    directory.join("keys")
}

/// Checks a store with its own public keys, if they are there.
pub(crate) fn verify(directory: &Path) -> Result<VerifyReport, VerifyError> {
    store::verify(directory, signing::trusted(&keys(directory)).expect("good keys"))
}

pub(crate) fn open(directory: &Path) -> (Store, Recovered) {
    Store::open(options(directory), clock()).expect("the store opens")
}

pub(crate) fn records(directory: &Path) -> Vec<Record> {
    let records = Reader::open(directory).expect("a store").records();
    records.map(|stored| stored.expect("a good record").record).collect()
}

pub(crate) fn principal() -> Principal {
    Principal {
        issuer: "https://idp.example".into(),
        subject: "sub-7".into(),
        username: "agent-7".into(),
        groups: vec!["agents".into(), "readers".into()],
        ..Principal::default()
    }
}

pub(crate) fn gateway_started(gateway: GatewayId) -> Record {
    Record::GatewayStarted(GatewayStarted {
        gateway,
        time: Timestamp::from_micros(START),
        version: "0.1.0".into(),
        witness: CapabilityRecord {
            tier: Tier::Off,
            kernel: "6.12".into(),
            hooks: Vec::new(),
            self_test: false,
            reason: None,
        },
        clusters: vec!["prod".into()],
        policy_set: "hash".into(),
    })
}

pub(crate) fn session_opened(session: SessionId) -> Record {
    let principal = principal();
    Record::SessionOpened(SessionOpened {
        session,
        time: Timestamp::from_micros(START),
        key: SessionKey {
            issuer: principal.issuer.clone(),
            subject: principal.subject.clone(),
            cluster: "prod".into(),
            task: Some("T-1".into()),
        },
        principal,
        kind: recorder_user::model::SessionKind::Api,
    })
}

pub(crate) fn exchange_opened(session: SessionId, exchange: ExchangeId, name: &str) -> Record {
    let target = format!("/api/v1/namespaces/shop/configmaps/{name}");
    Record::ExchangeOpened(Box::new(ExchangeOpened {
        exchange,
        session: Some(session),
        time: Timestamp::from_micros(START + 1_000),
        cluster: "prod".into(),
        task: Some("T-1".into()),
        command: Some(Command { id: "c-1".into(), name: "kubectl delete".into() }),
        principal: Some(Arc::new(principal())),
        peer: "127.0.0.1:50000".into(),
        client_cookie: 7,
        head: Some(RequestHead {
            method: "DELETE".into(),
            target: target.clone(),
            version: "HTTP/2".into(),
            headers: vec![("user-agent".into(), "kubectl/v1.36.0".into())],
        }),
        request: Some(RequestInfo {
            is_resource_request: true,
            path: target,
            verb: "delete".into(),
            api_prefix: "api".into(),
            api_version: "v1".into(),
            namespace: "shop".into(),
            resource: "configmaps".into(),
            name: name.into(),
            ..RequestInfo::default()
        }),
        verdict: Some(Verdict {
            decision: Decision::Allow,
            policies: vec!["base".into()],
            policy_set: "hash".into(),
            ..Verdict::default()
        }),
        ..ExchangeOpened::default()
    }))
}

pub(crate) fn chunk(exchange: ExchangeId, offset: u64, data: &[u8]) -> Record {
    Record::Chunk(Chunk {
        exchange,
        direction: Direction::Response,
        at_us: 500,
        offset,
        data: Bytes::copy_from_slice(data),
    })
}

pub(crate) fn exchange_settled(
    session: SessionId,
    exchange: ExchangeId,
    name: &str,
    body: &[u8],
) -> Record {
    Record::ExchangeSettled(Box::new(ExchangeSettled {
        exchange,
        session: Some(session),
        time: Timestamp::from_micros(START + 2_000),
        status: 200,
        ending: Ending::Finished,
        effect: Effect::Deleted,
        objects: vec![ObjectChange {
            kind: "ConfigMap".into(),
            namespace: "shop".into(),
            name: name.into(),
            uid: "u-1".into(),
            change: Change::Deleted,
        }],
        object_count: 1,
        response: BodyFacts {
            bytes: body.len() as u64,
            recorded_bytes: body.len() as u64,
            stored_bytes: body.len() as u64,
            hash: blake3::hash(body).to_hex().to_string(),
            ended: true,
            ..BodyFacts::default()
        },
        timing_us: Timing { total: 1_000, ..Timing::default() },
        account: Account { state: AccountState::Complete, ..Account::default() },
        ..ExchangeSettled::default()
    }))
}

/// A whole exchange with a body that is worth compressing.
pub(crate) fn exchange(session: SessionId, exchange: ExchangeId, name: &str) -> Vec<Record> {
    let body = format!("{{\"kind\":\"Status\",\"details\":\"{}\"}}", name.repeat(100));
    vec![
        exchange_opened(session, exchange, name),
        chunk(exchange, 0, body.as_bytes()),
        exchange_settled(session, exchange, name, body.as_bytes()),
    ]
}

/// The segment files in order.
pub(crate) fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let reader = Reader::open(directory).expect("a store");
    reader.segments().expect("good headers").into_iter().map(|segment| segment.path).collect()
}

/// Waits until the queue's room is given back, which comes just after the answers.
pub(crate) async fn all_room_is_free(recorder: &Recorder) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while recorder.health().queue_bytes != 0 {
        assert!(Instant::now() < deadline, "room was lost: {:?}", recorder.health());
        tokio::task::yield_now().await;
    }
}

//! Records to store, and stores to keep them in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::recorder_verify;
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

/// What both verifiers say with the store's own public keys: where the first bad place is.
///
/// The second one does not unpack payloads: what is wrong inside of one it tells later, by a signature, or not.
pub(crate) fn verdict(directory: &Path) -> Option<(PathBuf, u64)> {
    let ours = verify(directory).expect("readable");
    let second = recorder_verify::verify(&[directory.to_owned()], &public_keys(&keys(directory)));
    let Some(bad) = &ours.first_bad else {
        let second = second.unwrap_or_else(|bad| panic!("the second: {} {}", bad.offset, bad.why));
        assert_eq!(
            (second.segments, second.records, second.stubs, second.gaps),
            (ours.segments.len() as u64, ours.records, ours.pruned_records, ours.absent_links)
        );
        if ours.signatures_checked {
            let signed = (ours.signatures, ours.unsigned_records);
            assert_eq!((second.signatures, second.unsigned), signed);
        }
        return None;
    };
    let place = (bad.file.clone(), bad.offset);
    let is_inside = INSIDE.iter().any(|what| bad.why.contains(what));
    match second {
        Err(second) if is_inside => assert!((second.file, second.offset) >= place, "{}", bad.why),
        Ok(_) if is_inside => {}
        Err(second) => {
            assert_eq!((second.file, second.offset), place, "{}: {}", bad.why, second.why)
        }
        Ok(_) => panic!("the second verifier finds nothing: {}", bad.why),
    }
    Some(place)
}

/// What is found only by unpacking payloads.
const INSIDE: [&str; 5] = [
    " body of exchange ",
    "record kind",
    "chunk record is malformed",
    "the compressed payload",
    "the record that it builds on",
];

/// As the second verifier reads them.
pub(crate) fn public_keys(keys: &Path) -> Vec<ed25519_dalek::VerifyingKey> {
    let files = std::fs::read_dir(keys.join("signing")).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts.filter_map(|text| recorder_verify::public_key(&text)).collect()
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

//! Stores with a few records.

use std::{path::Path, sync::Arc};

use recorder_user::{
    model::{
        Account, AccountState, Change, Decision, Effect, ExchangeId, ExchangeOpened,
        ExchangeSettled, GatewayStarted, ObjectChange, Principal, Record, Refusal, RequestInfo,
        SessionChanged, SessionId, SessionKey, SessionOpened, SessionState, Timestamp, Verdict,
    },
    store::{Need, Store, StoreOptions, archive::FinishedSegment},
};

pub(crate) const START: i64 = 1_790_000_000_000_000;
pub(crate) const DAY_US: i64 = 24 * 3600 * 1_000_000;

pub(crate) fn at(us: i64) -> Timestamp {
    Timestamp::from_micros(START + us)
}

/// Each list of records becomes a segment, by a start and an orderly stop.
pub(crate) async fn store(directory: &Path, segments: Vec<Vec<Record>>) {
    for records in segments {
        let options = StoreOptions::new(directory.into());
        let clock = Arc::new(|| Timestamp::from_micros(START));
        let (store, _) = Store::open(options, clock).expect("the store opens");
        store.recorder().append_all(records, Need::Durable).await.expect("a good disk");
        store.close().await.expect("a good disk");
    }
}

pub(crate) fn finished(directory: &Path) -> Vec<FinishedSegment> {
    let reader = recorder_user::store::Reader::open(directory).expect("a store");
    reader.finished_segments().expect("readable")
}

pub(crate) fn started(time: Timestamp) -> Record {
    Record::GatewayStarted(GatewayStarted {
        gateway: recorder_user::model::GatewayId::from_bytes([7; 16]),
        time,
        version: "0.1.0".into(),
        witness: recorder_user::model::CapabilityRecord {
            tier: recorder_user::model::Tier::Off,
            kernel: "6.12".into(),
            hooks: Vec::new(),
            self_test: false,
            reason: None,
        },
        clusters: vec!["prod".into()],
        policy_set: "hash".into(),
    })
}

fn principal() -> Principal {
    Principal {
        issuer: "https://idp.example".into(),
        subject: "sub-7".into(),
        username: "agent-7".into(),
        groups: vec!["agents".into(), "readers".into()],
        ..Principal::default()
    }
}

pub(crate) fn session(session: SessionId, time: Timestamp) -> Record {
    let principal = principal();
    let key = SessionKey {
        issuer: principal.issuer.clone(),
        subject: principal.subject.clone(),
        cluster: "prod".into(),
        task: Some("T-1".into()),
    };
    Record::SessionOpened(SessionOpened {
        session,
        time,
        key,
        principal,
        kind: recorder_user::model::SessionKind::Api,
    })
}

pub(crate) fn ended(session: SessionId, time: Timestamp) -> Record {
    Record::SessionChanged(SessionChanged {
        session,
        time,
        state: SessionState::Ended,
        ended: Some(time),
        by: None,
        why: None,
        account: None,
    })
}

pub(crate) fn opened(session: SessionId, exchange: ExchangeId, time: Timestamp) -> Record {
    Record::ExchangeOpened(Box::new(ExchangeOpened {
        exchange,
        session: Some(session),
        time,
        cluster: "prod".into(),
        task: Some("T-1".into()),
        principal: Some(Arc::new(principal())),
        request: Some(RequestInfo {
            is_resource_request: true,
            path: "/api/v1/namespaces/shop/configmaps/web".into(),
            verb: "delete".into(),
            api_version: "v1".into(),
            namespace: "shop".into(),
            resource: "configmaps".into(),
            name: "web".into(),
            ..RequestInfo::default()
        }),
        verdict: Some(Verdict {
            decision: Decision::Allow,
            policies: vec!["base".into(), "more".into()],
            policy_set: "hash".into(),
            ..Verdict::default()
        }),
        ..ExchangeOpened::default()
    }))
}

/// Nobody was identified: no session, no cluster.
pub(crate) fn refused(exchange: ExchangeId, time: Timestamp) -> Record {
    Record::ExchangeOpened(Box::new(ExchangeOpened {
        exchange,
        time,
        refusal: Some(Refusal {
            phase: "identify".into(),
            status: 401,
            reason: "Unauthorized".into(),
            message: "Unauthorized".into(),
        }),
        ..ExchangeOpened::default()
    }))
}

pub(crate) fn settled(session: SessionId, exchange: ExchangeId, effect: Effect) -> Record {
    let object = ObjectChange {
        kind: "ConfigMap".into(),
        namespace: "shop".into(),
        name: "web".into(),
        uid: "u-1".into(),
        change: Change::Deleted,
    };
    let objects = if effect == Effect::Deleted { vec![object] } else { Vec::new() };
    Record::ExchangeSettled(Box::new(ExchangeSettled {
        exchange,
        session: Some(session),
        time: at(5_000),
        status: 200,
        effect,
        object_count: objects.len() as u64,
        objects,
        account: Account { state: AccountState::Complete, ..Account::default() },
        ..ExchangeSettled::default()
    }))
}

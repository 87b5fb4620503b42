//! What is put on record of a connection that went round the gateway.

use std::net::SocketAddr;

use super::Sighting;
use crate::{
    model::{
        ConnectionSeen, Principal, Record, Relation, SessionChanged, SessionId, SessionKey,
        SessionKind, SessionOpened, SessionState, Timestamp,
    },
    witness::origin::FoundOrigin,
};

/// A connection as it is first seen, under a session of its own.
pub(super) fn seen(sighting: &Sighting, relation: Relation, found: FoundOrigin) -> ConnectionSeen {
    let mut seen = ConnectionSeen {
        session: SessionId::new(),
        time: sighting.at,
        relation,
        seen_by: sighting.seen_by,
        origin: found.origin,
        cookie: sighting.cookie,
        connections: 1,
        ..ConnectionSeen::default()
    };
    update(&mut seen, sighting);
    seen
}

/// What a later sighting adds; what it does not know stays.
pub(super) fn update(seen: &mut ConnectionSeen, sighting: &Sighting) {
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    seen.local = text(sighting.local).or(seen.local.take());
    // An address that another program rewrote is what was meant, and is kept.
    seen.remote = seen.remote.take().or(text(sighting.remote));
    seen.begun = seen.begun.or(sighting.begun);
    seen.sent_bytes = sighting.sent_bytes.or(seen.sent_bytes);
    seen.received_bytes = sighting.received_bytes.or(seen.received_bytes);
    if let Some(remark) = sighting.remark {
        seen.remark = Some(remark.to_owned());
    }
}

/// The record that a session of kind `bypass` began.
pub(super) fn opened(seen: &ConnectionSeen, cluster: &str) -> Record {
    Record::SessionOpened(SessionOpened {
        session: seen.session,
        time: seen.begun.unwrap_or(seen.time),
        key: SessionKey {
            issuer: String::new(),
            subject: String::new(),
            cluster: cluster.to_owned(),
            task: None,
        },
        principal: Principal::default(),
        kind: SessionKind::Bypass,
    })
}

/// The record that it ended.
pub(super) fn ended(session: SessionId, state: SessionState, time: Timestamp) -> Record {
    Record::SessionChanged(SessionChanged {
        session,
        time,
        state,
        ended: Some(time),
        by: None,
        why: None,
        account: None,
    })
}

//! Who reads recordings: announced, recorded, and only then answered.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use recorder_user::{
    model::{AccessId, LocalUser, Record, RecordingRead, Timestamp},
    socket::{ACCESS_HEADER, Announcement, Welcome},
    store::Need,
};
use tokio::net::unix::UCred;

use super::{
    answer::{Answer, fault, json},
    users,
};
use crate::{
    bounds::{
        ACCESS_IDS_MAX, ACCESS_LIFETIME, ACCESS_QUERY_BYTES_MAX, ACCESS_VERB_BYTES_MAX,
        ACCESSES_MAX,
    },
    gateway::Gateway,
};

/// The accesses that were announced and may get rows.
#[derive(Debug)]
pub struct Accesses {
    recorded: bool,
    known: Mutex<VecDeque<Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    access: AccessId,
    uid: u32,
    since: Instant,
}

impl Accesses {
    /// None so far; `recorded` is whether they are to be put on record.
    #[must_use]
    pub fn new(recorded: bool) -> Self {
        Self { recorded, known: Mutex::default() }
    }

    fn add(&self, access: AccessId, uid: u32, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        while known.front().is_some_and(|oldest| is_over(oldest, now)) {
            known.pop_front();
        }
        if known.len() >= ACCESSES_MAX {
            known.pop_front();
        }
        known.push_back(Known { access, uid, since: now });
    }

    fn has(&self, access: AccessId, uid: u32, now: Instant) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|known| known.access == access && known.uid == uid && !is_over(known, now))
    }
}

fn is_over(known: &Known, now: Instant) -> bool {
    now.saturating_duration_since(known.since) >= ACCESS_LIFETIME
}

/// Takes an announcement: answers once the access is on record.
pub(super) async fn announce(gateway: &Gateway, user: UCred, body: &Bytes) -> Answer {
    let announcement: Announcement = match serde_json::from_slice(body) {
        Ok(announcement) => announcement,
        Err(error) => return fault(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if let Err(message) = check(&announcement) {
        return fault(StatusCode::BAD_REQUEST, &message);
    }
    let access = AccessId::new();
    if gateway.accesses.recorded {
        let Announcement { verb, through, what } = announcement;
        let uid = user.uid();
        let by = LocalUser { uid, user: users::name(uid).await, pid: user.pid() };
        let time = Timestamp::now();
        let read = RecordingRead { access, time, by, through, verb, what };
        let record = Record::RecordingRead(Box::new(read));
        if let Err(error) = gateway.recorder.append(record, Need::Written).await {
            tracing::warn!(%error, "an access to recordings could not be recorded, and is refused");
            return fault(StatusCode::SERVICE_UNAVAILABLE, "the access cannot be recorded");
        }
    }
    gateway.accesses.add(access, user.uid(), Instant::now());
    Ok(json(StatusCode::OK, &Welcome { access }))
}

fn check(announcement: &Announcement) -> Result<(), String> {
    let Announcement { verb, what, .. } = announcement;
    let is_word = verb.bytes().all(|byte| byte.is_ascii_lowercase());
    if verb.is_empty() || verb.len() > ACCESS_VERB_BYTES_MAX || !is_word {
        return Err(format!("the verb is no word of at most {ACCESS_VERB_BYTES_MAX} letters"));
    }
    if what.sessions.len() + what.exchanges.len() > ACCESS_IDS_MAX {
        return Err(format!("more than {ACCESS_IDS_MAX} ids"));
    }
    if what.query.as_ref().is_some_and(|query| query.len() > ACCESS_QUERY_BYTES_MAX) {
        return Err(format!("the query is longer than {ACCESS_QUERY_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// Whether the request names an access that this user announced.
pub(super) fn is_announced(gateway: &Gateway, user: UCred, headers: &HeaderMap) -> bool {
    let named = headers.get(ACCESS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    named.is_some_and(|access| gateway.accesses.has(access, user.uid(), Instant::now()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_access_is_its_users_for_a_while() {
        let accesses = Accesses::new(true);
        let (access, now) = (AccessId::new(), Instant::now());
        accesses.add(access, 7, now);
        assert!(accesses.has(access, 7, now));
        assert!(!accesses.has(access, 8, now), "it is another user's");
        assert!(!accesses.has(AccessId::new(), 7, now), "nobody announced it");
        assert!(!accesses.has(access, 7, now + ACCESS_LIFETIME), "it is over");
        for _ in 0..ACCESSES_MAX {
            accesses.add(AccessId::new(), 7, now + Duration::from_secs(1));
        }
        assert!(!accesses.has(access, 7, now), "the oldest makes room");
        let known = accesses.known.lock().expect("not poisoned").len();
        assert_eq!(known, ACCESSES_MAX);
    }
}

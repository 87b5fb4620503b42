//! Connections of one cgroup that came too fast to be recorded one by one: one session that counts them.

use std::time::{Duration, Instant};

use super::written::{ended, opened};
use crate::model::{ConnectionSeen, Record, SessionId, SessionState, Timestamp};

/// What is known of them together. The process is the first one's.
pub(super) struct Crowd {
    cluster: String,
    seen: ConnectionSeen,
    /// Members that are open.
    live: u64,
    last: Instant,
    written: Option<Instant>,
    is_changed: bool,
}

impl Crowd {
    /// Begins with one of them.
    pub(super) fn new(first: &ConnectionSeen, cluster: &str, now: Instant) -> Self {
        let seen = ConnectionSeen {
            session: SessionId::new(),
            cookie: 0,
            local: None,
            begun: Some(first.begun.unwrap_or(first.time)),
            ended: None,
            sent_bytes: Some(0),
            received_bytes: Some(0),
            connections: 0,
            again: false,
            remark: Some("too many to be recorded one by one: counted together".into()),
            ..first.clone()
        };
        let cluster = cluster.to_owned();
        Self { cluster, seen, live: 0, last: now, written: None, is_changed: true }
    }

    /// One more, which is open.
    pub(super) fn joined(&mut self, now: Instant) {
        self.seen.connections += 1;
        self.live += 1;
        (self.last, self.is_changed) = (now, true);
    }

    /// One of them is over.
    pub(super) fn left(&mut self, member: &ConnectionSeen, now: Instant) {
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            *sum = Some(sum.unwrap_or(0).saturating_add(more.unwrap_or(0)));
        };
        add(&mut self.seen.sent_bytes, member.sent_bytes);
        add(&mut self.seen.received_bytes, member.received_bytes);
        self.live = self.live.saturating_sub(1);
        (self.last, self.is_changed) = (now, true);
    }

    /// Whether nobody came for long enough, and nobody is left.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.live == 0 && now.saturating_duration_since(self.last) >= IDLE_AFTER
    }

    /// What is to be written now; at once for the first time, later at intervals.
    pub(super) fn write(&mut self, now: Instant, time: Timestamp) -> Vec<Record> {
        let is_due = self
            .written
            .is_none_or(|written| now.saturating_duration_since(written) >= WRITE_EVERY);
        if self.is_changed && is_due { self.written(now, time) } else { Vec::new() }
    }

    /// The last records of it.
    pub(super) fn end(mut self, now: Instant, time: Timestamp) -> Vec<Record> {
        self.seen.ended = Some(time);
        let session = self.seen.session;
        let mut records = self.written(now, time);
        records.push(ended(session, SessionState::Ended, time));
        records
    }

    fn written(&mut self, now: Instant, time: Timestamp) -> Vec<Record> {
        let mut records = Vec::new();
        if self.written.is_none() {
            records.push(opened(&self.seen, &self.cluster));
        }
        self.seen.again = self.written.is_some();
        self.seen.time = time;
        records.push(Record::ConnectionSeen(Box::new(self.seen.clone())));
        (self.written, self.is_changed) = (Some(now), false);
        records
    }
}

/// How often the counts are put on record.
pub(super) const WRITE_EVERY: Duration = Duration::from_secs(10);
/// Whoever comes later begins another session.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(60);

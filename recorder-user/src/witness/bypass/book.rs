//! The connections that go round the gateway, from their opening to their end.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    AllowRule, BypassCounts, Happened, Sighting,
    budget::Budget,
    crowd::Crowd,
    written::{ended, opened, seen, update},
};
use crate::{
    model::{ConnectionSeen, Record, Relation, SeenBy, SessionState, Timestamp},
    witness::origin::FoundOrigin,
};

/// What follows from what was seen.
#[derive(Debug, Default)]
pub struct Told {
    /// To be put on record, in this order.
    pub records: Vec<Record>,
    /// To be told to whoever watches the log, as it begins.
    pub alerts: Vec<ConnectionSeen>,
}

/// What the kernel counted of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketTotals {
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes moved by others than its owner.
    pub other_bytes: u64,
    /// When it was closed; none while it is open.
    pub closed: Option<Timestamp>,
}

/// One connection.
struct Open {
    cluster: String,
    seen: ConnectionSeen,
    is_allowed: bool,
    /// When the connection was made; none while it is being made.
    since: Option<Instant>,
    touched: Instant,
    on_record: OnRecord,
    missing: Option<Instant>,
}

/// How a connection is on record.
enum OnRecord {
    /// Not yet.
    Not,
    /// In a session of its own.
    Alone,
    /// Counted in its cgroup's.
    Crowd(u64),
}

/// All that is known of connections round the gateway.
pub struct Book {
    rules: Vec<AllowRule>,
    open: HashMap<u64, Open>,
    /// By socket and stranger.
    intruders: HashMap<(u64, u32), (ConnectionSeen, Instant)>,
    ports: HashSet<u64>,
    crowds: HashMap<u64, Crowd>,
    budget: Budget,
    counts: BypassCounts,
}

impl Book {
    /// An empty book; what fits one of the rules is only counted.
    #[must_use]
    pub fn new(rules: Vec<AllowRule>) -> Self {
        Self {
            rules,
            open: HashMap::new(),
            intruders: HashMap::new(),
            ports: HashSet::new(),
            crowds: HashMap::new(),
            budget: Budget::new(RECORDS_PER_SECOND, RECORDS_BURST),
            counts: BypassCounts::default(),
        }
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counts(&self) -> BypassCounts {
        let open = |is_allowed: bool| {
            let is = |open: &&Open| open.since.is_some() && open.is_allowed == is_allowed;
            self.open.values().filter(is).count() as u64
        };
        BypassCounts { reported_open: open(false), allowed_open: open(true), ..self.counts }
    }

    /// Whether this connection is followed: then who is behind it is known.
    #[must_use]
    pub fn follows(&self, cookie: u64) -> bool {
        self.open.contains_key(&cookie)
    }

    /// Takes in what was seen of a connection. `found` is who is behind it, where it is not followed yet.
    pub fn sighted(
        &mut self,
        sighting: &Sighting,
        found: Option<FoundOrigin>,
        cluster: &str,
        now: Instant,
    ) -> Told {
        let mut told = Told::default();
        match sighting.happened {
            Happened::Opening => {
                self.entry(sighting, found, cluster, now);
            }
            Happened::Established => {
                if let Some(mut open) = self.entry(sighting, found, cluster, now) {
                    self.established(&mut open, now, &mut told);
                    self.open.insert(sighting.cookie, open);
                }
            }
            Happened::Closed => {
                let known = self.open.remove(&sighting.cookie);
                let mut open =
                    known.unwrap_or_else(|| self.new_open(sighting, found, cluster, now));
                self.established(&mut open, now, &mut told);
                update(&mut open.seen, sighting);
                open.seen.ended = Some(sighting.at);
                self.finish(open, now, sighting.at, &mut told);
            }
            Happened::Failed => {
                self.open.remove(&sighting.cookie);
                self.counts.failed += 1;
            }
            Happened::TookPort => self.took_port(sighting, found, cluster, now, &mut told),
            Happened::Intruded => self.intruded(sighting, found, cluster, now, &mut told),
        }
        told
    }

    /// The entry of a connection, made when there is none; taken out when the caller shall put it back. None
    /// when there are too many.
    fn entry(
        &mut self,
        sighting: &Sighting,
        found: Option<FoundOrigin>,
        cluster: &str,
        now: Instant,
    ) -> Option<Open> {
        let is_opening = sighting.happened == Happened::Opening;
        let mut open = match self.open.remove(&sighting.cookie) {
            Some(open) => open,
            None if self.open.len() >= OPEN_MAX => {
                self.counts.untracked += u64::from(!is_opening);
                return None;
            }
            None => self.new_open(sighting, found, cluster, now),
        };
        update(&mut open.seen, sighting);
        open.touched = now;
        if is_opening {
            self.open.insert(sighting.cookie, open);
            return None;
        }
        Some(open)
    }

    fn new_open(
        &self,
        sighting: &Sighting,
        found: Option<FoundOrigin>,
        cluster: &str,
        now: Instant,
    ) -> Open {
        let found = found.unwrap_or_default();
        let is_allowed = self.rules.iter().any(|rule| rule.allows(&found));
        let seen = seen(sighting, Relation::Direct, found);
        Open {
            cluster: cluster.to_owned(),
            seen,
            is_allowed,
            since: None,
            touched: now,
            on_record: OnRecord::Not,
            missing: None,
        }
    }

    /// Counts a connection, once, and raises the alarm.
    fn established(&mut self, open: &mut Open, now: Instant, told: &mut Told) {
        if open.since.is_some() {
            return;
        }
        open.since = Some(now);
        if open.is_allowed {
            self.counts.allowed += 1;
        } else {
            self.counts.reported += 1;
            told.alerts.push(open.seen.clone());
        }
    }

    fn finish(&mut self, open: Open, now: Instant, time: Timestamp, told: &mut Told) {
        let (sent, received) =
            (open.seen.sent_bytes.unwrap_or(0), open.seen.received_bytes.unwrap_or(0));
        if open.is_allowed {
            self.counts.allowed_sent_bytes += sent;
            self.counts.allowed_received_bytes += received;
            return;
        }
        self.counts.reported_sent_bytes += sent;
        self.counts.reported_received_bytes += received;
        let Open { mut seen, cluster, on_record, .. } = open;
        seen.time = time;
        let session = seen.session;
        match on_record {
            OnRecord::Alone => seen.again = true,
            OnRecord::Crowd(key) => {
                if let Some(crowd) = self.crowds.get_mut(&key) {
                    crowd.left(&seen, now);
                }
                return;
            }
            OnRecord::Not if self.budget.take(now) => told.records.push(opened(&seen, &cluster)),
            OnRecord::Not => {
                let key = self.crowd(&seen, &cluster, now);
                if let Some(crowd) = self.crowds.get_mut(&key) {
                    crowd.left(&seen, now);
                }
                return;
            }
        }
        told.records.push(Record::ConnectionSeen(Box::new(seen)));
        told.records.push(ended(session, SessionState::Ended, time));
    }

    /// Counts a connection in its cgroup's crowd, or in everybody's where there are too many of those.
    fn crowd(&mut self, seen: &ConnectionSeen, cluster: &str, now: Instant) -> u64 {
        let own = seen.origin.cgroup_id;
        let is_full = self.crowds.len() >= CROWDS_MAX && !self.crowds.contains_key(&own);
        let key = if is_full { EVERYBODY } else { own };
        let crowd = self.crowds.entry(key).or_insert_with(|| {
            let mut first = seen.clone();
            if is_full {
                first.origin = crate::model::Origin::default();
            }
            Crowd::new(&first, cluster, now)
        });
        crowd.joined(now);
        self.counts.aggregated += 1;
        key
    }

    fn took_port(
        &mut self,
        sighting: &Sighting,
        found: Option<FoundOrigin>,
        cluster: &str,
        now: Instant,
        told: &mut Told,
    ) {
        // The bind and the listen of one socket are told apart.
        if self.ports.len() >= PORTS_MAX {
            self.ports.clear();
        }
        if !self.ports.insert(sighting.cookie) {
            return;
        }
        self.counts.ports += 1;
        let mut seen = seen(sighting, Relation::Port, found.unwrap_or_default());
        told.alerts.push(seen.clone());
        if self.budget.take(now) {
            (seen.time, seen.begun) = (sighting.at, Some(sighting.at));
            let session = seen.session;
            told.records.push(opened(&seen, cluster));
            told.records.push(Record::ConnectionSeen(Box::new(seen)));
            told.records.push(ended(session, SessionState::Ended, sighting.at));
        } else {
            let key = self.crowd(&seen, cluster, now);
            if let Some(crowd) = self.crowds.get_mut(&key) {
                crowd.left(&seen, now);
            }
        }
    }

    fn intruded(
        &mut self,
        sighting: &Sighting,
        found: Option<FoundOrigin>,
        cluster: &str,
        now: Instant,
        told: &mut Told,
    ) {
        let key = (sighting.cookie, sighting.subject.tgid);
        if self.intruders.contains_key(&key) {
            return;
        }
        self.counts.intruders += 1;
        let mut seen = seen(sighting, Relation::Intruder, found.unwrap_or_default());
        (seen.time, seen.begun) = (sighting.at, Some(sighting.at));
        told.alerts.push(seen.clone());
        if self.intruders.len() < INTRUDERS_MAX && self.budget.take(now) {
            told.records.push(opened(&seen, cluster));
            told.records.push(Record::ConnectionSeen(Box::new(seen.clone())));
            self.intruders.insert(key, (seen, now));
        } else {
            let key = self.crowd(&seen, cluster, now);
            if let Some(crowd) = self.crowds.get_mut(&key) {
                crowd.left(&seen, now);
            }
        }
    }

    /// Looks after what is open, about once a second. `totals` are the kernel's; none of a socket that it
    /// does not count, or not any more.
    pub fn tick(
        &mut self,
        now: Instant,
        time: Timestamp,
        totals: impl Fn(u64) -> Option<SocketTotals>,
    ) -> Told {
        let mut told = Told::default();
        for cookie in self.open.keys().copied().collect::<Vec<_>>() {
            if let Some(open) = self.open.remove(&cookie)
                && let Some(open) = self.look(open, totals(cookie), now, time, &mut told)
            {
                self.open.insert(cookie, open);
            }
        }
        self.look_at_intruders(now, time, &totals, &mut told);
        for key in self.crowds.keys().copied().collect::<Vec<_>>() {
            if self.crowds.get(&key).is_some_and(|crowd| crowd.is_over(now)) {
                let crowd = self.crowds.remove(&key);
                told.records.extend(crowd.into_iter().flat_map(|crowd| crowd.end(now, time)));
            } else if let Some(crowd) = self.crowds.get_mut(&key) {
                told.records.extend(crowd.write(now, time));
            }
        }
        told
    }

    /// Gives back what goes on.
    fn look(
        &mut self,
        mut open: Open,
        totals: Option<SocketTotals>,
        now: Instant,
        time: Timestamp,
        told: &mut Told,
    ) -> Option<Open> {
        let Some(since) = open.since else {
            let waited = now.saturating_duration_since(open.touched);
            self.counts.failed += u64::from(waited >= OPENING_MAX);
            return (waited < OPENING_MAX).then_some(open);
        };
        if open.seen.seen_by == SeenBy::Hooks
            && let Some(ended) = followed(&mut open, totals, now, time)
        {
            self.counts.unseen_ends += 1;
            open.seen.ended = ended;
            open.seen.remark.get_or_insert_with(|| "its end was not told by the kernel".into());
            self.finish(open, now, time, told);
            return None;
        }
        let is_long = now.saturating_duration_since(since) >= RECORD_AFTER;
        if is_long && !open.is_allowed && matches!(open.on_record, OnRecord::Not) {
            if self.budget.take(now) {
                open.seen.time = time;
                told.records.push(opened(&open.seen, &open.cluster));
                told.records.push(Record::ConnectionSeen(Box::new(open.seen.clone())));
                open.on_record = OnRecord::Alone;
            } else {
                open.on_record = OnRecord::Crowd(self.crowd(&open.seen, &open.cluster, now));
            }
        }
        Some(open)
    }

    fn look_at_intruders(
        &mut self,
        now: Instant,
        time: Timestamp,
        totals: impl Fn(u64) -> Option<SocketTotals>,
        told: &mut Told,
    ) {
        self.intruders.retain(|(cookie, _), (seen, written)| {
            let counted = totals(*cookie);
            let bytes = counted.map(|counted| counted.other_bytes).or(seen.sent_bytes);
            let is_over = counted.is_none_or(|counted| counted.closed.is_some());
            let is_due = now.saturating_duration_since(*written) >= super::crowd::WRITE_EVERY;
            if is_over || (is_due && bytes != seen.sent_bytes) {
                (seen.sent_bytes, seen.again, seen.time, *written) = (bytes, true, time, now);
                seen.remark = Some("bytes of both directions are counted together".into());
                seen.ended = counted.map_or(Some(time), |counted| counted.closed);
                told.records.push(Record::ConnectionSeen(Box::new(seen.clone())));
            }
            if is_over {
                told.records.push(ended(seen.session, SessionState::Ended, time));
            }
            !is_over
        });
    }

    /// Takes in a look at the kernel's list of sockets: bytes sent and received by cookie. Connections that are known
    /// from earlier looks alone and are not in it are over.
    pub fn listed(
        &mut self,
        sockets: &HashMap<u64, (u64, u64)>,
        now: Instant,
        time: Timestamp,
    ) -> Told {
        let mut told = Told::default();
        let from_list: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, open)| open.seen.seen_by == SeenBy::SocketList)
            .map(|(cookie, _)| *cookie)
            .collect();
        for cookie in from_list {
            let Some(mut open) = self.open.remove(&cookie) else { continue };
            if let Some((sent, received)) = sockets.get(&cookie) {
                (open.seen.sent_bytes, open.seen.received_bytes) = (Some(*sent), Some(*received));
                self.open.insert(cookie, open);
                continue;
            }
            self.counts.unseen_ends += 1;
            open.seen.ended = Some(time);
            open.seen.remark = Some(
                "it was over when the list of sockets was read again: bytes as of the look before"
                    .into(),
            );
            self.finish(open, now, time, &mut told);
        }
        told
    }

    /// Whether a connection is open that only the list of sockets tells of.
    #[must_use]
    pub fn follows_listed(&self) -> bool {
        self.open.values().any(|open| open.seen.seen_by == SeenBy::SocketList)
    }

    /// The last records of what is open: the gateway stops.
    pub fn stop(
        &mut self,
        now: Instant,
        time: Timestamp,
        totals: impl Fn(u64) -> Option<SocketTotals>,
    ) -> Told {
        let mut told = Told::default();
        for (cookie, mut open) in std::mem::take(&mut self.open) {
            if open.since.is_none() {
                continue;
            }
            if let Some(counted) = totals(cookie) {
                open.seen.sent_bytes = Some(counted.sent_bytes);
                open.seen.received_bytes = Some(counted.received_bytes);
            }
            open.seen.remark = Some("it was open when the gateway stopped".into());
            self.finish(open, now, time, &mut told);
        }
        for ((cookie, _), (mut seen, _)) in std::mem::take(&mut self.intruders) {
            seen.sent_bytes = totals(cookie).map(|counted| counted.other_bytes).or(seen.sent_bytes);
            (seen.again, seen.time) = (true, time);
            let session = seen.session;
            told.records.push(Record::ConnectionSeen(Box::new(seen)));
            told.records.push(ended(session, SessionState::Ended, time));
        }
        for (_, crowd) in std::mem::take(&mut self.crowds) {
            told.records.extend(crowd.end(now, time));
        }
        told
    }
}

/// Takes a socket's totals in. Some when its end was missed: it was closed a while ago, or the kernel does not know it
/// any more.
#[expect(clippy::option_option, reason = "an end that was missed may have no time")]
fn followed(
    open: &mut Open,
    totals: Option<SocketTotals>,
    now: Instant,
    time: Timestamp,
) -> Option<Option<Timestamp>> {
    // One without totals of its own is followed by its notices alone.
    let has_totals = open.seen.remark.is_none();
    match totals {
        Some(counted) => {
            open.missing = None;
            open.seen.sent_bytes = Some(counted.sent_bytes);
            open.seen.received_bytes = Some(counted.received_bytes);
            let closed = counted.closed?;
            (time.micros_since(closed) > NOTICE_LATE_US).then_some(Some(closed))
        }
        None if has_totals => {
            let missing = *open.missing.get_or_insert(now);
            (now.saturating_duration_since(missing) >= MISSING_MAX).then_some(None)
        }
        None => None,
    }
}

/// Sessions recorded one by one: so many a second …
const RECORDS_PER_SECOND: u32 = 20;
/// … after so many at once; what comes faster is counted per cgroup.
const RECORDS_BURST: u32 = 200;
/// Connections followed at once (8 MB); what is beyond is reported when it ends.
const OPEN_MAX: usize = 8_192;
/// Cgroups whose connections are counted together; those of others are counted in one.
const CROWDS_MAX: usize = 256;
/// The crowd of all cgroups beyond; no cgroup has this number.
const EVERYBODY: u64 = u64::MAX;
/// Strangers on the gateway's sockets that are followed at once.
const INTRUDERS_MAX: usize = 1_024;
/// Sockets whose bind is remembered until their listen.
const PORTS_MAX: usize = 1_024;
/// A connection that lasts so long is put on record before it ends.
const RECORD_AFTER: Duration = Duration::from_secs(1);
/// A handshake takes no longer: the kernel gives up after 127 s.
const OPENING_MAX: Duration = Duration::from_secs(180);
/// A notice takes no longer from the kernel.
const NOTICE_LATE_US: i64 = 3_000_000;
/// A socket that the kernel has not counted for so long is gone; its totals stay readable for a while.
const MISSING_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;

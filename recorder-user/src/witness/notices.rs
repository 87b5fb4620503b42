//! What comes through the ring: of each witnessed socket, which notices were lost on the way and where; and
//! what is told on to whoever looks after connections round the gateway. Totals are not taken from here, they
//! lie in the table.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use recorder_ebpf::{Notice, RingRecord, kind, role, tcp_state};
use tokio::sync::mpsc;

/// Sockets correlated at once. Above it a socket is still counted exactly by the kernel, but its notices
/// are not looked at, and it is counted as untracked.
pub(super) const SOCKETS_MAX: usize = 65_536;

/// Losses told apart per socket; further ones are added to the last.
const LOSSES_MAX: usize = 8;

/// Records that wait for their consumer (1.4 MB); what comes beyond is dropped and counted.
pub(super) const UNHEARD_MAX: usize = 8_192;

/// Notices of one socket that were lost in a row, and where in its two byte streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How many were lost.
    pub notices: u64,
    /// Bytes sent between the notices before and after.
    pub sent: Range<u64>,
    /// Bytes received between the notices before and after.
    pub received: Range<u64>,
}

/// One socket's notices so far.
#[derive(Default)]
pub(super) struct SocketNotices {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Notices up to this number were made before anybody looked.
    base: u64,
    last_seq: u64,
    sent_bytes: u64,
    received_bytes: u64,
    closed: bool,
    holes: Vec<Hole>,
}

struct Hole {
    /// Sequence numbers that were passed over.
    numbers: Range<u64>,
    loss: Loss,
}

impl Seen {
    fn observe(&mut self, notice: &Notice) {
        let seq = notice.head.seq;
        if seq <= self.base {
            return;
        }
        // Two CPUs may write to the ring in another order than they took their numbers.
        if seq <= self.last_seq {
            self.found_after_all(seq);
        } else {
            if seq > self.last_seq + 1 {
                self.passed_over(seq, notice);
            }
            self.last_seq = seq;
        }
        self.sent_bytes = self.sent_bytes.max(notice.sent_bytes);
        self.received_bytes = self.received_bytes.max(notice.received_bytes);
        let [_, new_state] = notice.detail;
        if notice.head.kind == kind::STATE && new_state == u32::from(tcp_state::CLOSE) {
            self.closed = true;
        }
    }

    fn passed_over(&mut self, seq: u64, notice: &Notice) {
        let numbers = self.last_seq + 1..seq;
        let notices = seq - self.last_seq - 1;
        let (sent, received) = (notice.sent_bytes, notice.received_bytes);
        if self.holes.len() == LOSSES_MAX
            && let Some(last) = self.holes.last_mut()
        {
            last.numbers.end = seq;
            last.loss.notices += notices;
            last.loss.sent.end = last.loss.sent.end.max(sent);
            last.loss.received.end = last.loss.received.end.max(received);
            return;
        }
        let loss = Loss {
            notices,
            sent: self.sent_bytes..sent.max(self.sent_bytes),
            received: self.received_bytes..received.max(self.received_bytes),
        };
        self.holes.push(Hole { numbers, loss });
    }

    fn found_after_all(&mut self, seq: u64) {
        let Some(at) = self.holes.iter().position(|hole| hole.numbers.contains(&seq)) else {
            return;
        };
        let notices = &mut self.holes[at].loss.notices;
        *notices = notices.saturating_sub(1);
        if *notices == 0 {
            self.holes.remove(at);
        }
    }
}

impl SocketNotices {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many notices are missing among those that came.
    pub(super) fn holes(&self) -> u64 {
        self.seen().holes.iter().map(|hole| hole.loss.notices).sum()
    }

    /// The highest sequence number seen.
    pub(super) fn seq(&self) -> u64 {
        self.seen().last_seq
    }

    /// Where notices are missing.
    pub(super) fn losses(&self) -> Vec<Loss> {
        self.seen().holes.iter().map(|hole| hole.loss.clone()).collect()
    }

    /// Received and sent bytes by the notice of the connection's end: no byte follows it.
    pub(super) fn final_totals(&self) -> Option<(u64, u64)> {
        let seen = self.seen();
        seen.closed.then_some((seen.received_bytes, seen.sent_bytes))
    }
}

/// The sockets whose notices are looked at, by cookie, and the way on for what others look at.
pub(super) struct Correlator {
    sockets: Mutex<HashMap<u64, Arc<SocketNotices>>>,
    told: mpsc::Sender<RingRecord>,
    /// Takes every record instead, in a process that only passes them on.
    passes_on: OnceLock<Box<dyn Fn(RingRecord) + Send + Sync>>,
    observed: AtomicU64,
    late: AtomicU64,
    untracked: AtomicU64,
    unheard: AtomicU64,
    beats: AtomicU64,
}

impl Correlator {
    /// A correlator, and where it tells of connections, strangers on the gateway's sockets, and ended owners.
    pub(super) fn new() -> (Self, mpsc::Receiver<RingRecord>) {
        let (told, hears) = mpsc::channel(UNHEARD_MAX);
        let zero = AtomicU64::default;
        let correlator = Self {
            sockets: Mutex::default(),
            told,
            passes_on: OnceLock::new(),
            observed: zero(),
            late: zero(),
            untracked: zero(),
            unheard: zero(),
            beats: zero(),
        };
        (correlator, hears)
    }

    /// From now on every record but the heartbeat's goes to `take`, and nobody is told of it otherwise.
    pub(super) fn pass_on(&self, take: impl Fn(RingRecord) + Send + Sync + 'static) {
        // Whoever comes second hears nothing: there is one way on.
        drop(self.passes_on.set(Box::new(take)));
    }

    /// Begins with a socket of which so many notices were made already.
    pub(super) fn track(&self, cookie: u64, base: u64) -> Arc<SocketNotices> {
        let seen = Seen { base, last_seq: base, ..Seen::default() };
        let notices = Arc::new(SocketNotices { seen: Mutex::new(seen) });
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.len() < SOCKETS_MAX {
            sockets.insert(cookie, Arc::clone(&notices));
        } else {
            self.untracked.fetch_add(1, Ordering::Relaxed);
        }
        notices
    }

    /// Forgets a socket.
    pub(super) fn forget(&self, cookie: u64) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(&cookie);
    }

    /// Takes records in, under one lock.
    pub(super) fn observe(&self, records: impl Iterator<Item = RingRecord>) {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut observed, mut late) = (0, 0);
        for record in records {
            if let Some(take) = self.passes_on.get()
                && !matches!(record, RingRecord::Socket(notice) if notice.role == role::HEARTBEAT)
            {
                take(record);
                continue;
            }
            let RingRecord::Socket(notice) = record else {
                self.tell(record);
                continue;
            };
            match sockets.get(&notice.head.cookie) {
                Some(socket) => {
                    socket.seen().observe(&notice);
                    observed += 1;
                }
                None if notice.role == role::HEARTBEAT => {
                    self.beats.fetch_max(notice.sent_bytes, Ordering::Relaxed);
                }
                None => late += 1,
            }
            if matches!(notice.head.kind, kind::INTRUDER | kind::EXIT) {
                self.tell(record);
            }
        }
        drop(sockets);
        self.observed.fetch_add(observed, Ordering::Relaxed);
        self.late.fetch_add(late, Ordering::Relaxed);
    }

    fn tell(&self, record: RingRecord) {
        if self.told.try_send(record).is_err() {
            self.unheard.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notices that reached their socket.
    pub(super) fn observed(&self) -> u64 {
        self.observed.load(Ordering::Relaxed)
    }

    /// Notices of sockets that are no longer, or never were, tracked.
    pub(super) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Sockets above the bound.
    pub(super) fn untracked(&self) -> u64 {
        self.untracked.load(Ordering::Relaxed)
    }

    /// Records that nobody took in time.
    pub(super) fn unheard(&self) -> u64 {
        self.unheard.load(Ordering::Relaxed)
    }

    /// Bytes that the heartbeat sent, by its latest notice.
    pub(super) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn tracked(&self) -> usize {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use recorder_ebpf::{ABI_VERSION, ConnectionNotice, Head};

    use super::*;

    fn notice(cookie: u64, seq: u64, kind: u16) -> Notice {
        let head = Head {
            version: ABI_VERSION,
            kind,
            seq,
            cookie,
            ktime_ns: 1_000 + seq,
            ..Head::default()
        };
        Notice { head, ..Notice::default() }
    }

    fn sent(cookie: u64, seq: u64) -> RingRecord {
        RingRecord::Socket(Notice {
            sent_bytes: 10 * seq,
            received_bytes: seq,
            ..notice(cookie, seq, kind::SENT)
        })
    }

    #[test]
    fn holes_are_counted_per_socket_and_order_does_not_matter() {
        let (correlator, _hears) = Correlator::new();
        let (a, b) = (correlator.track(1, 0), correlator.track(2, 0));
        correlator
            .observe([sent(1, 1), sent(1, 3), sent(1, 2), sent(2, 1), sent(2, 5)].into_iter());
        assert_eq!((a.holes(), a.seq()), (0, 3), "only out of order");
        assert_eq!((b.holes(), b.seq()), (3, 5), "2, 3 and 4 are missing");
        assert_eq!(b.losses(), [Loss { notices: 3, sent: 10..50, received: 1..5 }]);
        assert_eq!((correlator.observed(), correlator.late()), (5, 0));
    }

    #[test]
    fn what_was_made_before_anybody_looked_is_not_missing() {
        let (correlator, _hears) = Correlator::new();
        let socket = correlator.track(1, 4);
        correlator.observe([sent(1, 3), sent(1, 4), sent(1, 5), sent(1, 7)].into_iter());
        assert_eq!((socket.holes(), socket.seq()), (1, 7));
    }

    #[test]
    fn losses_are_bounded_and_the_last_takes_the_rest() {
        let (correlator, _hears) = Correlator::new();
        let socket = correlator.track(1, 0);
        correlator.observe((1..=20).map(|nth| sent(1, nth * 2)));
        let losses = socket.losses();
        assert_eq!((losses.len(), socket.holes()), (LOSSES_MAX, 20));
        assert_eq!(losses[0], Loss { notices: 1, sent: 0..20, received: 0..2 });
        let last = losses.last().expect("eight of them");
        assert_eq!((last.notices, last.sent.clone()), (13, 140..400));
    }

    #[test]
    fn a_forgotten_socket_leaves_nothing_behind() {
        let (correlator, _hears) = Correlator::new();
        correlator.track(1, 0);
        correlator.forget(1);
        correlator.observe([sent(1, 1)].into_iter());
        assert_eq!((correlator.tracked(), correlator.observed(), correlator.late()), (0, 0, 1));
    }

    #[test]
    fn close_fixes_the_totals() {
        let (correlator, _hears) = Correlator::new();
        let socket = correlator.track(1, 0);
        let state = |seq, detail, sent_bytes| {
            RingRecord::Socket(Notice {
                detail,
                sent_bytes,
                received_bytes: 7,
                ..notice(1, seq, kind::STATE)
            })
        };
        correlator.observe([state(1, [1, 8], 90)].into_iter());
        assert_eq!(socket.final_totals(), None);
        correlator.observe([state(2, [8, 9], 100), state(3, [9, 7], 100)].into_iter());
        assert_eq!(socket.final_totals(), Some((7, 100)));
    }

    #[test]
    fn connections_strangers_and_ends_of_processes_are_told_on() {
        let (correlator, mut hears) = Correlator::new();
        correlator.track(1, 0);
        let stranger = RingRecord::Socket(notice(1, 1, kind::INTRUDER));
        let ended = RingRecord::Socket(notice(0, 0, kind::EXIT));
        let connection = RingRecord::Connection(ConnectionNotice::default());
        correlator.observe([stranger, sent(1, 2), ended, connection].into_iter());
        let told: Vec<_> = std::iter::from_fn(|| hears.try_recv().ok()).collect();
        assert_eq!(told, [stranger, ended, connection]);
        correlator.observe(std::iter::repeat_n(connection, UNHEARD_MAX + 3));
        assert_eq!(correlator.unheard(), 3);
    }

    #[test]
    fn the_table_is_bounded_and_says_when_it_was_full() {
        let (correlator, _hears) = Correlator::new();
        for cookie in 0..SOCKETS_MAX as u64 + 2 {
            correlator.track(cookie, 0);
        }
        assert_eq!((correlator.tracked(), correlator.untracked()), (SOCKETS_MAX, 2));
    }
}

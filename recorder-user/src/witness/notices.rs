//! What the kernel's notices say of each adopted socket: how many were lost on the way, and when the end
//! began. Totals are not taken from here, they live with the socket in the kernel.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use recorder_ebpf::{
    tcp_state,
    v1::{Notice, kind},
};

/// Sockets correlated at once. Above it a socket is still counted exactly by the kernel, but its notices
/// are not looked at, and it is counted as untracked.
pub(super) const SOCKETS_MAX: usize = 65_536;

/// One socket's notices so far. Written by the correlator alone; read by whoever holds the socket.
#[derive(Default)]
pub(super) struct SocketNotices {
    received: AtomicU64,
    last_seq: AtomicU64,
    ended_ns: AtomicU64,
    closed: AtomicBool,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl SocketNotices {
    fn observe(&self, notice: &Notice) {
        self.received.fetch_add(1, Ordering::Relaxed);
        // Two CPUs may write to the ring in another order than they took their numbers, hence the maximum.
        self.last_seq.fetch_max(notice.seq, Ordering::Relaxed);
        self.sent_bytes.fetch_max(notice.sent_bytes, Ordering::Relaxed);
        self.received_bytes.fetch_max(notice.received_bytes, Ordering::Relaxed);
        if notice.kind == kind::STATE && notice.old_state == u32::from(tcp_state::ESTABLISHED) {
            self.ended_ns.store(notice.ktime_ns, Ordering::Relaxed);
        }
        if notice.kind == kind::STATE && notice.new_state == u32::from(tcp_state::CLOSE) {
            self.closed.store(true, Ordering::Release);
        }
    }

    /// Numbers that were passed over: these notices were lost before they came here.
    pub(super) fn holes(&self) -> u64 {
        let last = self.last_seq.load(Ordering::Relaxed);
        last.saturating_sub(self.received.load(Ordering::Relaxed))
    }

    /// The highest sequence number seen.
    pub(super) fn seq(&self) -> u64 {
        self.last_seq.load(Ordering::Relaxed)
    }

    /// When the connection left the state in which data flows both ways; 0 while it did not.
    pub(super) fn ended_ns(&self) -> u64 {
        self.ended_ns.load(Ordering::Relaxed)
    }

    /// Received and sent bytes by the notice of the connection's end: no byte follows it.
    pub(super) fn final_totals(&self) -> Option<(u64, u64)> {
        let totals = || {
            let received = self.received_bytes.load(Ordering::Relaxed);
            (received, self.sent_bytes.load(Ordering::Relaxed))
        };
        self.closed.load(Ordering::Acquire).then(totals)
    }
}

/// The sockets whose notices are looked at, by cookie.
#[derive(Default)]
pub(super) struct Correlator {
    sockets: Mutex<HashMap<u64, Arc<SocketNotices>>>,
    observed: AtomicU64,
    late: AtomicU64,
    untracked: AtomicU64,
}

impl Correlator {
    /// Begins with a socket, before its first notice can come.
    pub(super) fn track(&self, cookie: u64) -> Arc<SocketNotices> {
        let notices = Arc::new(SocketNotices::default());
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

    /// Takes notices in, under one lock.
    pub(super) fn observe(&self, notices: impl Iterator<Item = Notice>) {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut observed, mut late) = (0, 0);
        for notice in notices {
            match sockets.get(&notice.cookie) {
                Some(socket) => {
                    socket.observe(&notice);
                    observed += 1;
                }
                None => late += 1,
            }
        }
        drop(sockets);
        self.observed.fetch_add(observed, Ordering::Relaxed);
        self.late.fetch_add(late, Ordering::Relaxed);
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

    #[cfg(test)]
    pub(super) fn tracked(&self) -> usize {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use recorder_ebpf::v1::ABI_VERSION;

    use super::*;

    fn notice(cookie: u64, seq: u64, kind: u16) -> Notice {
        Notice {
            version: ABI_VERSION,
            kind,
            seq,
            cookie,
            ktime_ns: 1_000 + seq,
            ..Notice::default()
        }
    }

    fn sent(cookie: u64, seq: u64) -> Notice {
        notice(cookie, seq, kind::SENT)
    }

    #[test]
    fn holes_are_counted_per_socket_and_order_does_not_matter() {
        let correlator = Correlator::default();
        let (a, b) = (correlator.track(1), correlator.track(2));
        correlator
            .observe([sent(1, 1), sent(1, 3), sent(1, 2), sent(2, 1), sent(2, 5)].into_iter());
        assert_eq!((a.holes(), a.seq()), (0, 3), "only out of order");
        assert_eq!((b.holes(), b.seq()), (3, 5), "2, 3 and 4 are missing");
        assert_eq!((correlator.observed(), correlator.late()), (5, 0));
    }

    #[test]
    fn a_forgotten_socket_leaves_nothing_behind() {
        let correlator = Correlator::default();
        correlator.track(1);
        correlator.forget(1);
        correlator.observe([sent(1, 1)].into_iter());
        assert_eq!((correlator.tracked(), correlator.observed(), correlator.late()), (0, 0, 1));
    }

    #[test]
    fn the_end_is_the_first_state_after_established_and_close_fixes_the_totals() {
        let correlator = Correlator::default();
        let socket = correlator.track(1);
        let state = |seq, old_state, new_state, sent_bytes| Notice {
            old_state,
            new_state,
            sent_bytes,
            received_bytes: 7,
            ..notice(1, seq, kind::STATE)
        };
        correlator.observe([state(1, 1, 8, 90)].into_iter());
        assert_eq!((socket.ended_ns(), socket.final_totals()), (1_001, None));
        correlator.observe([state(2, 8, 9, 100), state(3, 9, 7, 100)].into_iter());
        assert_eq!((socket.ended_ns(), socket.final_totals()), (1_001, Some((7, 100))));
    }

    #[test]
    fn the_table_is_bounded_and_says_when_it_was_full() {
        let correlator = Correlator::default();
        for cookie in 0..SOCKETS_MAX as u64 + 2 {
            correlator.track(cookie);
        }
        assert_eq!((correlator.tracked(), correlator.untracked()), (SOCKETS_MAX, 2));
    }
}

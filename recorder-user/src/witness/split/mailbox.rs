//! Notices on their way from the programs to a gateway, and kept while there is none: bounded, the oldest go
//! first, and what goes is counted.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use recorder_ebpf::RingRecord;

use super::message::BATCH_RECORDS_MAX;

/// Notices of sockets that are kept (3 MB).
const NOTICES_MAX: usize = 16_384;

/// Notices of connections that are kept (3 MB): they tell of somebody who went round the gateway, so that
/// the many others must not push them out.
const CONNECTIONS_MAX: usize = 16_384;

/// The queues.
#[derive(Default)]
pub(super) struct Mailbox {
    kept: Mutex<Kept>,
    arrived: Condvar,
}

#[derive(Default)]
struct Kept {
    notices: VecDeque<RingRecord>,
    connections: VecDeque<RingRecord>,
    dropped: Dropped,
}

/// What was dropped so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) notices: u64,
    pub(super) connections: u64,
}

impl Mailbox {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a record.
    pub(super) fn put(&self, record: RingRecord) {
        self.kept().put(record);
        self.arrived.notify_one();
    }

    /// Takes the oldest records, connections first; waits for some, at most this long.
    pub(super) fn take(&self, patience: Duration) -> Vec<RingRecord> {
        let kept = self.kept();
        let empty = |kept: &mut Kept| kept.notices.is_empty() && kept.connections.is_empty();
        let (mut kept, _) = self
            .arrived
            .wait_timeout_while(kept, patience, empty)
            .unwrap_or_else(PoisonError::into_inner);
        let connections = kept.connections.len().min(BATCH_RECORDS_MAX);
        let mut taken: Vec<_> = kept.connections.drain(..connections).collect();
        let notices = kept.notices.len().min(BATCH_RECORDS_MAX - connections);
        taken.extend(kept.notices.drain(..notices));
        taken
    }

    /// Puts back what was taken and did not arrive: it is the oldest again.
    pub(super) fn put_back(&self, taken: Vec<RingRecord>) {
        let mut kept = self.kept();
        let newer = std::mem::take(&mut *kept);
        kept.dropped = newer.dropped;
        taken.into_iter().chain(newer.connections).chain(newer.notices).for_each(|r| kept.put(r));
    }

    /// How many records are kept.
    pub(super) fn len(&self) -> usize {
        let kept = self.kept();
        kept.notices.len() + kept.connections.len()
    }

    /// What was dropped so far.
    pub(super) fn dropped(&self) -> Dropped {
        self.kept().dropped
    }
}

impl Kept {
    fn put(&mut self, record: RingRecord) {
        let (queue, max, dropped) = match record {
            RingRecord::Socket(_) => (&mut self.notices, NOTICES_MAX, &mut self.dropped.notices),
            RingRecord::Connection(_) => {
                (&mut self.connections, CONNECTIONS_MAX, &mut self.dropped.connections)
            }
        };
        if queue.len() == max {
            queue.pop_front();
            *dropped += 1;
        }
        queue.push_back(record);
    }
}

#[cfg(test)]
mod tests {
    use recorder_ebpf::{ConnectionNotice, Head, Notice};

    use super::*;

    fn notice(seq: u64) -> RingRecord {
        let head = Head { seq, ..Head::default() };
        RingRecord::Socket(Notice { head, ..Notice::default() })
    }

    fn connection(cookie: u64) -> RingRecord {
        let head = Head { cookie, ..Head::default() };
        RingRecord::Connection(ConnectionNotice { head, ..ConnectionNotice::default() })
    }

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let mailbox = Mailbox::default();
        mailbox.put(connection(1));
        for seq in 0..NOTICES_MAX as u64 + 3 {
            mailbox.put(notice(seq));
        }
        assert_eq!(mailbox.dropped(), Dropped { notices: 3, connections: 0 });
        assert_eq!(mailbox.len(), NOTICES_MAX + 1);
        let taken = mailbox.take(Duration::ZERO);
        assert_eq!(taken.len(), BATCH_RECORDS_MAX);
        assert_eq!(taken[..3], [connection(1), notice(3), notice(4)]);
    }

    #[test]
    fn what_did_not_arrive_comes_again_before_the_rest() {
        let mailbox = Mailbox::default();
        [notice(1), connection(2)].into_iter().for_each(|record| mailbox.put(record));
        let taken = mailbox.take(Duration::ZERO);
        assert_eq!(taken, [connection(2), notice(1)]);
        [notice(3), connection(4)].into_iter().for_each(|record| mailbox.put(record));
        mailbox.put_back(taken);
        let again = mailbox.take(Duration::ZERO);
        assert_eq!(again, [connection(2), connection(4), notice(1), notice(3)]);
        assert_eq!((mailbox.take(Duration::ZERO), mailbox.len()), (vec![], 0));
        assert_eq!(mailbox.dropped(), Dropped::default());
    }
}

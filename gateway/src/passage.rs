//! An exchange's time on a connection: where it stood among the connection's bytes when the exchange began and
//! when it settled, and whether others used it meanwhile.
//!
//! A look costs no system call: the kernel's numbers are in memory that it shares with us.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use recorder_user::{
    model::{ExchangeEnd, ExchangeId, Timestamp},
    witness::{Looks, Sample},
};

use crate::{bounds::CONNECTION_ENDS_MAX, connection::Connection};

/// The exchanges of a connection, as far as passages have to know of each other.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Under way now.
    active: AtomicU32,
    /// Begun so far.
    begun: AtomicU64,
    /// Where the inbound bytes of the last exchange ended, by the same count as in a look.
    floor_in_bytes: AtomicU64,
    /// What had been waited in the receive queue by then.
    floor_queue_ns: AtomicU64,
}

impl Traffic {
    /// What was inbound until this look is nobody's, or that of exchanges before.
    pub fn floor(&self, look: &Sample) {
        let kernel = look.kernel;
        let in_bytes = kernel.map_or(look.gateway_in_bytes, |kernel| kernel.in_bytes);
        self.floor_in_bytes.fetch_max(in_bytes, Ordering::Relaxed);
        self.floor_queue_ns.fetch_max(kernel.map_or(0, |k| k.queue_ns), Ordering::Relaxed);
    }

    /// The look that there would have been before the first byte of what was just read.
    fn before(&self, head: &Sample) -> Sample {
        let in_bytes = self.floor_in_bytes.load(Ordering::Relaxed);
        let queue_ns = self.floor_queue_ns.load(Ordering::Relaxed);
        let mut before = Sample { gateway_in_bytes: in_bytes, ..*head };
        if let Some(kernel) = &mut before.kernel {
            (kernel.in_bytes, kernel.queue_ns) = (in_bytes, queue_ns);
        }
        before
    }
}

/// An exchange's use of a connection. Dropping it ends that.
pub struct Passage {
    connection: Arc<Connection>,
    from: Sample,
    head: Option<Sample>,
    /// Its number among the exchanges of the connection.
    number: u64,
    /// Whether others were under way when it began.
    joined: bool,
    over: bool,
}

impl Passage {
    /// Of a request whose head was just read from a client.
    #[must_use]
    pub fn accepted(connection: &Arc<Connection>) -> Self {
        let head = connection.look();
        let from = connection.traffic().before(&head);
        Self::begin(connection, from, Some(head))
    }

    /// Of a request that is about to go to an API server.
    #[must_use]
    pub fn sending(connection: &Arc<Connection>) -> Self {
        Self::begin(connection, connection.look(), None)
    }

    fn begin(connection: &Arc<Connection>, from: Sample, head: Option<Sample>) -> Self {
        let traffic = connection.traffic();
        let others = traffic.active.fetch_add(1, Ordering::AcqRel);
        let number = traffic.begun.fetch_add(1, Ordering::AcqRel);
        let connection = Arc::clone(connection);
        Self { connection, from, head, number, joined: others > 0, over: false }
    }

    /// The connection.
    #[must_use]
    pub const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The response's head arrived.
    pub fn answered(&mut self) {
        self.head = Some(self.connection.look());
    }

    /// Ends it; gives the looks between which it was.
    pub fn end(&mut self) -> Looks {
        let to = self.connection.look();
        let traffic = self.connection.traffic();
        let others = traffic.begun.load(Ordering::Acquire) != self.number + 1;
        if !std::mem::replace(&mut self.over, true) {
            traffic.floor(&to);
            traffic.active.fetch_sub(1, Ordering::AcqRel);
        }
        let head = self.head.unwrap_or(to);
        Looks { from: self.from, head, to, interleaved: self.joined || others }
    }

    /// What the connection notes of it.
    pub(crate) fn beginning(&self, exchange: ExchangeId) -> Beginning {
        let kernel = self.from.kernel;
        Beginning {
            exchange,
            joined: self.joined,
            out_bytes: kernel.map_or(self.from.gateway_out_bytes, |kernel| kernel.out_bytes),
            last_out_ns: kernel.map_or(0, |kernel| kernel.last_out_ns),
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.over {
            self.end();
        }
    }
}

/// Where a connection stood when an exchange began: there the one before it had ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    exchange: ExchangeId,
    joined: bool,
    out_bytes: u64,
    last_out_ns: u64,
}

/// The latest beginnings of a connection.
#[derive(Debug, Default)]
pub(crate) struct Beginnings(VecDeque<Beginning>);

impl Beginnings {
    pub(crate) fn note(&mut self, beginning: Beginning) {
        if self.0.len() == CONNECTION_ENDS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(beginning);
    }

    /// Where each exchange ended that the next one did not overlap: `last` is the look after the last one.
    pub(crate) fn ends(
        &self,
        last: &Sample,
        wall: impl Fn(u64) -> Option<Timestamp>,
    ) -> Vec<ExchangeEnd> {
        let kernel = last.kernel;
        let last = Beginning {
            exchange: ExchangeId::from_bytes([0; 16]),
            joined: false,
            out_bytes: kernel.map_or(last.gateway_out_bytes, |kernel| kernel.out_bytes),
            last_out_ns: kernel.map_or(0, |kernel| kernel.last_out_ns),
        };
        let next = self.0.iter().skip(1).chain([&last]);
        let alone = self.0.iter().zip(next).filter(|(this, next)| !this.joined && !next.joined);
        alone
            .map(|(this, next)| ExchangeEnd {
                exchange: this.exchange,
                out_to: next.out_bytes,
                last_out: wall(next.last_out_ns),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use recorder_user::witness::KernelSample;

    use super::*;

    fn at(out_bytes: u64) -> Sample {
        let kernel =
            KernelSample { out_bytes, last_out_ns: out_bytes * 1_000, ..Default::default() };
        Sample { gateway_out_bytes: out_bytes, kernel: Some(kernel), ..Sample::default() }
    }

    fn noted(beginnings: &mut Beginnings, joined: bool, out_bytes: u64) -> ExchangeId {
        let exchange = ExchangeId::new();
        let last_out_ns = out_bytes * 1_000;
        beginnings.note(Beginning { exchange, joined, out_bytes, last_out_ns });
        exchange
    }

    fn wall(ns: u64) -> Option<Timestamp> {
        Some(Timestamp::from_micros(i64::try_from(ns / 1_000).expect("small")))
    }

    #[test]
    fn an_exchange_ends_where_the_next_one_begins_and_the_last_where_the_connection_does() {
        let mut beginnings = Beginnings::default();
        let first = noted(&mut beginnings, false, 100);
        let second = noted(&mut beginnings, false, 700);
        let ends = beginnings.ends(&at(900), wall);
        let end = |exchange, out_to: u64| ExchangeEnd {
            exchange,
            out_to,
            last_out: wall(out_to * 1_000),
        };
        assert_eq!(ends, [end(first, 700), end(second, 900)]);
    }

    #[test]
    fn exchanges_that_overlap_have_no_end_of_their_own() {
        let mut beginnings = Beginnings::default();
        let alone = noted(&mut beginnings, false, 100);
        noted(&mut beginnings, false, 200);
        noted(&mut beginnings, true, 300);
        let after = noted(&mut beginnings, false, 400);
        let ends = beginnings.ends(&at(500), wall);
        let told: Vec<_> = ends.iter().map(|end| end.exchange).collect();
        assert_eq!(told, [alone, after]);
    }

    #[test]
    fn the_latest_are_kept() {
        let mut beginnings = Beginnings::default();
        noted(&mut beginnings, false, 0);
        let kept = noted(&mut beginnings, false, 1);
        for out in 2..=CONNECTION_ENDS_MAX as u64 {
            noted(&mut beginnings, false, out);
        }
        let ends = beginnings.ends(&at(1_000), wall);
        assert_eq!((ends.len(), ends[0].exchange), (CONNECTION_ENDS_MAX, kept));
    }

    #[test]
    fn a_request_begins_where_the_one_before_it_ended() {
        let traffic = Traffic::default();
        let look = |in_bytes: u64, queue_ns: u64| {
            let kernel = KernelSample { in_bytes, queue_ns, ..Default::default() };
            Sample { gateway_in_bytes: in_bytes, kernel: Some(kernel), ..Sample::default() }
        };
        traffic.floor(&look(500, 7));
        let before = traffic.before(&look(800, 9));
        assert_eq!(before, look(500, 7));
        // A look that is older than one before it, from another thread, moves nothing back.
        traffic.floor(&look(400, 6));
        assert_eq!(traffic.before(&look(800, 9)), before);
    }
}

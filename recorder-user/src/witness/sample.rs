//! One look at a socket: what the kernel counted and when, beside what the gateway counted under TLS. Two looks
//! make the span of an exchange, joined by byte offset. Pure.

use recorder_ebpf::Slot;

use crate::model::{ExchangeSpan, Timestamp};

#[cfg(test)]
mod tests;

/// The kernel's side of a look. Times are `CLOCK_MONOTONIC` in nanoseconds, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelSample {
    /// Bytes that this process received.
    pub in_bytes: u64,
    /// Bytes that this process sent.
    pub out_bytes: u64,
    /// Send calls that took something.
    pub out_calls: u64,
    /// The latest receive call that gave something.
    pub last_in_ns: u64,
    /// The latest send call that took something.
    pub last_out_ns: u64,
    /// The first send call after the latest receive call before it.
    pub out_run_ns: u64,
    /// Sum of the waits in the receive queue.
    pub queue_ns: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
    /// Smoothed round-trip time in µs; 0 when unknown.
    pub rtt_us: u32,
}

impl From<&Slot> for KernelSample {
    fn from(slot: &Slot) -> Self {
        Self {
            in_bytes: slot.received_bytes,
            out_bytes: slot.sent_bytes,
            out_calls: slot.sent_calls,
            last_in_ns: slot.last_received_ns,
            last_out_ns: slot.last_sent_ns,
            out_run_ns: slot.sent_run_ns,
            queue_ns: slot.queue_ns,
            retransmits: slot.retransmits,
            rtt_us: slot.srtt_us,
        }
    }
}

/// A look at a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, by `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Ciphertext that the gateway had read.
    pub gateway_in_bytes: u64,
    /// Ciphertext that the gateway had written.
    pub gateway_out_bytes: u64,
    /// None where the tier does not tell without a system call.
    pub kernel: Option<KernelSample>,
}

impl Sample {
    /// Whether no call was under way between the two counts: then they are equal.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.kernel.is_none_or(|kernel| {
            let kernel = (kernel.in_bytes, kernel.out_bytes);
            kernel == (self.gateway_in_bytes, self.gateway_out_bytes)
        })
    }

    fn offsets(&self) -> (u64, u64) {
        let own = (self.gateway_in_bytes, self.gateway_out_bytes);
        self.kernel.map_or(own, |kernel| (kernel.in_bytes, kernel.out_bytes))
    }

    /// How long received bytes waited from `before` to this look, in ns; none where the tier does not tell.
    #[must_use]
    pub fn queue_ns_since(&self, before: &Self) -> Option<u64> {
        Some(self.kernel?.queue_ns.saturating_sub(before.kernel?.queue_ns))
    }

    /// When the bytes that made the gateway look were read: the latest receive call, or this look where the tier
    /// does not tell. Never before `floor_ns`.
    #[must_use]
    pub fn read_ns(&self, floor_ns: u64) -> u64 {
        let read_ns = self.kernel.map_or(0, |kernel| kernel.last_in_ns);
        if read_ns == 0 { self.at_ns } else { read_ns.clamp(floor_ns, self.at_ns.max(floor_ns)) }
    }
}

/// The looks between which an exchange had a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// Before its first byte, as far as offsets go: those of the look before it.
    pub from: Sample,
    /// When its first inbound bytes had been read.
    pub head: Sample,
    /// When it settled.
    pub to: Sample,
    /// Whether others used the connection too.
    pub interleaved: bool,
}

impl Looks {
    /// The exchange's part of the socket. `wall` makes a wall-clock time of a kernel time, and none of 0.
    #[must_use]
    pub fn span(&self, wall: impl Fn(u64) -> Option<Timestamp>) -> ExchangeSpan {
        let ((in_from, out_from), (in_to, out_to)) = (self.from.offsets(), self.to.offsets());
        let mut span = ExchangeSpan {
            in_from,
            in_to: in_to.max(in_from),
            out_from,
            out_to: out_to.max(out_from),
            interleaved: self.interleaved,
            inexact: !self.from.is_exact() || !self.to.is_exact(),
            ..ExchangeSpan::default()
        };
        let (Some(before), Some(after)) = (self.from.kernel, self.to.kernel) else { return span };
        let queue_ns = after.queue_ns.saturating_sub(before.queue_ns);
        span.queue_us = Some(queue_ns / 1_000);
        span.retransmits = after.retransmits.saturating_sub(before.retransmits);
        span.rtt_us = (after.rtt_us > 0).then(|| after.rtt_us.into());
        if span.in_to > span.in_from {
            let waited_ns = self.head.queue_ns_since(&self.from).unwrap_or(0);
            let read_ns = self.head.kernel.map_or(0, |head| head.last_in_ns);
            span.first_in = wall(read_ns.saturating_sub(waited_ns));
            span.last_in = wall(after.last_in_ns);
        }
        if span.out_to > span.out_from {
            // A run that began before the exchange did is that of what went before it.
            let first_ns = [self.head, self.to]
                .into_iter()
                .filter_map(|look| look.kernel)
                .map(|kernel| kernel.out_run_ns)
                .find(|run_ns| *run_ns > before.last_out_ns);
            span.first_out = first_ns.and_then(&wall);
            span.last_out = wall(after.last_out_ns);
        }
        span
    }
}

//! Where the time of an exchange went. Pure.
//!
//! The kernel says how long bytes lay in its queues and when calls moved them; the gateway says for whom it
//! waited. The parts are disjoint, so that they add up: what nobody else is the cause of is the gateway's.

use super::sample::{Looks, Sample};
use crate::model::Spent;

#[cfg(test)]
mod tests;

/// How a body came and went, seen from between: all in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Waiting for its source to give more.
    pub waiting_ns: u64,
    /// Waiting for its sink to take more.
    pub taking_ns: u64,
}

/// What is known of the time of an exchange. Instants are `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Looks at the client's socket.
    pub client: Looks,
    /// Looks at the API server's socket; none when nothing came from there.
    pub upstream: Option<Looks>,
    /// When the gateway turned to the API server; none when it answered itself.
    pub forwarded_ns: Option<u64>,
    /// When the request's last byte was handed to the HTTP layer; none when it never was.
    pub handed_ns: Option<u64>,
    /// The request's body.
    pub request: Pace,
    /// The response's body.
    pub response: Pace,
}

impl Course {
    /// The parts.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let client = &self.client;
        let waited_ns = |to: &Sample, from: &Sample| to.queue_ns_since(from).unwrap_or(0);
        let head_queue_ns = waited_ns(&client.head, &client.from);
        // While the gateway waited for a body, its bytes may have lain in the kernel: then it was not the sender.
        let body_queue_ns = waited_ns(&client.to, &client.head).min(self.request.waiting_ns);
        let answer = self.answer();
        let queue_ns = head_queue_ns + body_queue_ns + answer.queue_ns;
        let client_ns = self.request.waiting_ns - body_queue_ns + self.response.taking_ns;
        let upstream_ns = answer.upstream_ns + self.request.taking_ns;

        let arrived_ns = client.head.read_ns(0).saturating_sub(head_queue_ns);
        let total_ns = client.to.at_ns.saturating_sub(arrived_ns);
        let others_ns = queue_ns.saturating_add(client_ns).saturating_add(upstream_ns);
        Spent {
            queue: client.head.kernel.map(|_| queue_ns / 1_000),
            client: client_ns / 1_000,
            upstream: upstream_ns / 1_000,
            gateway: total_ns.saturating_sub(others_ns) / 1_000,
        }
    }

    /// From the request on its way to the response's last byte.
    fn answer(&self) -> Answer {
        let Some(forwarded_ns) = self.forwarded_ns else { return Answer::default() };
        let handed_ns = self.handed_ns.unwrap_or(forwarded_ns).max(forwarded_ns);
        let Some(upstream) = &self.upstream else {
            let upstream_ns = self.client.to.at_ns.saturating_sub(handed_ns);
            return Answer { queue_ns: 0, upstream_ns };
        };
        let connecting_ns = upstream.from.at_ns.saturating_sub(forwarded_ns);
        let sent_ns = upstream.sent_ns().unwrap_or(0).max(handed_ns).max(upstream.from.at_ns);
        let read_ns = upstream.head.read_ns(sent_ns);
        let head_ns = read_ns.saturating_sub(sent_ns);
        let between = |to: &Sample, from| to.queue_ns_since(from).unwrap_or(0);
        let head_queue_ns = between(&upstream.head, &upstream.from).min(head_ns);
        let body_ns = self.response.waiting_ns;
        let body_queue_ns = between(&upstream.to, &upstream.head).min(body_ns);
        Answer {
            queue_ns: head_queue_ns + body_queue_ns,
            upstream_ns: connecting_ns + head_ns - head_queue_ns + body_ns - body_queue_ns,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Answer {
    queue_ns: u64,
    upstream_ns: u64,
}

impl Looks {
    /// When the kernel took a request that went in one call of its own, which most do. Later calls may be of
    /// other things, such as answers to pings.
    fn sent_ns(&self) -> Option<u64> {
        let (from, head) = (self.from.kernel?, self.head.kernel?);
        let once = head.out_calls == from.out_calls + 1 && !self.interleaved;
        once.then_some(head.last_out_ns)
    }
}

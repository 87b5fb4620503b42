//! The account: recorded bytes compared with the kernel's, in three stated steps. Pure.
//!
//! 1. *Kernel*: what the kernel counted on a socket is what the gateway read and wrote under TLS.
//! 2. *Plaintext*: what TLS gave to the HTTP layer is what that layer took, and the other way round. Where
//!    the HTTP layer is not counted apart, what must hold is checked: decrypted bytes cannot outnumber
//!    the encrypted ones they came from, nor a body the plaintext it came in.
//! 3. *Body*: every body byte handed over was recorded, before redaction.
//!
//! `complete` needs all three. This finds loss, bugs and bypass; it does not defend against a gateway that
//! lies about steps 2 and 3.

use crate::model::{
    Account, AccountState, BodyFacts, CapabilityRecord, Direction, Gap, GapStep, SocketEvidence,
    Tier,
};

#[cfg(test)]
mod tests;

/// Whose connection a socket is: it tells which way its bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepted from a client: requests come in, responses go out.
    Client,
    /// Opened to an API server: requests go out, responses come in.
    Upstream,
}

impl Role {
    /// The word as written in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        }
    }

    const fn inbound(self) -> Direction {
        match self {
            Self::Client => Direction::Request,
            Self::Upstream => Direction::Response,
        }
    }

    const fn outbound(self) -> Direction {
        match self {
            Self::Client => Direction::Response,
            Self::Upstream => Direction::Request,
        }
    }
}

/// An account lists at most so many gaps; further ones are only summed up.
pub const GAPS_MAX: usize = 8;

/// Compares steps 1 and 2 for one connection, at any instant at which its counters stand still.
///
/// The evidence is not repeated in the account: what is recorded beside it has it already.
#[must_use]
pub fn compare_socket(
    role: Role,
    evidence: &SocketEvidence,
    capability: &CapabilityRecord,
) -> Account {
    let mut comparison = Comparison::new(capability);
    comparison.socket(role, evidence);
    comparison.conclude()
}

/// Compares all three steps for one exchange.
///
/// `client` is always expected. `upstream` is None when nothing went upstream: the gateway answered itself.
/// `bodies` are the request's and the response's.
#[must_use]
pub fn account_exchange(
    client: Option<&SocketEvidence>,
    upstream: Option<&SocketEvidence>,
    bodies: [&BodyFacts; 2],
    capability: &CapabilityRecord,
) -> Account {
    let [request, response] = bodies;
    let mut comparison = Comparison::new(capability);
    match client {
        Some(evidence) => {
            comparison.socket(Role::Client, evidence);
            comparison.body_within(Role::Client, evidence, request.bytes);
        }
        None => comparison.unwitnessed("no evidence of the client's socket".to_owned()),
    }
    if let Some(evidence) = upstream {
        comparison.socket(Role::Upstream, evidence);
        comparison.body_within(Role::Upstream, evidence, response.bytes);
    }
    comparison.body(Direction::Request, request);
    comparison.body(Direction::Response, response);
    let mut account = comparison.conclude();
    account.client = client.cloned();
    account.upstream = upstream.cloned();
    account
}

/// An account in the making.
struct Comparison {
    tier: Tier,
    gaps: Vec<Gap>,
    gap_bytes: u64,
    unwitnessed: Option<String>,
    lost_events: u64,
}

impl Comparison {
    fn new(capability: &CapabilityRecord) -> Self {
        let why = || capability.reason.clone();
        let unwitnessed = if capability.tier == Tier::Off {
            Some(why().unwrap_or_else(|| "the witness is off".to_owned()))
        } else if !capability.self_test {
            Some(why().unwrap_or_else(|| "the witness failed its self-test".to_owned()))
        } else {
            None
        };
        Self { tier: capability.tier, gaps: Vec::new(), gap_bytes: 0, unwitnessed, lost_events: 0 }
    }

    /// Steps 1 and 2 for one socket.
    fn socket(&mut self, role: Role, evidence: &SocketEvidence) {
        let (inbound, outbound) = (role.inbound(), role.outbound());
        let cookie = Some(evidence.cookie);
        match (evidence.kernel_in_bytes, evidence.kernel_out_bytes) {
            (Some(kernel_in), Some(kernel_out)) => {
                // TCP_INFO counts a FIN from the peer as a byte, and once the connection is closed does
                // not tell whether there was one: there, and only there, one byte too many is none.
                let fin = u64::from(
                    self.tier == Tier::T5
                        && evidence.gateway_in_bytes.checked_add(1) == Some(kernel_in),
                );
                let read = [evidence.gateway_in_bytes, kernel_in - fin];
                self.equal(GapStep::Kernel, inbound, cookie, read);
                let written = [evidence.gateway_out_bytes, kernel_out];
                self.equal(GapStep::Kernel, outbound, cookie, written);
            }
            _ => self.unwitnessed(format!("the {}'s socket is not witnessed", role.as_str())),
        }
        if let Some(taken) = evidence.http_in_bytes {
            self.equal(GapStep::Plaintext, inbound, cookie, [evidence.plain_in_bytes, taken]);
        }
        if let Some(given) = evidence.http_out_bytes {
            self.equal(GapStep::Plaintext, outbound, cookie, [evidence.plain_out_bytes, given]);
        }
        // Only inbound: outbound plaintext may wait inside TLS before it becomes ciphertext.
        let (plain, cipher) = (evidence.plain_in_bytes, evidence.gateway_in_bytes);
        self.within(GapStep::Plaintext, inbound, cookie, plain, cipher);
        self.lost_events = self.lost_events.saturating_add(evidence.lost_events);
    }

    /// Part of step 2: a body that came in through a socket is no longer than the plaintext that did.
    fn body_within(&mut self, role: Role, evidence: &SocketEvidence, body: u64) {
        let (step, cookie) = (GapStep::Plaintext, Some(evidence.cookie));
        self.within(step, role.inbound(), cookie, body, evidence.plain_in_bytes);
    }

    /// Step 3 for one body.
    fn body(&mut self, direction: Direction, body: &BodyFacts) {
        self.equal(GapStep::Body, direction, None, [body.bytes, body.recorded_bytes]);
    }

    fn within(
        &mut self,
        step: GapStep,
        direction: Direction,
        cookie: Option<u64>,
        part: u64,
        whole: u64,
    ) {
        self.equal(step, direction, cookie, [part, part.min(whole)]);
    }

    fn equal(
        &mut self,
        step: GapStep,
        direction: Direction,
        cookie: Option<u64>,
        counts: [u64; 2],
    ) {
        let [from, to] = if counts[0] <= counts[1] { counts } else { [counts[1], counts[0]] };
        let bytes = to - from;
        if bytes == 0 {
            return;
        }
        self.gap_bytes = self.gap_bytes.saturating_add(bytes);
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(Gap { step, direction, bytes, from, to, cookie });
        }
    }

    /// The first reason is kept.
    fn unwitnessed(&mut self, reason: String) {
        self.unwitnessed.get_or_insert(reason);
    }

    fn conclude(self) -> Account {
        let state = if !self.gaps.is_empty() {
            AccountState::Gap
        } else if self.unwitnessed.is_some() {
            AccountState::Unwitnessed
        } else {
            AccountState::Complete
        };
        let lost = self.lost_events;
        let lost = (lost > 0).then(|| format!("{lost} kernel notices were lost; totals are exact"));
        Account {
            state,
            gaps: self.gaps,
            gap_bytes: self.gap_bytes,
            reason: self.unwitnessed.or(lost),
            client: None,
            upstream: None,
        }
    }
}

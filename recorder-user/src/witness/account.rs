//! The account: recorded bytes compared with the kernel's, in three stated steps. Pure.
//!
//! 1. *Kernel*: what the kernel counted on a socket is what the gateway read and wrote under TLS. There the
//!    kernel counts twice: the hooks each call, and TCP itself. When a connection closes all three are compared.
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

/// How well the witness saw while what is accounted for went on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What it can see at best.
    pub capability: &'a CapabilityRecord,
    /// Something happened to it meanwhile: nothing is called kernel-verified.
    pub disturbed: bool,
    /// Why it did not see all of that time, if so: what the kernel lacks is no gap then, but unseen.
    pub blind: Option<&'a str>,
}

impl<'a> From<&'a CapabilityRecord> for View<'a> {
    /// Undisturbed.
    fn from(capability: &'a CapabilityRecord) -> Self {
        Self { capability, disturbed: false, blind: None }
    }
}

/// Compares steps 1 and 2 for one connection, at any instant at which its counters stand still.
///
/// The evidence is not repeated in the account: what is recorded beside it has it already.
#[must_use]
pub fn compare_socket<'a>(
    role: Role,
    evidence: &SocketEvidence,
    view: impl Into<View<'a>>,
) -> Account {
    let mut comparison = Comparison::new(view.into());
    comparison.socket(role, evidence);
    comparison.conclude()
}

/// Compares all three steps for one exchange.
///
/// `client` is always expected. `upstream` is None when nothing went upstream: the gateway answered itself.
/// `bodies` are the request's and the response's.
#[must_use]
pub fn account_exchange<'a>(
    client: Option<&SocketEvidence>,
    upstream: Option<&SocketEvidence>,
    bodies: [&BodyFacts; 2],
    view: impl Into<View<'a>>,
) -> Account {
    let [request, response] = bodies;
    let mut comparison = Comparison::new(view.into());
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
    disturbed: bool,
    blind: bool,
    gaps: Vec<Gap>,
    gap_bytes: u64,
    unseen: Vec<Gap>,
    unseen_bytes: u64,
    unwitnessed: Option<String>,
    lost_events: u64,
}

/// Two counts that should be equal.
struct Counts {
    step: GapStep,
    direction: Direction,
    cookie: Option<u64>,
    tcp: bool,
    counts: [u64; 2],
}

impl Counts {
    /// The bytes that only one side counted; none when both are equal.
    fn gap(&self) -> Option<Gap> {
        let [a, b] = self.counts;
        let (from, to) = (a.min(b), a.max(b));
        let (step, direction, cookie, tcp) = (self.step, self.direction, self.cookie, self.tcp);
        (from < to).then(|| Gap { step, direction, bytes: to - from, from, to, cookie, tcp })
    }
}

impl Comparison {
    fn new(view: View<'_>) -> Self {
        let View { capability, disturbed, blind } = view;
        let why = || capability.reason.clone();
        let unwitnessed = if capability.tier == Tier::Off {
            Some(why().unwrap_or_else(|| "the witness is off".to_owned()))
        } else if !capability.self_test {
            Some(why().unwrap_or_else(|| "the witness failed its self-test".to_owned()))
        } else {
            blind.map(str::to_owned)
        };
        Self {
            tier: capability.tier,
            disturbed,
            blind: blind.is_some(),
            gaps: Vec::new(),
            gap_bytes: 0,
            unseen: Vec::new(),
            unseen_bytes: 0,
            unwitnessed,
            lost_events: 0,
        }
    }

    /// Steps 1 and 2 for one socket.
    fn socket(&mut self, role: Role, evidence: &SocketEvidence) {
        let (inbound, outbound) = (role.inbound(), role.outbound());
        let cookie = Some(evidence.cookie);
        match (evidence.kernel_in_bytes, evidence.kernel_out_bytes) {
            (Some(kernel_in), Some(kernel_out)) => {
                let kernel_in = match self.tier {
                    Tier::T4 | Tier::T5 => without_fin(kernel_in, evidence.gateway_in_bytes),
                    Tier::T1 | Tier::T2 | Tier::T3 | Tier::Off => kernel_in,
                };
                self.kernel(inbound, cookie, [evidence.gateway_in_bytes, kernel_in]);
                self.kernel(outbound, cookie, [evidence.gateway_out_bytes, kernel_out]);
            }
            _ => {
                if self.blind {
                    self.kernel(inbound, cookie, [evidence.gateway_in_bytes, 0]);
                    self.kernel(outbound, cookie, [evidence.gateway_out_bytes, 0]);
                }
                self.unwitnessed(format!("the {}'s socket is not witnessed", role.as_str()));
            }
        }
        if let Some(tcp_in) = evidence.tcp_in_bytes {
            let hooks = evidence.kernel_in_bytes.unwrap_or(evidence.gateway_in_bytes);
            let tcp_in = without_fin(without_fin(tcp_in, evidence.gateway_in_bytes), hooks);
            self.tcp(inbound, cookie, [evidence.gateway_in_bytes, tcp_in]);
        }
        if let Some(tcp_out) = evidence.tcp_out_bytes {
            self.tcp(outbound, cookie, [evidence.gateway_out_bytes, tcp_out]);
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

    /// The gateway's count and the hooks'. What a blind witness did not count is unseen; what it counted and
    /// the gateway did not is a gap all the same.
    fn kernel(&mut self, direction: Direction, cookie: Option<u64>, counts: [u64; 2]) {
        let counts = Counts { step: GapStep::Kernel, direction, cookie, tcp: false, counts };
        if self.blind && counts.counts[0] > counts.counts[1] {
            self.unseen(counts.gap());
        } else {
            self.gap(counts.gap());
        }
    }

    /// The gateway's count and TCP's own. Where that of the hooks differs likewise it is one gap, not two.
    fn tcp(&mut self, direction: Direction, cookie: Option<u64>, counts: [u64; 2]) {
        let counts = Counts { step: GapStep::Kernel, direction, cookie, tcp: true, counts };
        let gap = counts.gap();
        let told = gap.as_ref().is_some_and(|gap| {
            let same = |other: &Gap| *other == Gap { tcp: false, ..gap.clone() };
            self.gaps.iter().any(same)
        });
        if !told {
            self.gap(gap);
        }
    }

    fn equal(
        &mut self,
        step: GapStep,
        direction: Direction,
        cookie: Option<u64>,
        counts: [u64; 2],
    ) {
        self.gap(Counts { step, direction, cookie, tcp: false, counts }.gap());
    }

    fn gap(&mut self, gap: Option<Gap>) {
        let Some(gap) = gap else { return };
        self.gap_bytes = self.gap_bytes.saturating_add(gap.bytes);
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        }
    }

    fn unseen(&mut self, span: Option<Gap>) {
        let Some(span) = span else { return };
        self.unseen_bytes = self.unseen_bytes.saturating_add(span.bytes);
        if self.unseen.len() < GAPS_MAX {
            self.unseen.push(span);
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
        let by_programs = matches!(self.tier, Tier::T1 | Tier::T2 | Tier::T3 | Tier::T4);
        let lost = self.lost_events;
        let lost = (lost > 0).then(|| format!("{lost} kernel notices were lost; totals are exact"));
        Account {
            state,
            gaps: self.gaps,
            gap_bytes: self.gap_bytes,
            unseen: self.unseen,
            unseen_bytes: self.unseen_bytes,
            kernel_verified: state == AccountState::Complete && by_programs && !self.disturbed,
            reason: self.unwitnessed.or(lost),
            client: None,
            upstream: None,
        }
    }
}

/// TCP counts a FIN from the peer as a byte, and once the connection is closed does not tell whether there was
/// one: where its count is asked, one inbound byte too many is none.
fn without_fin(tcp_in: u64, other_in: u64) -> u64 {
    if other_in.checked_add(1) == Some(tcp_in) { other_in } else { tcp_in }
}

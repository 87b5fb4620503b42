//! What the kernel says of a connection, and how the record compares.

use serde::{Deserialize, Serialize};

use super::{Direction, ExchangeSpan, Timestamp, is_false, is_zero};

/// How much the witness can see (reference: kernel tiers in `docs/witness.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// eBPF: bytes per send and receive by cookie (kernel 6.3).
    T1,
    /// eBPF through trampolines (5.15 to 6.2).
    T2,
    /// eBPF through kprobes only.
    T3,
    /// eBPF in cgroup hooks only.
    T4,
    /// No eBPF rights: `TCP_INFO` by file descriptor.
    T5,
    /// No witness.
    Off,
}

/// One hook: attached, or the error that says why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState {
    /// The hook's name.
    pub hook: String,
    /// None when attached.
    pub error: Option<String>,
}

/// What the witness of this run could see: part of every track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityRecord {
    /// The tier in use.
    pub tier: Tier,
    /// The kernel's release.
    pub kernel: String,
    /// Each hook tried.
    pub hooks: Vec<HookState>,
    /// Whether the self-test over a loopback pair passed: only then is evidence called kernel-verified.
    pub self_test: bool,
    /// Why the tier is not the best one, for a human.
    pub reason: Option<String>,
}

/// What was counted on one socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SocketEvidence {
    /// `SO_COOKIE`: unique within a boot.
    pub cookie: u64,
    /// Ciphertext bytes that the gateway read.
    pub gateway_in_bytes: u64,
    /// Ciphertext bytes that the gateway wrote.
    pub gateway_out_bytes: u64,
    /// The kernel's count of bytes received by this process; none when unwitnessed.
    pub kernel_in_bytes: Option<u64>,
    /// The kernel's count of bytes sent by this process; none when unwitnessed.
    pub kernel_out_bytes: Option<u64>,
    /// Plaintext bytes that TLS gave to the HTTP layer.
    pub plain_in_bytes: u64,
    /// Plaintext bytes that the HTTP layer gave to TLS.
    pub plain_out_bytes: u64,
    /// Plaintext bytes that the HTTP layer took, counted on its own side; none when not counted apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_in_bytes: Option<u64>,
    /// Plaintext bytes that the HTTP layer produced, counted on its own side; none when not counted apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_out_bytes: Option<u64>,
    /// When the kernel counted the first byte.
    pub first: Option<Timestamp>,
    /// When the kernel counted the last byte.
    pub last: Option<Timestamp>,
    /// Kernel notices that were lost on the way (holes in the sequence); the totals stay exact.
    #[serde(default)]
    pub lost_events: u64,
    /// TCP's own count of bytes received and read, without the FIN: looked at when the connection closes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_in_bytes: Option<u64>,
    /// TCP's own count of bytes taken from the writer, sent again or not: looked at when the connection closes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_out_bytes: Option<u64>,
    /// Bytes that arrived and that nobody had read when the connection closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread_bytes: Option<u64>,
    /// The part of the connection that one exchange had; none in the account of a whole connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<ExchangeSpan>,
}

/// The word of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountState {
    /// All three steps agree.
    Complete,
    /// A step disagrees; the gaps say where.
    Gap,
    /// There was no kernel evidence; the reason says why.
    #[default]
    Unwitnessed,
}

impl AccountState {
    /// The word as written in records and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Gap => "gap",
            Self::Unwitnessed => "unwitnessed",
        }
    }
}

/// Which comparison found a gap (design: the three steps of an account).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapStep {
    /// Kernel totals against ciphertext under TLS.
    Kernel,
    /// Plaintext above TLS against what the HTTP layer consumed or produced.
    Plaintext,
    /// Body bytes handed over against body bytes recorded.
    Body,
}

/// Bytes that one side counted and the other did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The comparison that failed.
    pub step: GapStep,
    /// Towards which end: `request` flows from the client to the API server.
    pub direction: Direction,
    /// How many bytes.
    pub bytes: u64,
    /// Offset of the first byte that is not accounted for.
    pub from: u64,
    /// Offset after the last such byte.
    pub to: u64,
    /// The socket, where the step is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// In step `kernel`: it is TCP's own count that disagrees with that of the hooks. Bytes left or entered the
    /// socket by a way that the hooks do not see.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tcp: bool,
}

/// The comparison of recorded bytes with the witness.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Complete, gap or unwitnessed.
    pub state: AccountState,
    /// The gaps, at most eight; `gap_bytes` counts them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// The sum of all gaps.
    #[serde(default)]
    pub gap_bytes: u64,
    /// Bytes that passed while the witness did not see, at most eight spans: where they are, without a word on
    /// whether they are accounted for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<Gap>,
    /// The sum of all that is unseen.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unseen_bytes: u64,
    /// Complete by the count of eBPF programs that passed their self-test, and nothing happened to the witness
    /// meanwhile: only this is called kernel-verified.
    #[serde(default, skip_serializing_if = "is_false")]
    pub kernel_verified: bool,
    /// Why unwitnessed, or what else to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The client's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketEvidence>,
    /// The API server's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketEvidence>,
}

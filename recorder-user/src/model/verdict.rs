//! The policy's answer.

use serde::{Deserialize, Serialize};

/// What the policy decided, and by which policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Allow, deny, or hold for approval.
    pub decision: Decision,
    /// The ids of the policies that decided; empty where none applied (default deny).
    pub policies: Vec<String>,
    /// The hash of the policy set that was asked.
    pub policy_set: String,
    /// Errors of evaluation; any error is a deny.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What the verdict adds.
    #[serde(default)]
    pub obligations: Obligations,
}

/// The verdict's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Forwarded.
    Allow,
    /// Refused.
    #[default]
    Deny,
    /// Held for approval.
    Hold,
}

impl Decision {
    /// The word as written in records and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Hold => "hold",
        }
    }
}

/// What a verdict adds to forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Obligations {
    /// How much is recorded.
    #[serde(default)]
    pub level: Level,
    /// JSON paths to redact besides the fixed ones (`@redact`), dot-separated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
    /// `@unrecorded("allow")`: a read may pass while the store does not work.
    #[serde(default)]
    pub unrecorded: bool,
    /// The approver groups of a `hold`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approval: Vec<String>,
    /// `@preimage("true")`: keep what a change replaces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preimage: bool,
    /// `@stdin`: how much of what a client types is kept.
    #[serde(default, skip_serializing_if = "StdinRecord::is_all")]
    pub stdin: StdinRecord,
    /// `@undecodable`: what becomes of a stream whose bytes cannot be decoded.
    #[serde(default, skip_serializing_if = "Undecodable::is_keep")]
    pub undecodable: Undecodable,
}

/// How much of a stream's standard input is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StdinRecord {
    /// Every byte.
    #[default]
    All,
    /// Times and sizes only.
    Sizes,
}

impl StdinRecord {
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// What becomes of a stream whose bytes cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Undecodable {
    /// It goes on, and its bytes are kept raw.
    #[default]
    Keep,
    /// It is ended.
    Refuse,
}

impl Undecodable {
    fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

/// How much of an exchange is kept. The order is the order of amount.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Intent and verdict only.
    None,
    /// Heads and outcome too, no bodies.
    Metadata,
    /// The request's body too.
    Request,
    /// Everything.
    #[default]
    Full,
}

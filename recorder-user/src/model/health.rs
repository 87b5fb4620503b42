//! What became of the witness while the gateway ran.

use serde::{Deserialize, Serialize};

use super::{Tier, Timestamp, is_zero};

/// What happened to the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WitnessEvent {
    /// The process that holds the programs is gone, and they may be with it.
    ProbeLost,
    /// Notices were lost: the kernel's ring was full. Totals stay exact.
    Overflow,
    /// Programs are not attached any more, and nobody of us detached them.
    Detached,
    /// A beat that was sent through the kernel did not come back in time.
    HeartbeatMissed,
    /// It sees again.
    Recovered,
    /// What this version does not know.
    #[serde(other)]
    Other,
}

impl WitnessEvent {
    /// The word as written in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProbeLost => "probe_lost",
            Self::Overflow => "overflow",
            Self::Detached => "detached",
            Self::HeartbeatMissed => "heartbeat_missed",
            Self::Recovered => "recovered",
            Self::Other => "other",
        }
    }
}

/// The witness changed. No account that was open between `since` and `time` is kernel-verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WitnessChanged {
    /// When it was noticed.
    pub time: Timestamp,
    /// What happened.
    pub event: WitnessEvent,
    /// The tier in use.
    pub tier: Tier,
    /// When the witness was known to see for the last time; none where that does not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Whether it is blind from now on: sockets are unwitnessed until it has recovered.
    #[serde(default)]
    pub blind: bool,
    /// Notices that were lost, for an overflow.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// For a human.
    pub detail: String,
}

//! What became of the witness while the gateway ran.

use serde::{Deserialize, Serialize};

use super::{Tier, Timestamp, is_false, is_zero};

/// What happened to the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WitnessEvent {
    /// The process that holds the programs is gone, and they may be with it.
    ProbeLost,
    /// Notices were lost: the kernel's ring was full. Totals stay exact.
    Overflow,
    /// Notices of who opened connections were lost: somebody may have gone round the gateway unseen.
    ConnectionsLost,
    /// The kernel left a program out, since it was interrupted in itself.
    RunsMissed,
    /// Sockets could not be witnessed that should have been.
    SocketsUnwitnessed,
    /// Notices do not come through. Totals stay exact.
    NoticesStopped,
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
    /// All that this version knows.
    pub const ALL: [Self; 9] = [
        Self::ProbeLost,
        Self::Overflow,
        Self::ConnectionsLost,
        Self::RunsMissed,
        Self::SocketsUnwitnessed,
        Self::NoticesStopped,
        Self::Detached,
        Self::HeartbeatMissed,
        Self::Recovered,
    ];

    /// The word as written in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProbeLost => "probe_lost",
            Self::Overflow => "overflow",
            Self::ConnectionsLost => "connections_lost",
            Self::RunsMissed => "runs_missed",
            Self::SocketsUnwitnessed => "sockets_unwitnessed",
            Self::NoticesStopped => "notices_stopped",
            Self::Detached => "detached",
            Self::HeartbeatMissed => "heartbeat_missed",
            Self::Recovered => "recovered",
            Self::Other => "other",
        }
    }
}

/// The witness changed. No account that was open at `time`, or while it was blind, is kernel-verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WitnessChanged {
    /// When it was noticed: within a second.
    pub time: Timestamp,
    /// What happened.
    pub event: WitnessEvent,
    /// The tier in use.
    pub tier: Tier,
    /// Whether it is blind from now on: sockets are unwitnessed until it has recovered.
    #[serde(default)]
    pub blind: bool,
    /// Bytes went uncounted a moment ago, on a socket that is not known: what was open then is unwitnessed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub uncounted: bool,
    /// How many notices, sockets or runs, where something was lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// For a human.
    pub detail: String,
}

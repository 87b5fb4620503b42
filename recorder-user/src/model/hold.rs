//! Legal holds: what must not be deleted, whatever retention says.

use serde::{Deserialize, Serialize};

use super::{HoldId, SessionId, Timestamp};

/// What a hold is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldOn {
    /// One session.
    Session(SessionId),
    /// All that was done for a task, by whomever.
    Task(String),
    /// All that a principal did: its username or its subject.
    Principal(String),
}

impl HoldOn {
    /// The task or the principal.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Session(_) => None,
            Self::Task(name) | Self::Principal(name) => Some(name),
        }
    }
}

/// The end of a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldReleased {
    /// When.
    pub time: Timestamp,
    /// The local user who asked for it: `uid 0`.
    pub who: String,
}

/// A hold was added or released. The last record of a hold says all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldChanged {
    /// The hold.
    pub hold: HoldId,
    /// When it was added.
    pub time: Timestamp,
    /// The local user who asked for it: `uid 0`.
    pub who: String,
    /// On what.
    pub on: HoldOn,
    /// Why.
    pub reason: String,
    /// Its end; none while it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<HoldReleased>,
}

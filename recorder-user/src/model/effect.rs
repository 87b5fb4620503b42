//! What an exchange did to the cluster.

use serde::{Deserialize, Serialize};

/// The effect of a whole exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Objects were made.
    Created,
    /// Objects were changed.
    Modified,
    /// Objects were removed, or marked for removal.
    Deleted,
    /// Something ran, or a connection was carried.
    Executed,
    /// State was read.
    Read,
    /// Refused, failed, or a dry run.
    Nothing,
    /// It cannot be told, for example when no outcome was recorded.
    #[default]
    Unknown,
}

impl Effect {
    /// The word as written in records and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
            Self::Executed => "executed",
            Self::Read => "read",
            Self::Nothing => "nothing",
            Self::Unknown => "unknown",
        }
    }
}

/// What happened to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Made.
    Created,
    /// Changed.
    Modified,
    /// Removed or marked for removal.
    Deleted,
}

/// One object that an exchange changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    /// The object's kind, or the resource where the response did not carry it.
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Empty where the response did not carry it.
    pub uid: String,
    /// What happened to it.
    pub change: Change,
}

//! Which database the index is kept in.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use super::table::{Table, TableError};

/// The databases that the index can be kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexBackend {
    /// sled 0.34.
    #[default]
    Sled,
    /// redb 4.
    Redb,
}

/// There is no database of this name.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a database that the index can be kept in; expected sled or redb")]
pub struct ParseIndexBackendError {
    text: String,
}

impl IndexBackend {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Redb];

    /// The word as written in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
        }
    }

    /// Opens the database in the index' directory, or makes it.
    pub(super) fn open(self, index: &Path) -> Result<Box<dyn Table>, TableError> {
        Ok(match self {
            Self::Sled => Box::new(super::sled::SledTable::open(index)?),
            Self::Redb => Box::new(super::redb::RedbTable::open(index)?),
        })
    }
}

impl fmt::Display for IndexBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for IndexBackend {
    type Err = ParseIndexBackendError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|backend| backend.as_str() == text);
        found.ok_or_else(|| ParseIndexBackendError { text: text.chars().take(32).collect() })
    }
}

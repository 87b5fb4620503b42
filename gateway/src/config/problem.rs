//! What is wrong with a configuration, all of it at once.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// One thing that is wrong: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, for example `clusters[0].credential.tokenFile`; empty for the whole file.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file says something that cannot be used.
    #[error("{path}: {count} in the configuration{list}",
        path = path.display(), count = count(problems.len()), list = list(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every problem, in the order of the file's sections; never empty.
        problems: Vec<Problem>,
    },
}

impl LoadConfigError {
    pub(super) fn invalid(path: &Path, key: &str, message: String) -> Self {
        Self::Invalid { path: path.into(), problems: vec![Problem { path: key.into(), message }] }
    }

    /// The problems found; empty when the file could not be read at all.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".into() } else { format!("{problems} problems") }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// Collects problems while the rest of the file is still looked at.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, path: impl fmt::Display, message: impl Into<String>) {
        self.0.push(Problem { path: path.to_string(), message: message.into() });
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0
    }

    /// Reads one section into its DTO; the first mistake of its shape is a problem.
    pub(super) fn shape<T: DeserializeOwned>(
        &mut self,
        path: impl fmt::Display,
        value: Value,
    ) -> Option<T> {
        serde_json::from_value(value).map_err(|error| self.add(path, error.to_string())).ok()
    }

    /// As [`Self::shape`], for a section that must be there.
    pub(super) fn required<T: DeserializeOwned>(
        &mut self,
        path: impl fmt::Display,
        value: Option<Value>,
        hint: &str,
    ) -> Option<T> {
        match value {
            Some(value) => self.shape(path, value),
            None => {
                self.add(path, format!("is required: {hint}"));
                None
            }
        }
    }
}

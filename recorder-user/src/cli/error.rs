//! What can go wrong with a verb, which exit code it gives, and what to do next.

use std::{io, path::PathBuf};

use crate::{model::ExchangeId, replay::LoadError};

/// How a run ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Fine.
    Fine,
    /// What was asked for was found, and it does not verify.
    DoesNotVerify,
}

impl Outcome {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::DoesNotVerify => 1,
        }
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Nothing says where the store is.
    #[error("no store was named")]
    NoStore,
    /// There is no such directory.
    #[error("there is no store at {}", .0.display())]
    MissingStore(PathBuf),
    /// The store could not be read.
    #[error("cannot {action} the store at {}", .directory.display())]
    Store {
        /// What was tried.
        action: &'static str,
        /// Where.
        directory: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A recording could not be put together.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No session or exchange has such an id.
    #[error("no {what} has an id that begins or ends with {id:?}")]
    NotFound {
        /// Session, or session or exchange.
        what: &'static str,
        /// As typed.
        id: String,
    },
    /// The index has a row of it, but its records are not where they were.
    #[error("the records of exchange {0} cannot be read")]
    Damaged(ExchangeId),
    /// Several have.
    #[error("{id:?} is not unique: {}", candidates.join(", "))]
    Ambiguous {
        /// As typed.
        id: String,
        /// Some of those that match.
        candidates: Vec<String>,
    },
    /// It cannot be part of an id.
    #[error("{id:?} is not an id, nor at least 4 hexadecimal digits of one")]
    BadId {
        /// As typed.
        id: String,
    },
    /// An option does not fit.
    #[error("--{option} {text:?}: {why}")]
    BadOption {
        /// Without the dashes.
        option: &'static str,
        /// As typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// An exchange was named where only a session can be replayed.
    #[error("{id} is an exchange; a session can be replayed")]
    NotASession {
        /// The exchange.
        id: String,
        /// Its session.
        session: Option<String>,
    },
    /// No gateway ever wrote to this store.
    #[error("no start of a gateway is recorded")]
    NoGateway,
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The exit code: 1 when there is no such thing, 2 for wrong usage and failures.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::NotFound { .. } | Self::NoGateway | Self::Damaged(_) => 1,
            _ => 2,
        }
    }

    /// Whether the reader of the output went away: not a failure.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The next step.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoStore => {
                "give --store DIR or set DECKLOG_STORE to the gateway's store.directory".into()
            }
            Self::MissingStore(_) => {
                "check --store or DECKLOG_STORE against store.directory in the gateway's configuration"
                    .into()
            }
            Self::Store { directory, .. } => format!(
                "check that you may read {0}, then try: recorder verify {0}",
                directory.display()
            ),
            Self::Load(_) | Self::Damaged(_) => "find the damage with: recorder verify".into(),
            Self::NotFound { what: "session", .. } => "list the sessions with: recorder ls".into(),
            Self::NotFound { .. } => {
                "list sessions with: recorder ls, exchanges with: recorder search --json".into()
            }
            Self::Ambiguous { .. } => "type more digits; the ends of ids differ most".into(),
            Self::BadId { .. } => "copy an id from: recorder ls".into(),
            Self::BadOption { .. } => "see: recorder search --help".into(),
            Self::NotASession { id, session: None } => format!("show it with: recorder show {id}"),
            Self::NotASession { id, session: Some(session) } => {
                format!("replay its session with: recorder replay {session}; or recorder show {id}")
            }
            Self::NoGateway => "start one on this store with: gateway serve".into(),
            Self::Output(_) => return None,
        })
    }
}

//! What can go wrong with a verb, which exit code it gives, and what to do next.

use std::{io, path::PathBuf};

use crate::{
    export::ExportError,
    model::{ExchangeId, GatewayId},
    replay::{LoadError, stream::OpenStreamError},
    store::{BundleError, ExchangeRow},
    witness::{LoadProbeError, MeasureCostError},
};

/// How a run ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Fine.
    Fine,
    /// What was asked for was found, and it does not verify.
    DoesNotVerify,
}

impl Outcome {
    /// What came of two.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match self {
            Self::Fine => other,
            Self::DoesNotVerify => Self::DoesNotVerify,
        }
    }

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
    /// The verb reads one store, and several were named.
    #[error("this reads one store, and several were named")]
    OneStore,
    /// A socket is one gateway's, and several stores were named.
    #[error("--socket is that of one gateway, and several stores were named")]
    OneSocket,
    /// Two stores that were named are copies of one.
    #[error("gateway {gateway} wrote the store at {}, and another one that was named", directory.display())]
    SameGateway {
        /// The second one.
        directory: PathBuf,
        /// Who wrote both.
        gateway: GatewayId,
    },
    /// An archive has no segment.
    #[error("there is no segment in the archive {url}")]
    EmptyArchive {
        /// As typed.
        url: String,
    },
    /// There is no room for what is fetched.
    #[error("cannot make a directory for what is fetched")]
    Temporary(#[source] io::Error),
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
    /// A gateway that was asked did not answer.
    #[error("the gateway does not answer")]
    Asked(#[source] Box<dyn std::error::Error + Send + Sync>),
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
    /// An exchange was named that has nothing to be played.
    #[error("{id} is an exchange without a stream: it has no course in time")]
    NotAStream {
        /// The exchange.
        id: String,
        /// Its session.
        session: Option<String>,
    },
    /// A session was named where only a stream can be exported.
    #[error("{id} is a session; a stream can be exported")]
    NotAnExchange {
        /// The session.
        id: String,
    },
    /// An exchange was named where only a session can be bundled.
    #[error("{id} is an exchange; a bundle holds a session")]
    NotASession {
        /// The exchange.
        id: String,
        /// Its session.
        session: Option<String>,
    },
    /// A bundle is a directory, and none was named.
    #[error("a bundle is a directory, and none was named")]
    NoOutput,
    /// A bundle could not be made.
    #[error("cannot make the bundle")]
    Bundle(#[source] BundleError),
    /// The head that was named cannot be used.
    #[error("{} cannot be used: {why}", path.display())]
    BadHead {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A stream could not be opened.
    #[error(transparent)]
    OpenStream(OpenStreamError),
    /// An export could not be made.
    #[error(transparent)]
    Export(ExportError),
    /// The file of an export could not be made.
    #[error("cannot write {}", path.display())]
    ExportFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Bytes that a terminal would obey were to be written to one.
    #[error(
        "the bytes of a recording are not written to a terminal: it could obey what is in them"
    )]
    RawToTerminal,
    /// No gateway ever wrote to this store.
    #[error("no start of a gateway is recorded")]
    NoGateway,
    /// What the programs cost could not be measured.
    #[error("cannot measure what the witness costs")]
    Cost(#[source] MeasureCostError),
    /// The verb's binary is not installed.
    #[error("recorder-{verb} is not installed")]
    NoExtra {
        /// Which.
        verb: &'static str,
    },
    /// The verb's binary could not be started.
    #[error("cannot start recorder-{verb}")]
    Extra {
        /// Which.
        verb: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The verb's binary failed, and said why.
    #[error("recorder-{verb} failed")]
    ExtraFailed {
        /// Which.
        verb: &'static str,
    },
    /// The probe does not run.
    #[error("the probe cannot serve")]
    Probe(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The exchange carried no stream.
    #[must_use]
    pub fn not_a_stream(row: &ExchangeRow) -> Self {
        Self::NotAStream {
            id: row.exchange.to_string(),
            session: row.session.map(|session| session.to_string()),
        }
    }

    /// The exit code: 1 when there is no such thing, 2 for wrong usage and failures.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::NotFound { .. }
            | Self::EmptyArchive { .. }
            | Self::NoGateway
            | Self::Damaged(_) => 1,
            Self::OpenStream(OpenStreamError::NotAnswered) => 1,
            _ => 2,
        }
    }

    /// Whether the reader of the output went away: not a failure.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        let (Self::Output(error) | Self::Export(ExportError::Write(error))) = self else {
            return false;
        };
        error.kind() == io::ErrorKind::BrokenPipe
    }

    /// The next step.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoStore => {
                "give --store DIR or set DECKLOG_STORE to the gateway's store.directory".into()
            }
            Self::OneStore => "give --store once: ls, show, replay, search and verify read several".into(),
            Self::OneSocket => "without it each gateway is asked at gateway.sock in its store".into(),
            Self::SameGateway { .. } => "name one of them".into(),
            Self::EmptyArchive { .. } => {
                "check the URL's prefix; what waits is told by: recorder archive status".into()
            }
            Self::Temporary(_) => "name another place with --archive-cache DIR, or TMPDIR".into(),
            Self::MissingStore(_) => {
                "check --store or DECKLOG_STORE against store.directory in the gateway's configuration"
                    .into()
            }
            Self::Store { directory, .. } => format!(
                "check that you may read {0}, then try: recorder verify {0}",
                directory.display()
            ),
            Self::Asked(_) => "run it again: the files can be read without the gateway".into(),
            Self::Load(_) | Self::Damaged(_) => "find the damage with: recorder verify".into(),
            Self::NotFound { what: "session", .. } => "list the sessions with: recorder ls".into(),
            Self::NotFound { .. } => {
                "list sessions with: recorder ls, exchanges with: recorder search --json".into()
            }
            Self::Ambiguous { .. } => "type more digits; the ends of ids differ most".into(),
            Self::BadId { .. } => "copy an id from: recorder ls".into(),
            Self::BadOption { .. } => "see: recorder search --help".into(),
            Self::NotAStream { id, session: None } => format!("show it with: recorder show {id}"),
            Self::NotAStream { id, session: Some(session) } => {
                format!("show it with: recorder show {id}; or replay its session with: recorder replay {session}")
            }
            Self::NotAnExchange { id } => {
                format!("list its streams with: recorder search --session {id} --status 101")
            }
            Self::NotASession { session: Some(session), .. } => {
                format!("bundle its session with: recorder export {session} --format bundle")
            }
            Self::NotASession { session: None, .. } => {
                "it belongs to no session: nobody was identified".into()
            }
            Self::Cost(MeasureCostError::Load(LoadProbeError::Object(_))) => {
                "build the programs with: cargo xtask build-ebpf; or name an object with --object".into()
            }
            Self::Cost(_) => "run it as root, outside containers without rights".into(),
            Self::NoOutput => "name a new one with --output DIR".into(),
            Self::Bundle(BundleError::Exists(_) | BundleError::Io { .. }) => {
                "name another directory with --output".into()
            }
            Self::Bundle(BundleError::Version1(_)) => {
                "copy the store's directory without its keys".into()
            }
            Self::Bundle(_) => "find the damage with: recorder verify".into(),
            Self::BadHead { .. } => "print one with: recorder head".into(),
            Self::OpenStream(OpenStreamError::NotAnswered) => {
                "it may still be waiting for the API server; see what is known with: recorder show".into()
            }
            Self::OpenStream(_) | Self::Export(ExportError::Open(_) | ExportError::Read(_)) => {
                "see what is on record with: recorder show; find damage with: recorder verify".into()
            }
            Self::Export(ExportError::NoChannels { .. }) => {
                "see what it carried with: recorder show, or: recorder replay --json".into()
            }
            Self::Export(ExportError::Write(_)) | Self::ExportFile { .. } => {
                "name another file with --output".into()
            }
            Self::RawToTerminal => "write to a file with --output, or into a pipe".into(),
            Self::NoGateway => "start one on this store with: gateway serve".into(),
            Self::NoExtra { verb } => format!(
                "build it with: cargo build --release -p {verb}, and put it beside recorder or on the PATH"
            ),
            Self::Extra { verb, .. } => format!("check that recorder-{verb} may be executed"),
            Self::Probe(_) => "see which rights it takes in docs/witness.md, and what the kernel allows with: recorder witness".into(),
            Self::ExtraFailed { .. } | Self::Output(_) => return None,
        })
    }
}

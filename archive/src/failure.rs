//! What can go wrong on the way to the archive, and who has to do something about it.

use std::{error::Error, fmt};

use object_store::client::HttpError;
use recorder_user::model::SegmentId;

use crate::refusal::Refusal;

/// What kind of failure: the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nobody answers, or not in time.
    Unreachable,
    /// It answers that it cannot now.
    Server,
    /// It does not accept the credentials, or they may not do this.
    Denied,
    /// There is no such bucket.
    Missing,
    /// Another object has the segment's name already.
    Conflict,
    /// What was read back is not what was sent.
    Mismatch,
    /// The local segment is damaged.
    Damaged,
    /// A local file could not be read or written.
    Local,
    /// Another archiver works on the store.
    Busy,
}

impl Class {
    /// Every class, in the order of their words' meaning above.
    pub const ALL: [Self; 9] = [
        Self::Unreachable,
        Self::Server,
        Self::Denied,
        Self::Missing,
        Self::Conflict,
        Self::Mismatch,
        Self::Damaged,
        Self::Local,
        Self::Busy,
    ];

    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Server => "server",
            Self::Denied => "denied",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::Mismatch => "mismatch",
            Self::Damaged => "damaged",
            Self::Local => "local",
            Self::Busy => "busy",
        }
    }

    /// Whether it will not pass without somebody's help: the alarm is raised at once.
    #[must_use]
    pub const fn needs_somebody(self) -> bool {
        !matches!(self, Self::Unreachable | Self::Server | Self::Busy)
    }

    /// Whether it concerns one segment, so that others can still be archived.
    #[must_use]
    pub const fn is_of_one_segment(self) -> bool {
        matches!(self, Self::Conflict | Self::Mismatch | Self::Damaged)
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Unreachable => "check archive.endpoint and the network between here and there",
            Self::Server => "look at the object store's own health",
            Self::Denied => {
                "check the files of archive.credentials, and that they may get, put and list below the prefix"
            }
            Self::Missing => "make the bucket, or correct archive.url",
            Self::Conflict => {
                "an object that Decklog did not put there has the name of a segment: find out who did"
            }
            Self::Mismatch => "the object store damages what it is given: do not trust it",
            Self::Damaged => "find the damage with: recorder verify",
            Self::Busy => "the store is archived by its gateway already, or by hand",
            Self::Local => "check the disk and the rights of the store's directory",
        }
    }
}

/// A segment could not be archived.
#[derive(Debug)]
pub struct Failure {
    /// What kind.
    pub class: Class,
    /// Which segment.
    pub segment: Option<SegmentId>,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    pub(crate) fn new(class: Class, what: impl Into<String>) -> Self {
        Self { class, segment: None, what: what.into(), source: None }
    }

    pub(crate) fn caused(
        class: Class,
        what: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { source: Some(Box::new(source)), ..Self::new(class, what) }
    }

    /// An error of the object store.
    pub(crate) fn remote(what: impl Into<String>, error: object_store::Error) -> Self {
        Self::caused(class_of(&error), what, error)
    }

    pub(crate) fn of(mut self, segment: SegmentId) -> Self {
        self.segment = Some(segment);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

fn class_of(error: &object_store::Error) -> Class {
    match error {
        object_store::Error::NotFound { .. } => return Class::Missing,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => return Class::Denied,
        _ => {}
    }
    // The whole chain: a refusal is wrapped in an error of HTTP.
    let mut unreachable = false;
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return refusal.class();
        }
        if error.downcast_ref::<crate::credentials::UnreadableCredential>().is_some() {
            return Class::Denied;
        }
        unreachable |= error.is::<HttpError>();
        cause = error.source();
    }
    if unreachable { Class::Unreachable } else { Class::Server }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors of the object store repeat what they wrap.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

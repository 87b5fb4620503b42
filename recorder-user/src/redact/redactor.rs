//! Carries out a plan on a body as it streams by.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    BodyPlan, RedactKey,
    json::JsonFilter,
    plan::{Action, Format},
    protobuf::{ProtobufFilter, Refused},
    tally::Tally,
};
use crate::{
    model::{BodyFacts, Withheld},
    wire::{
        gzip::{Gunzip, GunzipError},
        json::JsonError,
    },
};

/// Bytes of one piece of rewritten output; more is given in several pieces.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// Turns the bytes of one body into the bytes that are stored of it, and keeps its facts.
pub struct Redactor {
    work: Work,
    encoding: String,
    bytes: u64,
    stored_bytes: u64,
    /// From the first stored byte on: it is large, and many watches are silent.
    hasher: Option<Box<blake3::Hasher>>,
}

enum Work {
    Pass,
    Withhold(&'static str),
    Redact(Box<Redacting>),
}

struct Redacting {
    gunzip: Option<Gunzip>,
    filter: Filter,
    /// Why nothing further is stored.
    stopped: Option<&'static str>,
    /// Bytes before the last push that brought anything.
    before: u64,
}

enum Filter {
    Json(Box<JsonFilter>),
    Protobuf(Box<ProtobufFilter>),
}

impl Redactor {
    /// Before the first byte.
    #[must_use]
    pub fn new(plan: BodyPlan, key: Arc<RedactKey>) -> Self {
        let work = match plan.action {
            Action::Pass => Work::Pass,
            Action::Withhold(reason) => Work::Withhold(reason),
            Action::Redact { format, gzip, rules } => Work::Redact(Box::new(Redacting {
                gunzip: gzip.then(Gunzip::new),
                filter: match format {
                    Format::Json => Filter::Json(Box::new(JsonFilter::new(rules, &key))),
                    Format::Protobuf => {
                        let filter = ProtobufFilter::new(rules.sensitive, rules.messages, &key);
                        Filter::Protobuf(Box::new(filter))
                    }
                },
                stopped: None,
                before: 0,
            })),
        };
        Self { work, encoding: plan.encoding, bytes: 0, stored_bytes: 0, hasher: None }
    }

    /// Takes the next bytes of the body and appends what is to be stored now. A body that passes is
    /// not copied.
    pub fn push(&mut self, bytes: &Bytes, out: &mut Vec<Bytes>) {
        if bytes.is_empty() {
            return;
        }
        let before = self.bytes;
        self.bytes += bytes.len() as u64;
        match &mut self.work {
            Work::Pass => self.store(bytes.clone(), out),
            Work::Withhold(_) => {}
            Work::Redact(redacting) => {
                redacting.before = before;
                let rewritten = redacting.push(bytes);
                self.store(rewritten, out);
            }
        }
    }

    /// The body ended: by itself (`ended`), or because it was cut.
    #[must_use]
    pub fn finish(mut self, ended: bool, out: &mut Vec<Bytes>) -> BodyFacts {
        let mut facts = BodyFacts { bytes: self.bytes, ended, ..BodyFacts::default() };
        facts.recorded_bytes = self.bytes;
        facts.encoding = std::mem::take(&mut self.encoding);
        match std::mem::replace(&mut self.work, Work::Pass) {
            Work::Pass => {}
            Work::Withhold(reason) => facts.withheld = withheld(reason, self.bytes),
            Work::Redact(mut redacting) => {
                if redacting.gunzip.is_some() {
                    facts.encoding = "identity".to_owned();
                }
                let rewritten = redacting.finish(ended);
                self.store(rewritten, out);
                let (reason, lost) = redacting.withheld(self.bytes);
                facts.withheld = reason.and_then(|reason| withheld(reason, lost));
                facts.removed = redacting.filter.into_tally().into_removed();
            }
        }
        facts.stored_bytes = self.stored_bytes;
        if let Some(hasher) = self.hasher {
            facts.hash = hasher.finalize().to_hex().to_string();
        }
        facts
    }

    fn store(&mut self, mut bytes: Bytes, out: &mut Vec<Bytes>) {
        if bytes.is_empty() {
            return;
        }
        self.hasher.get_or_insert_with(Box::default).update(&bytes);
        self.stored_bytes += bytes.len() as u64;
        if !matches!(self.work, Work::Pass) {
            while bytes.len() > PIECE_BYTES_MAX {
                out.push(bytes.split_to(PIECE_BYTES_MAX));
            }
        }
        out.push(bytes);
    }
}

fn withheld(reason: &str, bytes: u64) -> Option<Withheld> {
    (bytes > 0).then(|| Withheld { reason: reason.to_owned(), bytes })
}

/// Why a filter stopped, in the words of the record.
struct Reason(&'static str);

impl From<GunzipError> for Reason {
    fn from(error: GunzipError) -> Self {
        Self(match error {
            GunzipError::Malformed => "undecodable",
            GunzipError::OverBound => "over_bound",
        })
    }
}

impl From<JsonError> for Reason {
    fn from(error: JsonError) -> Self {
        Self(match error {
            JsonError::Syntax => "undecodable",
            JsonError::Truncated => "truncated",
            JsonError::OverBound => "over_bound",
        })
    }
}

impl From<Refused> for Reason {
    fn from(refused: Refused) -> Self {
        Self(match refused {
            Refused::Undecodable => "undecodable",
            Refused::OverBound => "over_bound",
        })
    }
}

impl Redacting {
    fn push(&mut self, bytes: &[u8]) -> Bytes {
        if self.stopped.is_some() {
            return Bytes::new();
        }
        let result = match &mut self.gunzip {
            None => self.filter.push(bytes),
            Some(gunzip) => gunzip.push(bytes, |plain| self.filter.push(plain)),
        };
        self.stopped = result.err().map(|Reason(reason)| reason);
        self.filter.take_output().into()
    }

    fn finish(&mut self, ended: bool) -> Bytes {
        if self.stopped.is_none() {
            let inflated = self.gunzip.as_ref().is_none_or(Gunzip::is_complete);
            self.stopped = match self.filter.finish(ended && inflated) {
                Ok(()) if inflated => None,
                Ok(()) => Some("truncated"),
                Err(Reason(reason)) => Some(reason),
            };
        }
        self.filter.take_output().into()
    }

    /// The reason, and how many bytes of the body as sent are not stored. For gzip, where bytes of the
    /// body and of its content cannot be told apart one by one, the last piece counts as lost.
    fn withheld(&self, bytes: u64) -> (Option<&'static str>, u64) {
        let kept = match &self.gunzip {
            None => self.filter.accepted(),
            Some(_) if self.filter.accepted() == 0 => 0,
            Some(_) => self.before,
        };
        (self.stopped, bytes.saturating_sub(kept))
    }
}

impl Filter {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        match self {
            Self::Json(filter) => filter.push(bytes)?,
            Self::Protobuf(filter) => filter.push(bytes)?,
        }
        Ok(())
    }

    /// `whole`: whether all of the content arrived, as far as the layer around it can tell.
    fn finish(&mut self, whole: bool) -> Result<(), Reason> {
        match self {
            Self::Json(filter) => filter.finish()?,
            Self::Protobuf(_) if !whole => return Err(Reason("truncated")),
            Self::Protobuf(filter) => {
                if !filter.finish()? {
                    return Err(Reason("truncated"));
                }
            }
        }
        Ok(())
    }

    fn take_output(&mut self) -> Vec<u8> {
        match self {
            Self::Json(filter) => filter.take_output(),
            Self::Protobuf(filter) => filter.take_output(),
        }
    }

    fn accepted(&self) -> u64 {
        match self {
            Self::Json(filter) => filter.accepted(),
            Self::Protobuf(filter) => filter.accepted(),
        }
    }

    fn into_tally(self) -> Tally {
        match self {
            Self::Json(filter) => filter.into_tally(),
            Self::Protobuf(filter) => filter.into_tally(),
        }
    }
}

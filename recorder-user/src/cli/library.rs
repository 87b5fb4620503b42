//! What the verbs ask of the store: ids to rows, rows to recordings, errors with their place.

use std::path::{Path, PathBuf};

use super::CliError;
use crate::{
    model::{CapabilityRecord, GatewayStarted, Record},
    replay::{self, Timeline},
    store::{Catalog, ExchangeRecords, ExchangeRow, Position, Query, Reader, SessionView},
};

/// An open store.
///
/// It may hold the index, and a gateway that starts then has to wait for it: verbs take a library,
/// get what they need, and let go of it before they print.
pub(super) struct Library {
    directory: PathBuf,
    reader: Reader,
    catalog: Catalog,
}

/// What an id names.
pub(super) enum Found {
    /// A session.
    Session(Box<SessionView>),
    /// An exchange.
    Exchange(Box<ExchangeRow>),
}

/// Shorter parts of ids are refused: they would rarely be unique.
const ID_PART_CHARS_MIN: usize = 4;

/// The length of a whole id.
const ID_CHARS: usize = 32;

/// An ambiguous id names so many candidates.
const CANDIDATES_MAX: usize = 5;

/// Exchanges are looked through in pages of so many rows, so that memory does not grow with the
/// store.
const PAGE_ROWS: usize = 4096;

impl Library {
    pub(super) fn open(directory: &Path) -> Result<Self, CliError> {
        let reader = Reader::open(directory).map_err(|error| failed("open", directory, error))?;
        let catalog = reader.catalog().map_err(|error| failed("read", directory, error))?;
        Ok(Self { directory: directory.into(), reader, catalog })
    }

    /// What of the store could not be read, in words: rows go as far as records can be trusted.
    pub(super) fn damage(&self) -> Vec<String> {
        self.catalog.damage().iter().map(chain).collect()
    }

    /// The segments alone: reading them keeps no gateway waiting.
    pub(super) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    pub(super) fn sessions(&self) -> Result<Vec<SessionView>, CliError> {
        self.catalog.sessions().map_err(|error| self.failed(error))
    }

    pub(super) fn search(&self, query: &Query) -> Result<Vec<ExchangeRow>, CliError> {
        self.catalog.search(query).map_err(|error| self.failed(error))
    }

    pub(super) fn records(&self, row: &ExchangeRow) -> Result<Option<ExchangeRecords>, CliError> {
        self.reader.exchange_at(row).map_err(|error| self.failed(error))
    }

    /// As `records`, without bodies.
    pub(super) fn heads(&self, row: &ExchangeRow) -> Result<Option<ExchangeRecords>, CliError> {
        self.reader.heads_at(row).map_err(|error| self.failed(error))
    }

    pub(super) fn timeline(&self, session: SessionView) -> Result<Timeline, CliError> {
        let witness = self.witness_before(session.first);
        Ok(replay::load(&self.reader, &self.catalog, session, witness)?)
    }

    /// The session of which this is the id, or part of it.
    pub(super) fn find_session(&self, id: &str) -> Result<SessionView, CliError> {
        let part = IdPart::parse(id)?;
        let mut found: Vec<_> = self
            .sessions()?
            .into_iter()
            .filter(|view| part.matches(&view.session.to_string()))
            .collect();
        match (found.pop(), found.len()) {
            (Some(view), 0) => Ok(view),
            (None, _) => Err(CliError::NotFound { what: "session", id: id.into() }),
            (Some(last), _) => {
                let ids = found.iter().chain([&last]).map(|view| view.session.to_string());
                Err(ambiguous(id, ids))
            }
        }
    }

    /// The session or exchange of which this is the id, or part of it.
    pub(super) fn find(&self, id: &str) -> Result<Found, CliError> {
        let part = IdPart::parse(id)?;
        match self.find_session(id) {
            Err(CliError::NotFound { .. }) => {}
            // The end of a session's id may be the end of an exchange's too; sessions are looked
            // for more often, and a longer part names the exchange.
            found => return found.map(|view| Found::Session(Box::new(view))),
        }
        let mut found = Vec::new();
        let mut query = Query { limit: PAGE_ROWS, ..Query::default() };
        loop {
            let page = self.search(&query)?;
            let Some(last) = page.last() else { break };
            query.after = Some(last.exchange);
            let full = page.len() == PAGE_ROWS;
            found.extend(page.into_iter().filter(|row| part.matches(&row.exchange.to_string())));
            if !full || found.len() > CANDIDATES_MAX {
                break;
            }
        }
        match (found.pop(), found.len()) {
            (Some(row), 0) => Ok(Found::Exchange(Box::new(row))),
            (None, _) => Err(CliError::NotFound { what: "session or exchange", id: id.into() }),
            (Some(last), _) => {
                let ids = found.iter().chain([&last]).map(|row| row.exchange.to_string());
                Err(ambiguous(id, ids))
            }
        }
    }

    /// What the witness of the run could see that wrote the record here. None also where that
    /// cannot be read: damage elsewhere must not hide a session.
    pub(super) fn witness_before(&self, position: Position) -> Option<CapabilityRecord> {
        self.gateway_started(Some(position)).ok().flatten().map(|started| started.witness)
    }

    /// The latest start of a gateway, or the latest before a position.
    ///
    /// Every run begins a segment, and its start is recorded before its first exchange: so it is
    /// enough to look at the heads of segments, from the last one back.
    pub(super) fn gateway_started(
        &self,
        before: Option<Position>,
    ) -> Result<Option<GatewayStarted>, CliError> {
        let segments = self.reader.segments().map_err(|error| self.failed(error))?;
        for segment in segments.iter().rev().map(|info| info.segment) {
            if before.is_some_and(|before| segment > before.segment) {
                continue;
            }
            let head = self
                .reader
                .records_from(Position { segment, offset: 0 })
                .map_while(Result::ok)
                .take_while(|stored| stored.position.segment == segment)
                .take_while(|stored| before.is_none_or(|before| stored.position < before))
                .take_while(|stored| stored.record.exchange().is_none());
            let started = head.filter_map(|stored| match stored.record {
                Record::GatewayStarted(started) => Some(started),
                _ => None,
            });
            if let Some(started) = started.last() {
                return Ok(Some(started));
            }
        }
        Ok(None)
    }

    fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> CliError {
        failed("read", &self.directory, error)
    }
}

/// Wraps an error of the store with what was tried, and where.
pub(super) fn failed(
    action: &'static str,
    directory: &Path,
    error: impl std::error::Error + Send + Sync + 'static,
) -> CliError {
    CliError::Store { action, directory: directory.into(), source: Box::new(error) }
}

/// An error and its causes on one line.
fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn ambiguous(id: &str, candidates: impl Iterator<Item = String>) -> CliError {
    CliError::Ambiguous { id: id.into(), candidates: candidates.take(CANDIDATES_MAX).collect() }
}

/// The beginning or end of an id, as typed.
struct IdPart(String);

impl IdPart {
    fn parse(text: &str) -> Result<Self, CliError> {
        let part: String = text.chars().filter(|c| *c != '-').collect::<String>().to_lowercase();
        let digits = part.chars().all(|c| c.is_ascii_hexdigit());
        if digits && (ID_PART_CHARS_MIN..=ID_CHARS).contains(&part.len()) {
            return Ok(Self(part));
        }
        Err(CliError::BadId { id: text.chars().take(64).collect() })
    }

    fn matches(&self, id: &str) -> bool {
        id.starts_with(&self.0) || id.ends_with(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_ids() {
        let id = "0190f3c2aaaabbbbccccddddeeee1234";
        for (part, matches) in
            [("0190f3", true), ("EEEE1234", true), (id, true), ("aaaa", false), ("1235", false)]
        {
            assert_eq!(IdPart::parse(part).expect(part).matches(id), matches, "{part}");
        }
        for bad in ["", "123", "xyz1", "0190f3c2aaaabbbbccccddddeeee12345", "\u{1b}[31"] {
            assert!(matches!(IdPart::parse(bad), Err(CliError::BadId { .. })), "{bad}");
        }
    }
}

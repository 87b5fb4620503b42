//! What the verbs ask of the store: ids to rows, rows to recordings, errors with their place.

use std::path::{Path, PathBuf};

use super::{CliError, escape, place::Place, screen::Screen};
use crate::{
    model::{AccessScope, CapabilityRecord, GatewayStarted, Record, SessionId, Through},
    replay::{self, LoadError, Timeline},
    socket::{Announcement, GatewayRows, question},
    store::{
        Catalog, CatalogError, ExchangeRecords, ExchangeRow, IdPart, MATCHING_IDS_MAX, MatchingIds,
        Position, Query, Reader, RowSource, SessionView,
    },
};

/// An open store, and whom to ask for its rows: the gateway that writes it, else the files.
///
/// It may hold the index, and a gateway that starts then has to wait for it: verbs take a library,
/// get what they need, and let go of it before they print.
pub(super) struct Library {
    directory: PathBuf,
    reader: Reader,
    rows: Rows,
    verb: &'static str,
    through: Through,
}

enum Rows {
    Files(Catalog),
    Gateway(GatewayRows),
}

/// What an id names.
pub(super) enum Found {
    /// A session.
    Session(Box<SessionView>),
    /// An exchange.
    Exchange(Box<ExchangeRow>),
}

/// An ambiguous id names so many candidates.
const CANDIDATES_MAX: usize = MATCHING_IDS_MAX - 1;

/// A gateway takes no longer text of a search.
const QUERY_BYTES_MAX: usize = 2048;

impl Library {
    /// Opens a store for a verb that reads content in this way. Where a gateway writes it and answers on the
    /// socket, rows are asked of it; why not is said, unless there is no socket at all.
    pub(super) fn open(
        place: &Place,
        verb: &'static str,
        through: Through,
        screen: &mut Screen<'_>,
    ) -> Result<Self, CliError> {
        let reader = place.reader()?;
        let Some(rows) = place.gateway(&reader, screen)? else {
            return Self::from_files(place, verb, screen);
        };
        let directory = place.directory.clone();
        Ok(Self { directory, reader, rows: Rows::Gateway(rows), verb, through })
    }

    /// As [`Library::open`], from the files alone. Warns of what cannot be read in them.
    pub(super) fn from_files(
        place: &Place,
        verb: &'static str,
        screen: &mut Screen<'_>,
    ) -> Result<Self, CliError> {
        let reader = place.reader()?;
        let directory = place.directory.clone();
        let catalog = reader.catalog().map_err(|error| failed("read", &directory, error))?;
        for what in catalog.damage().iter().map(|error| chain(error)) {
            writeln!(screen.err, "warning: {}", escape::line(&what))?;
        }
        if !catalog.damage().is_empty() {
            writeln!(screen.err, "hint: rows may be missing; see: recorder verify")?;
        }
        let (rows, through) = (Rows::Files(catalog), Through::Files);
        Ok(Self { directory, reader, rows, verb, through })
    }

    /// Tells the gateway, if it is asked, what will be read: it gives no rows before. Once per library.
    pub(super) fn announce(&self, what: AccessScope) -> Result<(), CliError> {
        let Rows::Gateway(gateway) = &self.rows else { return Ok(()) };
        let (verb, through) = (self.verb.to_owned(), self.through);
        let announced = gateway.announce(&Announcement { verb, through, what });
        announced.map_err(|error| CliError::Asked(Box::new(error)))
    }

    /// The segments alone: reading them keeps no gateway waiting.
    pub(super) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// All sessions, once announced.
    pub(super) fn sessions(&self) -> Result<Vec<SessionView>, CliError> {
        self.rows().sessions().map_err(|error| self.failed_rows(error))
    }

    /// What a search finds, once announced.
    pub(super) fn search(&self, query: &Query) -> Result<Vec<ExchangeRow>, CliError> {
        self.rows().search(query).map_err(|error| self.failed_rows(error))
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
        replay::load(&self.reader, self.rows(), session, witness).map_err(|error| match error {
            LoadError::Rows(CatalogError::Asked(error)) => CliError::Asked(error),
            error => error.into(),
        })
    }

    /// The id of the session of which this is the id, or part of it.
    pub(super) fn session_id(&self, id: &str) -> Result<SessionId, CliError> {
        // It may be that of one that is not there.
        let ids = self.matching_ids(id)?;
        match ids.sessions.as_slice() {
            [session] => Ok(*session),
            [] => Err(CliError::NotFound { what: "session", id: id.into() }),
            several => Err(ambiguous(id, several)),
        }
    }

    /// The session or exchange of which this is the id, or part of it. Announces that it is read.
    pub(super) fn find(&self, id: &str) -> Result<Found, CliError> {
        let not_found = || CliError::NotFound { what: "session or exchange", id: id.into() };
        let MatchingIds { sessions, exchanges } = self.matching_ids(id)?;
        let failed = |error| self.failed_rows(error);
        match (&sessions[..], &exchanges[..]) {
            ([], []) => Err(not_found()),
            (&[session], _) => {
                self.announce(AccessScope { sessions, ..AccessScope::default() })?;
                let view = self.rows().session(session).map_err(failed)?;
                Ok(Found::Session(Box::new(view.ok_or_else(not_found)?)))
            }
            ([], &[exchange]) => {
                self.announce(AccessScope { exchanges, ..AccessScope::default() })?;
                let row = self.rows().exchange(exchange).map_err(failed)?;
                Ok(Found::Exchange(Box::new(row.ok_or_else(not_found)?)))
            }
            ([], several) => Err(ambiguous(id, several)),
            (several, _) => Err(ambiguous(id, several)),
        }
    }

    fn matching_ids(&self, id: &str) -> Result<MatchingIds, CliError> {
        let part: IdPart =
            id.parse().map_err(|_| CliError::BadId { id: id.chars().take(64).collect() })?;
        self.rows().matching_ids(&part).map_err(|error| self.failed_rows(error))
    }

    fn rows(&self) -> &dyn RowSource {
        match &self.rows {
            Rows::Files(catalog) => catalog,
            Rows::Gateway(gateway) => gateway,
        }
    }

    /// What the witness of the run could see that wrote the record here. None also where that
    /// cannot be read: damage elsewhere must not hide a session.
    pub(super) fn witness_before(&self, position: Position) -> Option<CapabilityRecord> {
        let started = gateway_started(&self.reader, Some(position));
        started.ok().flatten().map(|started| started.witness)
    }

    fn failed_rows(&self, error: CatalogError) -> CliError {
        match error {
            CatalogError::Asked(error) => CliError::Asked(error),
            error => self.failed(error),
        }
    }

    fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> CliError {
        failed("read", &self.directory, error)
    }
}

/// The latest start of a gateway, or the latest before a position.
///
/// Every run begins a segment, and its start is recorded before its first exchange: so it is
/// enough to look at the heads of segments, from the last one back.
pub(super) fn gateway_started(
    reader: &Reader,
    before: Option<Position>,
) -> Result<Option<GatewayStarted>, CliError> {
    let segments = reader.segments().map_err(|error| failed("read", reader.directory(), error))?;
    for segment in segments.iter().rev().map(|info| info.segment) {
        if before.is_some_and(|before| segment > before.segment) {
            continue;
        }
        let head = reader
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

/// What a search selects, for the record that it was made.
pub(super) fn scope(query: &Query) -> AccessScope {
    let mut text = question::to_text(query);
    // Percent-encoded, so that every byte is a character.
    text.truncate(QUERY_BYTES_MAX);
    AccessScope { query: Some(text), ..AccessScope::default() }
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
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn ambiguous<T: std::fmt::Display>(id: &str, candidates: &[T]) -> CliError {
    let candidates = candidates.iter().take(CANDIDATES_MAX).map(ToString::to_string).collect();
    CliError::Ambiguous { id: id.into(), candidates }
}

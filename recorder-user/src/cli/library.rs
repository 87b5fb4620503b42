//! What the verbs ask of the stores: ids to rows, rows to recordings, errors with their place.

use std::path::Path;

use super::{CliError, place::Place, screen::Screen, source::Source};
use crate::{
    model::{AccessScope, CapabilityRecord, GatewayId, GatewayStarted, Record, SessionId, Through},
    replay::{self, LoadError, Recorded, Timeline, WholeSession},
    socket::{Announcement, question},
    store::{
        CatalogError, ExchangeRecords, ExchangeRow, IdPart, MATCHING_IDS_MAX, MatchingIds,
        Position, Query, Reader,
    },
};

/// One or more open stores, which read as one: of several gateways, tracks of one session are put together.
///
/// It may hold an index, and a gateway that starts then has to wait for it: verbs take a library,
/// get what they need, and let go of it before they print.
pub(super) struct Library {
    /// At least one.
    sources: Vec<Source>,
    verb: &'static str,
    through: Through,
}

/// What an id names.
pub(super) enum Found {
    /// A session.
    Session(Box<WholeSession>),
    /// An exchange.
    Exchange(Box<ExchangeRow>),
}

/// An ambiguous id names so many candidates.
const CANDIDATES_MAX: usize = MATCHING_IDS_MAX - 1;

/// A gateway takes no longer text of a search.
const QUERY_BYTES_MAX: usize = 2048;

impl Library {
    /// Opens stores for a verb that reads content in this way.
    pub(super) fn open(
        places: &[Place],
        verb: &'static str,
        through: Through,
        screen: &mut Screen<'_>,
    ) -> Result<Self, CliError> {
        let sources = places.iter().map(|place| Source::open(place, screen));
        let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
        let asked = sources.iter().any(|source| source.asked().is_some());
        let through = if asked { through } else { Through::Files };
        Ok(Self { sources, verb, through })
    }

    /// As [`Library::open`], from the files alone.
    pub(super) fn from_files(
        places: &[Place],
        verb: &'static str,
        screen: &mut Screen<'_>,
    ) -> Result<Self, CliError> {
        let sources = places.iter().map(|place| Source::from_files(place, screen));
        let sources = sources.collect::<Result<_, _>>()?;
        Ok(Self { sources, verb, through: Through::Files })
    }

    /// Tells the gateways that are asked what will be read: they give no rows before. Once per library.
    pub(super) fn announce(&self, what: AccessScope) -> Result<(), CliError> {
        for gateway in self.sources.iter().filter_map(Source::asked) {
            let (verb, through) = (self.verb.to_owned(), self.through);
            let announced = gateway.announce(&Announcement { verb, through, what: what.clone() });
            announced.map_err(|error| CliError::Asked(Box::new(error)))?;
        }
        Ok(())
    }

    /// Whether several stores are read as one.
    pub(super) const fn is_merged(&self) -> bool {
        self.sources.len() > 1
    }

    /// The segments alone, of the store that has this position: reading them keeps no gateway waiting.
    pub(super) fn reader(&self, position: Position) -> Reader {
        self.source(position).reader.clone()
    }

    /// The gateway that wrote what is at this position, where there are several.
    pub(super) fn gateway(&self, position: Position) -> Option<GatewayId> {
        self.source(position).gateway.filter(|_| self.is_merged())
    }

    /// All sessions, once announced.
    pub(super) fn sessions(&self) -> Result<Vec<WholeSession>, CliError> {
        let mut tracks = Vec::new();
        for source in &self.sources {
            tracks.extend(source.tracks()?);
        }
        Ok(if self.is_merged() {
            replay::merge(tracks)
        } else {
            tracks.into_iter().map(WholeSession::of).collect()
        })
    }

    /// What a search finds, once announced.
    pub(super) fn search(&self, query: &Query) -> Result<Vec<ExchangeRow>, CliError> {
        let [first, ..] = &self.sources[..] else { return Ok(Vec::new()) };
        if !self.is_merged() {
            return first.search(query);
        }
        let session = query.session.map(|id| self.whole_session(id)).transpose()?.flatten();
        let mut rows = Vec::new();
        for source in &self.sources {
            let Some(whole) = &session else {
                rows.extend(source.search(query)?);
                continue;
            };
            for track in whole.tracks.iter().filter(|track| track.gateway == source.gateway) {
                let session = Some(track.view.session);
                rows.extend(source.search(&Query { session, ..query.clone() })?);
            }
        }
        // As each store has them, so that the cursor means the same in all.
        rows.sort_by_key(|row| row.exchange);
        if query.limit > 0 {
            rows.truncate(query.limit);
        }
        Ok(rows)
    }

    pub(super) fn records(&self, row: &ExchangeRow) -> Result<Option<ExchangeRecords>, CliError> {
        let source = self.source(row.first);
        source.reader.exchange_at(row).map_err(|error| source.failed(error))
    }

    /// As `records`, without bodies.
    pub(super) fn heads(&self, row: &ExchangeRow) -> Result<Option<ExchangeRecords>, CliError> {
        let source = self.source(row.first);
        source.reader.heads_at(row).map_err(|error| source.failed(error))
    }

    pub(super) fn timeline(&self, session: WholeSession) -> Result<Timeline, CliError> {
        let witness = self.witness_before(session.view.first);
        let recorded: Vec<_> = session
            .tracks
            .iter()
            .map(|track| {
                let is_its = |source: &&Source| source.gateway == track.gateway;
                let source = self.sources.iter().find(is_its).unwrap_or(&self.sources[0]);
                let session = track.view.session;
                Recorded { reader: &source.reader, rows: source.rows(), session }
            })
            .collect();
        replay::load(&recorded, session, witness).map_err(|error| match error {
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
        match (&sessions[..], &exchanges[..]) {
            ([], []) => Err(not_found()),
            (&[session], _) => {
                // To find its tracks all sessions are read.
                let sessions = if self.is_merged() { Vec::new() } else { sessions };
                self.announce(AccessScope { sessions, ..AccessScope::default() })?;
                let whole = self.whole_session(session)?;
                Ok(Found::Session(Box::new(whole.ok_or_else(not_found)?)))
            }
            ([], &[exchange]) => {
                self.announce(AccessScope { exchanges, ..AccessScope::default() })?;
                for source in &self.sources {
                    let row = source.rows().exchange(exchange);
                    if let Some(row) = row.map_err(|error| source.failed_rows(error))? {
                        return Ok(Found::Exchange(Box::new(row)));
                    }
                }
                Err(not_found())
            }
            ([], several) => Err(ambiguous(id, several)),
            (several, _) => Err(ambiguous(id, several)),
        }
    }

    /// A session by the id of one of its tracks.
    fn whole_session(&self, id: SessionId) -> Result<Option<WholeSession>, CliError> {
        if self.is_merged() {
            return Ok(self.sessions()?.into_iter().find(|whole| whole.has(id)));
        }
        let [source, ..] = &self.sources[..] else { return Ok(None) };
        Ok(source.session(id)?.map(|view| WholeSession::of(source.track(view))))
    }

    fn matching_ids(&self, id: &str) -> Result<MatchingIds, CliError> {
        let part: IdPart =
            id.parse().map_err(|_| CliError::BadId { id: id.chars().take(64).collect() })?;
        let mut found = MatchingIds::default();
        for source in &self.sources {
            let ids = source.rows().matching_ids(&part);
            let ids = ids.map_err(|error| source.failed_rows(error))?;
            found.sessions.extend(ids.sessions);
            found.exchanges.extend(ids.exchanges);
        }
        Ok(found)
    }

    /// The store that has what is at a position. A row comes from one of them; its segment may have gone since.
    fn source(&self, position: Position) -> &Source {
        let found = self.sources.iter().find(|source| source.has(position));
        found.unwrap_or(&self.sources[0])
    }

    /// What the witness of the run could see that wrote the record here. None also where that
    /// cannot be read: damage elsewhere must not hide a session.
    pub(super) fn witness_before(&self, position: Position) -> Option<CapabilityRecord> {
        let started = gateway_started(&self.source(position).reader, Some(position));
        started.ok().flatten().map(|started| started.witness)
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

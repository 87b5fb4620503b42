//! From a store to a timeline.

use std::collections::HashMap;

use super::{
    Detail, Timeline, WholeSession, is_stream, stream::may_be_stream, was_cut, watch_frames,
};
use crate::{
    model::{CapabilityRecord, ExchangeId, ExchangeSettled, SessionId},
    store::{
        CatalogError, ExchangeEnds, ExchangeRecords, ExchangeRow, Query, ReadError, Reader,
        RowSource,
    },
};

/// A recording could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The rows of a session could not be read.
    #[error("cannot read the exchanges of the session")]
    Rows(#[source] CatalogError),
    /// The records of an exchange could not be read.
    #[error("cannot read the records of exchange {exchange}")]
    Records {
        /// The exchange.
        exchange: ExchangeId,
        /// Why not.
        #[source]
        source: ReadError,
    },
}

/// Where one track of a session is read.
pub struct Recorded<'a> {
    /// The segments.
    pub reader: &'a Reader,
    /// The rows.
    pub rows: &'a dyn RowSource,
    /// The session's id there.
    pub session: SessionId,
}

/// Puts together the timeline of a session from all its tracks.
///
/// Rows are enough for most exchanges; records are read only of those that rows do not tell in
/// full, so that a long session of short requests loads fast. Exchanges of several gateways are in
/// the order of their ids, as far as the gateways' clocks agree.
///
/// # Errors
/// When rows or records cannot be read.
pub fn load(
    recorded: &[Recorded<'_>],
    session: WholeSession,
    witness: Option<CapabilityRecord>,
) -> Result<Timeline, LoadError> {
    let mut found = Vec::new();
    for track in recorded {
        let limit = EXCHANGES_MAX + 1;
        let query = Query { session: Some(track.session), limit, ..Query::default() };
        let rows = track.rows.search(&query).map_err(LoadError::Rows)?;
        found.extend(rows.into_iter().map(|row| (row, track.reader)));
    }
    found.sort_by_key(|(row, _)| row.exchange);
    let is_cut = found.len() > EXCHANGES_MAX;
    found.truncate(EXCHANGES_MAX);
    let mut details = HashMap::new();
    let mut frames_left = FRAMES_IN_ALL_MAX;
    for (row, reader) in found.iter().filter(|(row, _)| needs_detail(row)) {
        let exchange = row.exchange;
        let failed = |source| LoadError::Records { exchange, source };
        // Of a stream the bytes between its ends are not looked at: they may be gigabytes.
        let detail = if may_be_stream(row) {
            reader.ends_at(row).map_err(failed)?.map(|ends| stream_detail(row, &ends))
        } else {
            reader.exchange_at(row).map_err(failed)?.map(|records| detail(row, &records))
        };
        if let Some(mut detail) = detail {
            detail.frames.truncate(frames_left);
            frames_left -= detail.frames.frames.len();
            details.insert(exchange, detail);
        }
    }
    let exchanges = found.into_iter().map(|(row, _)| row).collect();
    let mut timeline = Timeline::new(session, witness, exchanges, details);
    timeline.is_cut = is_cut;
    Ok(timeline)
}

/// A timeline takes so many exchanges, about a kilobyte each; what is over is said, and `search`
/// has it.
const EXCHANGES_MAX: usize = 200_000;

/// A timeline takes so many frames in all; what is over is counted by exchange.
const FRAMES_IN_ALL_MAX: usize = 200_000;

fn needs_detail(row: &ExchangeRow) -> bool {
    is_stream(row)
        || may_be_stream(row)
        || was_cut(row)
        || row.objects_omitted > 0
        || row.account.gap_bytes > 0
}

fn detail(row: &ExchangeRow, records: &ExchangeRecords) -> Detail {
    let mut detail = Detail::default();
    if let Some(started) = records.response_started.as_ref().filter(|_| is_stream(row)) {
        let head = &started.head;
        let encoding = head.header("content-encoding").unwrap_or_default();
        detail.frames = watch_frames(&records.chunks, head.header("content-type"), encoding);
    }
    if let Some(settled) = &records.settled {
        note_outcome(&mut detail, row, settled);
    }
    detail
}

fn stream_detail(row: &ExchangeRow, ends: &ExchangeEnds) -> Detail {
    let mut detail = Detail { stream: ends.opened.stream.clone(), ..Detail::default() };
    if let Some(settled) = &ends.settled {
        detail.stream_facts.clone_from(&settled.stream);
        note_outcome(&mut detail, row, settled);
    }
    detail
}

fn note_outcome(detail: &mut Detail, row: &ExchangeRow, settled: &ExchangeSettled) {
    detail.settled = Some(settled.time);
    detail.gaps.clone_from(&settled.account.gaps);
    if row.objects_omitted > 0 {
        detail.objects = Some(settled.objects.clone());
    }
}

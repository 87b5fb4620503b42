//! The rows that one segment adds to the tables of an archive.
//!
//! An exchange's row belongs to the segment in which its end is known: its outcome, or the next start of the
//! gateway if it never got one. A session's row belongs to every segment that changed it, as of that
//! segment's end. So rows of different segments are never derived twice, and the tables of a segment never
//! change once they are stored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::{
    fold::{Fold, Rows, SessionEntry},
    reader::{ReadError, Reader, StoredRecord},
    rows::{ExchangeRow, SessionView},
};
use crate::model::{ExchangeId, ExchangeSettled, Record, SegmentId, SessionId};

/// Takes rows as they are found.
pub trait RowSink {
    /// An exchange that came to its end; without an outcome if none was recorded.
    fn exchange(&mut self, row: &ExchangeRow, outcome: Option<&ExchangeSettled>);

    /// A session that the segment changed, as of the segment's end.
    fn session(&mut self, view: &SessionView);
}

/// What the rows of later segments need of earlier ones: exchanges that go on, and sessions that may still
/// change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    sessions: BTreeMap<SessionId, SessionEntry>,
    exchanges: BTreeMap<ExchangeId, ExchangeRow>,
    #[serde(skip)]
    changed: BTreeSet<SessionId>,
}

/// What was read of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentRows {
    /// Its records, the seal too.
    pub records: u64,
    /// Records that are intact and could not be understood: no rows come of them.
    pub not_understood: u64,
}

impl Rows for Carried {
    fn session(&mut self, id: SessionId) -> Option<&mut SessionEntry> {
        let entry = self.sessions.get_mut(&id)?;
        self.changed.insert(id);
        Some(entry)
    }

    fn add_session(&mut self, entry: SessionEntry) {
        self.changed.insert(entry.view.session);
        self.sessions.insert(entry.view.session, entry);
    }

    fn exchange(&mut self, id: ExchangeId) -> Option<&mut ExchangeRow> {
        self.exchanges.get_mut(&id)
    }

    fn add_exchange(&mut self, row: ExchangeRow) {
        self.exchanges.insert(row.exchange, row);
    }
}

impl Carried {
    /// The exchanges that go on, in the order in which they were received.
    pub fn open_exchanges(&self) -> impl Iterator<Item = &ExchangeRow> {
        self.exchanges.values()
    }

    /// Takes the records of one segment: rows that are complete go to `sink`, the rest is carried on.
    ///
    /// # Errors
    /// When the segment cannot be read to its end, or is damaged. What is carried is of no use then.
    pub fn segment(
        &mut self,
        reader: &Reader,
        segment: SegmentId,
        sink: &mut impl RowSink,
    ) -> Result<SegmentRows, ReadError> {
        let (mut fold, mut read) = (Fold::default(), SegmentRows::default());
        self.changed.clear();
        for stored in reader.records_in(segment) {
            match stored {
                Ok(stored) => self.record(&mut fold, &stored, sink),
                Err(ReadError::Payload { .. }) => read.not_understood += 1,
                Err(error) => return Err(error),
            }
            read.records += 1;
        }
        for id in std::mem::take(&mut self.changed) {
            if let Some(entry) = self.sessions.get(&id) {
                sink.session(&entry.view);
            }
        }
        self.forget();
        Ok(read)
    }

    fn record(&mut self, fold: &mut Fold, stored: &StoredRecord, sink: &mut impl RowSink) {
        // Exchanges of an earlier run get no outcome any more.
        if matches!(stored.record, Record::GatewayStarted(_)) {
            for row in std::mem::take(&mut self.exchanges).values() {
                sink.exchange(row, None);
            }
        }
        fold.apply(self, stored.position, &stored.record);
        match &stored.record {
            Record::ExchangeOpened(opened) if opened.refusal.is_some() => {
                if let Some(row) = self.exchanges.remove(&opened.exchange) {
                    sink.exchange(&row, None);
                }
            }
            Record::ExchangeSettled(settled) => {
                if let Some(row) = self.exchanges.remove(&settled.exchange) {
                    sink.exchange(&row, Some(settled));
                }
            }
            _ => {}
        }
    }

    /// Lets go of sessions that ended long before the newest: only a connection that outlived one by a day
    /// could still change it.
    fn forget(&mut self) {
        let newest = self.sessions.values().map(|entry| entry.view.last_activity).max();
        let Some(newest) = newest else { return };
        self.sessions.retain(|_, entry| {
            let view = &entry.view;
            view.ended.is_none() || newest.micros_since(view.last_activity) < ENDED_KEPT_US
        });
    }
}

/// One day.
const ENDED_KEPT_US: i64 = 24 * 3600 * 1_000_000;

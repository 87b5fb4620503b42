//! Rows in memory: what a scan of the segments fills.

use std::collections::BTreeMap;

use super::{
    fold::{Rows, SessionEntry},
    rows::{ExchangeRow, SessionView},
};
use crate::model::{ExchangeId, SessionId};

/// All rows of a store.
#[derive(Default)]
pub(super) struct MemoryRows {
    pub(super) sessions: BTreeMap<SessionId, SessionEntry>,
    pub(super) exchanges: BTreeMap<ExchangeId, ExchangeRow>,
}

impl MemoryRows {
    /// The sessions that have not ended.
    pub(super) fn active_sessions(self) -> Vec<SessionView> {
        let views = self.sessions.into_values().map(|entry| entry.view);
        views.filter(|view| view.ended.is_none()).collect()
    }
}

impl Rows for MemoryRows {
    fn session(&mut self, id: SessionId) -> Option<&mut SessionEntry> {
        self.sessions.get_mut(&id)
    }

    fn add_session(&mut self, entry: SessionEntry) {
        self.sessions.insert(entry.view.session, entry);
    }

    fn exchange(&mut self, id: ExchangeId) -> Option<&mut ExchangeRow> {
        self.exchanges.get_mut(&id)
    }

    fn add_exchange(&mut self, row: ExchangeRow) {
        self.exchanges.insert(row.exchange, row);
    }
}

//! Where rows come from: the store's own files, or a gateway that is asked.

use std::ops::ControlFlow;

use super::{
    catalog::{Catalog, CatalogError},
    id_part::{IdPart, MATCHING_IDS_MAX, MatchingIds},
    rows::{ExchangeRow, Query, SessionView},
};
use crate::model::{ExchangeId, SessionId};

/// The rows of a store. All sources give the same rows for the same records.
pub trait RowSource {
    /// All sessions in the order in which they began.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn sessions(&self) -> Result<Vec<SessionView>, CatalogError>;

    /// One session.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn session(&self, id: SessionId) -> Result<Option<SessionView>, CatalogError>;

    /// One exchange.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn exchange(&self, id: ExchangeId) -> Result<Option<ExchangeRow>, CatalogError>;

    /// The exchanges that the query selects, in the order in which they were received.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn search(&self, query: &Query) -> Result<Vec<ExchangeRow>, CatalogError>;

    /// The ids that a part of one fits, at most [`MATCHING_IDS_MAX`].
    ///
    /// # Errors
    /// When the source cannot be read.
    fn matching_ids(&self, part: &IdPart) -> Result<MatchingIds, CatalogError>;
}

impl RowSource for Catalog {
    fn sessions(&self) -> Result<Vec<SessionView>, CatalogError> {
        Self::sessions(self)
    }

    fn session(&self, id: SessionId) -> Result<Option<SessionView>, CatalogError> {
        Self::session(self, id)
    }

    fn exchange(&self, id: ExchangeId) -> Result<Option<ExchangeRow>, CatalogError> {
        Self::exchange(self, id)
    }

    fn search(&self, query: &Query) -> Result<Vec<ExchangeRow>, CatalogError> {
        Self::search(self, query)
    }

    fn matching_ids(&self, part: &IdPart) -> Result<MatchingIds, CatalogError> {
        let mut found = MatchingIds::default();
        if let Some((session, exchange)) = part.whole() {
            found.sessions.extend(self.session(session)?.map(|view| view.session));
            if found.sessions.is_empty() {
                found.exchanges.extend(self.exchange(exchange)?.map(|row| row.exchange));
            }
            return Ok(found);
        }
        self.session_ids(|id| take(&mut found.sessions, id, part))?;
        if found.sessions.is_empty() {
            self.exchange_ids(|id| take(&mut found.exchanges, id, part))?;
        }
        Ok(found)
    }
}

fn take<T: std::fmt::Display + Copy>(ids: &mut Vec<T>, id: T, part: &IdPart) -> ControlFlow<()> {
    if part.matches(id) {
        ids.push(id);
    }
    if ids.len() >= MATCHING_IDS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

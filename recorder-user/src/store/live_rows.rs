//! Rows of the store that this process writes, from the thread that keeps its index.
//!
//! A question waits for nothing but that thread, which first takes in every record that was handed to it: what
//! was acknowledged before the question is in the answer. Answers are pages of bounded work, so that the
//! thread is soon back at its own; meanwhile records queue for it, and the writer never waits.

use std::{ops::ControlFlow, sync::Arc};

use tokio::sync::oneshot;

use super::{
    id_part::{IdPart, MATCHING_IDS_MAX},
    index::{Feed, Index, IndexError},
    reader::Reader,
    rows::{ExchangeRow, Query, SessionView},
};
use crate::model::{ExchangeId, SessionId};

/// A question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum LiveRowsError {
    /// The index failed, or the store is being closed.
    #[error("there is no index to ask")]
    NoIndex,
    /// Too many wait already.
    #[error("too many questions wait for the index")]
    Busy,
    /// A row could not be read.
    #[error("read the index")]
    Index(#[from] IndexError),
}

/// Some rows, and whether there may be more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPage<T, K> {
    /// The rows, by id; none where none of those that were looked at fits.
    pub rows: Vec<T>,
    /// The row after which to go on; none when everything was looked at.
    pub next: Option<K>,
}

/// A handle to ask. Clones ask the same thread.
#[derive(Clone)]
pub struct LiveRows {
    feed: Arc<Feed>,
    reader: Reader,
}

impl LiveRows {
    pub(super) fn new(feed: Arc<Feed>, reader: Reader) -> Self {
        Self { feed, reader }
    }

    /// Returns when the index answers at all.
    ///
    /// # Errors
    /// When the index cannot answer.
    pub async fn ready(&self) -> Result<(), LiveRowsError> {
        self.ask(|_| Ok(())).await
    }

    /// A page of sessions, from the one that follows `after`.
    ///
    /// # Errors
    /// When the index cannot answer.
    pub async fn sessions(
        &self,
        after: Option<SessionId>,
    ) -> Result<RowPage<SessionView, SessionId>, LiveRowsError> {
        self.ask(move |index| {
            let mut page = Page::new();
            index.sessions_after(after, |view| page.take(view.session, view, true))?;
            Ok(page.end())
        })
        .await
    }

    /// One session.
    ///
    /// # Errors
    /// When the index cannot answer.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionView>, LiveRowsError> {
        self.ask(move |index| index.session(id)).await
    }

    /// One exchange.
    ///
    /// # Errors
    /// When the index cannot answer.
    pub async fn exchange(&self, id: ExchangeId) -> Result<Option<ExchangeRow>, LiveRowsError> {
        self.ask(move |index| index.exchange(id)).await
    }

    /// A page of the exchanges that the query selects.
    ///
    /// # Errors
    /// When the index cannot answer.
    pub async fn exchanges(
        &self,
        query: Query,
    ) -> Result<RowPage<ExchangeRow, ExchangeId>, LiveRowsError> {
        let reader = self.reader.clone();
        self.ask(move |index| {
            let mut page = Page::new();
            page.rows_max = if query.limit == 0 { PAGE_ROWS } else { query.limit.min(PAGE_ROWS) };
            index.candidates(&query, |row| {
                let fits = query.selects(&row, || {
                    page.visits_left = page.visits_left.saturating_sub(RECORDS_AS_ROWS);
                    reader.ends_at(&row)
                });
                page.take(row.exchange, row, fits)
            })?;
            Ok(page.end())
        })
        .await
    }

    /// A page of the sessions whose ids a part fits.
    ///
    /// # Errors
    /// When the index cannot answer.
    pub async fn matching_sessions(
        &self,
        part: IdPart,
        after: Option<SessionId>,
    ) -> Result<RowPage<SessionId, SessionId>, LiveRowsError> {
        self.ask(move |index| {
            let mut page = Page::of_ids();
            index.session_ids(after, |id| page.take(id, id, part.matches(id)))?;
            Ok(page.end())
        })
        .await
    }

    /// A page of the exchanges whose ids a part fits.
    ///
    /// # Errors
    /// When the index cannot answer.
    pub async fn matching_exchanges(
        &self,
        part: IdPart,
        after: Option<ExchangeId>,
    ) -> Result<RowPage<ExchangeId, ExchangeId>, LiveRowsError> {
        self.ask(move |index| {
            let mut page = Page::of_ids();
            index.exchange_ids(after, |id| page.take(id, id, part.matches(id)))?;
            Ok(page.end())
        })
        .await
    }

    // Cancel-safe: a question that nobody waits for any more is answered to nobody.
    async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Index) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, LiveRowsError> {
        let (answer, answered) = oneshot::channel();
        self.feed.ask(Box::new(move |index| {
            if !answer.is_closed() {
                drop(answer.send(look(index)));
            }
        }))?;
        // It is dropped unanswered when the index fails, or the store is closed.
        let found = answered.await.map_err(|_| LiveRowsError::NoIndex)?;
        Ok(found?)
    }
}

/// A page in the making.
struct Page<T, K> {
    rows: Vec<T>,
    rows_max: usize,
    visits_left: usize,
    last: Option<K>,
    full: bool,
}

impl<T, K: Copy> Page<T, K> {
    const fn new() -> Self {
        Self {
            rows: Vec::new(),
            rows_max: PAGE_ROWS,
            visits_left: VISITED_ROWS_MAX,
            last: None,
            full: false,
        }
    }

    const fn of_ids() -> Self {
        let mut page = Self::new();
        (page.rows_max, page.visits_left) = (MATCHING_IDS_MAX, VISITED_IDS_MAX);
        page
    }

    fn take(&mut self, key: K, row: T, fits: bool) -> ControlFlow<()> {
        self.last = Some(key);
        if fits {
            self.rows.push(row);
        }
        self.visits_left = self.visits_left.saturating_sub(1);
        self.full = self.rows.len() >= self.rows_max || self.visits_left == 0;
        if self.full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn end(self) -> RowPage<T, K> {
        RowPage { rows: self.rows, next: self.last.filter(|_| self.full) }
    }
}

/// Rows in a page: one of 4 KiB each is a mebibyte.
const PAGE_ROWS: usize = 256;
/// Rows that are looked at for one page: some 10 ms.
const VISITED_ROWS_MAX: usize = 1024;
/// Where a row does not tell enough, its records are read: as much work as so many rows.
const RECORDS_AS_ROWS: usize = 16;
/// Ids that are looked at for one page: they are not decoded.
const VISITED_IDS_MAX: usize = 16 << 10;

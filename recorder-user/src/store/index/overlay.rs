//! The rows that a batch changes, before they go to the table in one transaction.

use std::collections::HashMap;

use serde::Deserialize;

use super::{COVERED, Covered, IndexError, SledTable, Table as _, Tree, parse, table::Put};
use crate::{
    model::{ExchangeId, SessionId},
    store::{
        fold::{Rows, SessionEntry},
        rows::ExchangeRow,
    },
};

/// Rows in memory over the rows in the table.
pub(super) struct Overlay<'a> {
    table: &'a SledTable,
    sessions: HashMap<SessionId, SessionEntry>,
    exchanges: HashMap<ExchangeId, ExchangeRow>,
    /// The fold cannot fail; what failed below it fails the commit.
    error: Option<IndexError>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(table: &'a SledTable) -> Self {
        Self { table, sessions: HashMap::new(), exchanges: HashMap::new(), error: None }
    }

    /// How many rows are changed.
    pub(super) fn len(&self) -> usize {
        self.sessions.len() + self.exchanges.len()
    }

    /// Puts the rows and how far they go, all or nothing; gives their bytes.
    pub(super) fn commit(self, covered: Covered) -> Result<u64, IndexError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut puts = Vec::with_capacity(self.sessions.len() * 2 + self.exchanges.len() + 1);
        for (id, entry) in &self.sessions {
            let key = id.as_bytes().to_vec();
            let active = entry.view.ended.is_none().then(Vec::new);
            puts.push(Put { tree: Tree::Active, key: key.clone(), value: active });
            puts.push(Put { tree: Tree::Sessions, key, value: Some(json(entry)) });
        }
        for (id, row) in &self.exchanges {
            let key = id.as_bytes().to_vec();
            puts.push(Put { tree: Tree::Exchanges, key, value: Some(json(row)) });
        }
        let value = Some(json(&covered));
        puts.push(Put { tree: Tree::Meta, key: COVERED.to_vec(), value });
        self.table.put_many(&puts)?;
        let bytes = |put: &Put| put.key.len() + put.value.as_ref().map_or(0, Vec::len);
        Ok(puts.iter().map(bytes).sum::<usize>() as u64)
    }

    fn load<T: for<'de> Deserialize<'de>>(&mut self, tree: Tree, key: &[u8]) -> Option<T> {
        let found = self.table.get(tree, key).map_err(IndexError::from);
        let parsed = found.and_then(|json| json.map(|json| parse(&json)).transpose());
        parsed.unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            None
        })
    }
}

impl Rows for Overlay<'_> {
    fn session(&mut self, id: SessionId) -> Option<&mut SessionEntry> {
        if !self.sessions.contains_key(&id) {
            let entry = self.load(Tree::Sessions, id.as_bytes())?;
            self.sessions.insert(id, entry);
        }
        self.sessions.get_mut(&id)
    }

    fn add_session(&mut self, entry: SessionEntry) {
        self.sessions.insert(entry.view.session, entry);
    }

    fn exchange(&mut self, id: ExchangeId) -> Option<&mut ExchangeRow> {
        if !self.exchanges.contains_key(&id) {
            let row = self.load(Tree::Exchanges, id.as_bytes())?;
            self.exchanges.insert(id, row);
        }
        self.exchanges.get_mut(&id)
    }

    fn add_exchange(&mut self, row: ExchangeRow) {
        self.exchanges.insert(row.exchange, row);
    }
}

fn json<T: serde::Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are plain data")
}

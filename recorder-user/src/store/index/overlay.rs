//! The rows that a batch changes, before they go to the table in one transaction.

use std::collections::{BTreeMap, HashMap};

use super::{
    COVERED, Covered, EXCHANGES, IndexError, parse, parse_exchange,
    search::{Span, encode_slot},
    slots::{Ordinal, Slot, Slots, posting_key},
    table::{Put, Table, Tree, VALUE_BYTES_MAX},
    terms::{self, Term, Terms},
};
use crate::{
    model::{ExchangeId, SessionId},
    store::{
        fold::{LeftOut, Rows, SessionEntry},
        rows::{ExchangeRow, ROW_BYTES_MAX},
    },
};

/// Rows in memory over the rows in the table.
pub(super) struct Overlay<'a> {
    table: &'a dyn Table,
    /// The ordinal of the next new exchange.
    next: Ordinal,
    sessions: HashMap<SessionId, SessionEntry>,
    exchanges: HashMap<ExchangeId, Entry>,
    left_out: usize,
    /// The fold cannot fail; what failed below it fails the commit.
    error: Option<IndexError>,
}

struct Entry {
    ordinal: Ordinal,
    row: ExchangeRow,
    /// The terms of the outcome in the table; none when the exchange is new.
    stored: Option<Terms>,
    /// Terms of what the row has no room for.
    left_out: Terms,
}

/// What a commit put.
pub(super) struct Committed {
    pub(super) bytes: u64,
    pub(super) next: Ordinal,
}

/// A slot gets a term, or loses it. Sorted, those of one set are together, and the sets in the order of keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    block: u64,
    term: Term,
    slot: Slot,
    is_set: bool,
}

/// The trigrams of texts that many rows of a batch share.
#[derive(Default)]
struct Shared<'a> {
    user_agents: HashMap<&'a str, Terms>,
    command_names: HashMap<&'a str, Terms>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(table: &'a dyn Table, next: Ordinal) -> Self {
        Self {
            table,
            next,
            sessions: HashMap::new(),
            exchanges: HashMap::new(),
            left_out: 0,
            error: None,
        }
    }

    /// How much is changed, about: a row is one.
    pub(super) fn len(&self) -> usize {
        self.sessions.len() + self.exchanges.len() + self.left_out / TERMS_OF_A_ROW
    }

    /// Puts the rows and how far they go, all or nothing.
    pub(super) fn commit(self, covered: Covered) -> Result<Committed, IndexError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut puts = Vec::with_capacity(self.sessions.len() * 2 + self.exchanges.len() * 8 + 2);
        for (id, entry) in &self.sessions {
            let key = id.as_bytes().to_vec();
            let active = entry.view.ended.is_none().then(Vec::new);
            puts.push(Put { tree: Tree::Active, key: key.clone(), value: active });
            puts.push(Put { tree: Tree::Sessions, key, value: Some(json(entry)) });
        }
        let (mut changes, mut shared) = (Vec::new(), Shared::default());
        for (id, entry) in &self.exchanges {
            let value = [&entry.ordinal.key()[..], &json(&entry.row)].concat();
            let key = id.as_bytes().to_vec();
            puts.push(Put { tree: Tree::Exchanges, key, value: Some(value) });
            entry.changes(&mut shared, &mut changes);
        }
        put_postings(self.table, changes, &mut puts)?;
        put_slots(self.table, self.exchanges.values(), &mut puts)?;
        let exchanges = Some(self.next.key().to_vec());
        puts.push(Put { tree: Tree::Meta, key: EXCHANGES.to_vec(), value: exchanges });
        let covered = Some(json(&covered));
        puts.push(Put { tree: Tree::Meta, key: COVERED.to_vec(), value: covered });
        self.table.put_many(&puts)?;
        let bytes = puts.iter().map(Put::bytes).sum::<usize>() as u64;
        Ok(Committed { bytes, next: self.next })
    }

    fn load<T>(
        &mut self,
        tree: Tree,
        key: &[u8],
        parse: impl FnOnce(&[u8]) -> Result<T, IndexError>,
    ) -> Option<T> {
        let found = self.table.get(tree, key).map_err(IndexError::from);
        let parsed = found.and_then(|stored| stored.map(|stored| parse(&stored)).transpose());
        parsed.unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            None
        })
    }

    fn entry(&mut self, id: ExchangeId) -> Option<&mut Entry> {
        if !self.exchanges.contains_key(&id) {
            let (ordinal, row) = self.load(Tree::Exchanges, id.as_bytes(), parse_exchange)?;
            let stored = Some(terms::of_outcome(&row));
            let entry = Entry { ordinal, row, stored, left_out: Terms::new() };
            self.exchanges.insert(id, entry);
        }
        self.exchanges.get_mut(&id)
    }
}

impl Entry {
    fn changes<'a>(&'a self, shared: &mut Shared<'a>, changes: &mut Vec<Change>) {
        let (block, slot) = (self.ordinal.block(), self.ordinal.slot());
        let mut change =
            |term: &Term, is_set| changes.push(Change { block, term: *term, slot, is_set });
        let outcome = terms::of_outcome(&self.row);
        if let Some(stored) = &self.stored {
            stored.difference(&outcome).for_each(|term| change(term, false));
            outcome.difference(stored).for_each(|term| change(term, true));
        } else {
            outcome.iter().for_each(|term| change(term, true));
            terms::of_intent(&self.row).iter().for_each(|term| change(term, true));
            let agent = self.row.user_agent.as_str();
            let agent = shared.user_agents.entry(agent);
            let agent = agent.or_insert_with_key(|agent| terms::of_user_agent(agent));
            agent.iter().for_each(|term| change(term, true));
            if let Some(name) = self.row.command_name.as_deref() {
                let name = shared.command_names.entry(name);
                let name = name.or_insert_with_key(|name| terms::of_command_name(name));
                name.iter().for_each(|term| change(term, true));
            }
        }
        self.left_out.iter().for_each(|term| change(term, true));
    }
}

fn put_postings(
    table: &dyn Table,
    mut changes: Vec<Change>,
    puts: &mut Vec<Put>,
) -> Result<(), IndexError> {
    changes.sort_unstable();
    for same in changes.chunk_by(|a, b| (a.block, a.term) == (b.block, b.term)) {
        let key = posting_key(same[0].block, same[0].term.as_bytes());
        let mut set = Slots::NONE;
        if let Some(stored) = table.get(Tree::Postings, &key)? {
            set.unite_stored(&stored)?;
        }
        // What an exchange gets and loses in one batch it gets: `true` comes last.
        for Change { slot, is_set, .. } in same {
            if *is_set { set.insert(*slot) } else { set.remove(*slot) }
        }
        puts.push(Put { tree: Tree::Postings, key, value: set.encode() });
    }
    Ok(())
}

/// The places of new exchanges, and what their blocks span.
fn put_slots<'a>(
    table: &dyn Table,
    entries: impl Iterator<Item = &'a Entry>,
    puts: &mut Vec<Put>,
) -> Result<(), IndexError> {
    let mut spans = BTreeMap::<u64, Span>::new();
    for Entry { ordinal, row, .. } in entries.filter(|entry| entry.stored.is_none()) {
        let (id, time) = (row.exchange, row.time);
        let span = spans.entry(ordinal.block()).or_insert_with(|| Span::of(id, time));
        span.include(id, time);
        let (key, value) = (ordinal.key().to_vec(), Some(encode_slot(id, time)));
        puts.push(Put { tree: Tree::Slots, key, value });
    }
    for (block, mut span) in spans {
        let key = block.to_be_bytes().to_vec();
        if let Some(stored) = table.get(Tree::Blocks, &key)? {
            span.unite(&Span::parse(&stored)?);
        }
        puts.push(Put { tree: Tree::Blocks, key, value: Some(span.encode()) });
    }
    Ok(())
}

impl Rows for Overlay<'_> {
    fn session(&mut self, id: SessionId) -> Option<&mut SessionEntry> {
        if !self.sessions.contains_key(&id) {
            let entry = self.load(Tree::Sessions, id.as_bytes(), parse)?;
            self.sessions.insert(id, entry);
        }
        self.sessions.get_mut(&id)
    }

    fn add_session(&mut self, entry: SessionEntry) {
        self.sessions.insert(entry.view.session, entry);
    }

    fn exchange(&mut self, id: ExchangeId) -> Option<&mut ExchangeRow> {
        self.entry(id).map(|entry| &mut entry.row)
    }

    fn add_exchange(&mut self, row: ExchangeRow) {
        let ordinal = self.next;
        self.next = Ordinal(ordinal.0 + 1);
        let id = row.exchange;
        let entry = Entry { ordinal, row, stored: None, left_out: Terms::new() };
        self.exchanges.insert(id, entry);
    }

    fn leave_out(&mut self, id: ExchangeId, what: LeftOut<'_>) {
        let mut terms = match what {
            LeftOut::CommandLine(line) => terms::of_command_line(line),
            LeftOut::Objects(objects) => terms::of_objects(objects),
        };
        self.left_out += terms.len();
        if let Some(entry) = self.entry(id) {
            entry.left_out.append(&mut terms);
        }
    }
}

fn json<T: serde::Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are plain data")
}

const _: () = assert!(Ordinal::BYTES + ROW_BYTES_MAX <= VALUE_BYTES_MAX);

/// Terms that a row has beside those that most rows share.
const TERMS_OF_A_ROW: usize = 8;

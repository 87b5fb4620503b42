//! Finds exchanges by their terms, in the order of their ids.
//!
//! Ordinals follow the order of records, ids that of requests: nearly the same. Blocks are taken by the least id
//! that they hold, and what a block gives waits until no later block can hold a lesser id.

use std::{cmp::Reverse, collections::BinaryHeap, ops::ControlFlow};

use super::{
    Index, IndexError, Tree,
    slots::{BLOCK_SLOTS, Ordinal, Slots, posting_key},
    terms::{self, Clause},
};
use crate::{
    model::{ExchangeId, Timestamp},
    store::{
        reader::Reader,
        rows::{ExchangeRow, Query},
    },
};

/// The ids and times that a block spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) ids: (ExchangeId, ExchangeId),
    pub(super) times: (Timestamp, Timestamp),
}

impl Span {
    pub(super) fn of(id: ExchangeId, time: Timestamp) -> Self {
        Self { ids: (id, id), times: (time, time) }
    }

    pub(super) fn include(&mut self, id: ExchangeId, time: Timestamp) {
        self.ids = (self.ids.0.min(id), self.ids.1.max(id));
        self.times = (self.times.0.min(time), self.times.1.max(time));
    }

    pub(super) fn unite(&mut self, other: &Self) {
        self.include(other.ids.0, other.times.0);
        self.include(other.ids.1, other.times.1);
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut stored = Vec::with_capacity(48);
        for (id, time) in [(self.ids.0, self.times.0), (self.ids.1, self.times.1)] {
            stored.extend(encode_slot(id, time));
        }
        stored
    }

    pub(super) fn parse(stored: &[u8]) -> Result<Self, IndexError> {
        let (first, last) = stored.split_at(stored.len() / 2);
        let ((first, earliest), (last, latest)) = (parse_slot(first)?, parse_slot(last)?);
        Ok(Self { ids: (first, last), times: (earliest, latest) })
    }
}

/// The value of a slot: which exchange it is, and when it was received.
pub(super) fn encode_slot(id: ExchangeId, time: Timestamp) -> Vec<u8> {
    [&id.as_bytes()[..], &time.as_micros().to_be_bytes()].concat()
}

fn parse_slot(stored: &[u8]) -> Result<(ExchangeId, Timestamp), IndexError> {
    let doubt = || IndexError::Doubtful("a slot is malformed".into());
    let (id, micros) = stored.split_first_chunk().ok_or_else(doubt)?;
    let micros = i64::from_be_bytes(micros.try_into().map_err(|_| doubt())?);
    Ok((ExchangeId::from_bytes(*id), Timestamp::from_micros(micros)))
}

/// A block that may hold what is looked for.
struct Block {
    number: u64,
    first: ExchangeId,
}

impl Index {
    /// Gives the exchanges that the query selects, by id, until the visitor has enough. The limit is the
    /// visitor's.
    pub(in crate::store) fn search(
        &self,
        query: &Query,
        mut visit: impl FnMut(ExchangeRow) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let reader = Reader::on(&self.store);
        self.candidates(query, |row| {
            if query.selects(&row, || reader.ends_at(&row)) {
                visit(row)
            } else {
                ControlFlow::Continue(())
            }
        })
    }

    /// Gives the exchanges that the query may select, and all that it selects, by id, until the visitor has
    /// enough. The limit is the visitor's.
    pub(in crate::store) fn candidates(
        &self,
        query: &Query,
        mut visit: impl FnMut(ExchangeRow) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let clauses = terms::of_query(query);
        if clauses.is_empty() && query.since.is_none() && query.until.is_none() {
            return self.exchanges(query.after, visit);
        }
        let blocks = self.blocks(query)?;
        let mut waiting = BinaryHeap::new();
        for (i, block) in blocks.iter().enumerate() {
            let found = self.slots_of(block.number, &clauses)?;
            self.resolve(block.number, &found, query, |id| waiting.push(Reverse(id)))?;
            let next = blocks.get(i + 1).map(|block| block.first);
            while let Some(Reverse(id)) = waiting.peek().copied()
                && next.is_none_or(|next| id < next)
            {
                waiting.pop();
                let row = self.exchange(id)?;
                let row = row.ok_or_else(|| {
                    IndexError::Doubtful(format!("exchange {id} is indexed but not there"))
                })?;
                if visit(row).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The blocks that may hold what the query selects, by their least id.
    fn blocks(&self, query: &Query) -> Result<Vec<Block>, IndexError> {
        let (mut blocks, mut bad) = (Vec::new(), None);
        self.table.range(Tree::Blocks, None, &mut |key, stored| match Ordinal::parse(key)
            .and_then(|number| Ok((number.0, Span::parse(stored)?)))
        {
            Ok((number, Span { ids, times })) => {
                let may_hold = query.after.is_none_or(|after| ids.1 > after)
                    && query.since.is_none_or(|since| times.1 >= since)
                    && query.until.is_none_or(|until| times.0 < until);
                blocks.extend(may_hold.then_some(Block { number, first: ids.0 }));
                ControlFlow::Continue(())
            }
            Err(error) => {
                bad = Some(error);
                ControlFlow::Break(())
            }
        })?;
        blocks.sort_by_key(|block| block.first);
        bad.map_or(Ok(blocks), Err)
    }

    fn slots_of(&self, block: u64, clauses: &[Clause]) -> Result<Slots, IndexError> {
        let mut found = Slots::ALL;
        for clause in clauses {
            found.intersect(&self.evaluate(block, clause)?);
            if found.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    fn evaluate(&self, block: u64, clause: &Clause) -> Result<Slots, IndexError> {
        match clause {
            Clause::All(all) => self.slots_of(block, all),
            Clause::Any(any) => {
                let mut found = Slots::NONE;
                for clause in any {
                    found.unite(&self.evaluate(block, clause)?);
                }
                Ok(found)
            }
            Clause::Term(term) => {
                let mut found = Slots::NONE;
                let key = posting_key(block, term.as_bytes());
                if let Some(stored) = self.table.get(Tree::Postings, &key)? {
                    found.unite_stored(&stored)?;
                }
                Ok(found)
            }
            Clause::Prefix(prefix) => {
                let key = posting_key(block, prefix);
                let (mut found, mut bad) = (Slots::NONE, None);
                self.table.range(Tree::Postings, Some(&key), &mut |at, stored| {
                    if !at.starts_with(&key) {
                        return ControlFlow::Break(());
                    }
                    match found.unite_stored(stored) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(error) => {
                            bad = Some(error);
                            ControlFlow::Break(())
                        }
                    }
                })?;
                bad.map_or(Ok(found), Err)
            }
        }
    }

    /// The exchanges in these slots that are not excluded by time or cursor.
    fn resolve(
        &self,
        block: u64,
        slots: &Slots,
        query: &Query,
        mut found: impl FnMut(ExchangeId),
    ) -> Result<(), IndexError> {
        let mut take = |stored: &[u8]| -> Result<(), IndexError> {
            let (id, time) = parse_slot(stored)?;
            if query.after.is_none_or(|after| id > after)
                && query.since.is_none_or(|since| time >= since)
                && query.until.is_none_or(|until| time < until)
            {
                found(id);
            }
            Ok(())
        };
        if slots.len() <= SINGLY_MAX {
            for slot in slots.iter() {
                if let Some(stored) =
                    self.table.get(Tree::Slots, &Ordinal::of(block, slot).key())?
                {
                    take(&stored)?;
                }
            }
            return Ok(());
        }
        let before = (block * BLOCK_SLOTS as u64).checked_sub(1).map(|last| Ordinal(last).key());
        let mut bad = None;
        let after = before.as_ref().map(|key| &key[..]);
        self.table.range(Tree::Slots, after, &mut |key, stored| {
            let done = Ordinal::parse(key).and_then(|ordinal| {
                if ordinal.block() != block {
                    return Ok(ControlFlow::Break(()));
                }
                if slots.contains(ordinal.slot()) {
                    take(stored)?;
                }
                Ok(ControlFlow::Continue(()))
            });
            done.unwrap_or_else(|error| {
                bad = Some(error);
                ControlFlow::Break(())
            })
        })?;
        bad.map_or(Ok(()), Err)
    }
}

/// More slots than this of one block are found by reading the whole block.
const SINGLY_MAX: usize = 256;

//! Stored bodies against the hashes in their outcomes.

use std::collections::{HashMap, HashSet};

use crate::model::{
    BodyFacts, Chunk, Direction, Ending, ExchangeId, ExchangeOpened, ExchangeSettled, SessionId,
};

/// The bodies that are under way.
#[derive(Default)]
pub(super) struct Bodies {
    open: HashMap<(ExchangeId, Direction), Body>,
    whose: Whose,
    /// Exchanges that are not asked for, or, where they may have begun elsewhere, those that are.
    listed: HashSet<ExchangeId>,
    /// How many deletions had been passed when an exchange began.
    begun: HashMap<ExchangeId, u64>,
    /// How many deletions were passed: records, and runs of segments.
    pub(super) holes: u64,
    pub(super) partial: u64,
    pub(super) checked: u64,
}

/// Whose bodies are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Whose {
    /// Everybody's.
    #[default]
    All,
    /// Those of one session.
    Session(SessionId),
    /// Those of one exchange.
    Exchange(ExchangeId),
    /// Those of exchanges whose beginning is seen: one segment holds only parts of others.
    Begun,
}

struct Body {
    hasher: Box<blake3::Hasher>,
    bytes: u64,
    /// Where the last chunk ended.
    end: u64,
    is_contiguous: bool,
    is_ordered: bool,
}

impl Bodies {
    pub(super) fn of(whose: Whose) -> Self {
        Self { whose, ..Self::default() }
    }

    /// What an earlier run left open gets no more bytes.
    pub(super) fn run_ended(&mut self) {
        self.open.clear();
        self.begun.clear();
    }

    /// Says whether the exchange, or its session, is the one that is asked for.
    pub(super) fn opened(&mut self, opened: &ExchangeOpened) -> bool {
        let wanted = match self.whose {
            Whose::All | Whose::Begun => true,
            Whose::Session(session) => opened.session == Some(session),
            Whose::Exchange(exchange) => opened.exchange == exchange,
        };
        self.begun.insert(opened.exchange, self.holes);
        if wanted == (self.whose == Whose::Begun) {
            self.listed.insert(opened.exchange);
        }
        wanted
    }

    fn passes(&self, exchange: ExchangeId) -> bool {
        self.listed.contains(&exchange) != (self.whose == Whose::Begun)
    }

    pub(super) fn chunk(&mut self, chunk: &Chunk) {
        if self.passes(chunk.exchange) {
            return;
        }
        let body = self.open.entry((chunk.exchange, chunk.direction)).or_default();
        body.is_contiguous &= chunk.offset == body.bytes;
        body.is_ordered &= chunk.offset >= body.end;
        body.end = chunk.offset.saturating_add(chunk.data.len() as u64);
        body.bytes += chunk.data.len() as u64;
        body.hasher.update(&chunk.data);
    }

    pub(super) fn settled(&mut self, settled: &ExchangeSettled) -> Result<(), String> {
        let passes = self.passes(settled.exchange);
        self.listed.remove(&settled.exchange);
        let begun = self.begun.remove(&settled.exchange);
        // Where records were deleted since it began, some of them may have been of this body.
        let may_lack = self.holes > begun.unwrap_or(0);
        if passes {
            return Ok(());
        }
        for (direction, facts) in
            [(Direction::Request, &settled.request), (Direction::Response, &settled.response)]
        {
            let body = self.open.remove(&(settled.exchange, direction)).unwrap_or_default();
            // A store that failed meanwhile lost chunks, and the outcome says so.
            if settled.ending == Ending::RecorderFailed || settled.unrecorded {
                continue;
            }
            if body.is(facts) {
                self.checked += 1;
            } else if may_lack && body.may_be_part_of(facts) {
                self.partial += 1;
            } else {
                return Err(format!(
                    "the stored {direction:?} body of exchange {} is not the one that this outcome describes",
                    settled.exchange
                ));
            }
        }
        Ok(())
    }
}

impl Default for Body {
    fn default() -> Self {
        let hasher = Box::default();
        Self { hasher, bytes: 0, end: 0, is_contiguous: true, is_ordered: true }
    }
}

impl Body {
    /// Whether what is there can be what deletion left.
    fn may_be_part_of(&self, facts: &BodyFacts) -> bool {
        self.is_ordered && self.end <= facts.stored_bytes && self.bytes < facts.stored_bytes
    }

    fn is(&self, facts: &BodyFacts) -> bool {
        self.is_contiguous
            && self.bytes == facts.stored_bytes
            && (facts.hash.is_empty() || self.hasher.finalize().to_hex().as_str() == facts.hash)
    }
}

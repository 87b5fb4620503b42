//! What the writer gives the index, and the thread that takes it.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Index, IndexError, Position};
use crate::{
    model::Record,
    store::{
        format::ChainHash,
        live_rows::LiveRowsError,
        queue::{chain, lock},
    },
};

/// What somebody wants to know of the rows. Dropped when there is no index to ask.
pub(in crate::store) type Question = Box<dyn FnOnce(&Index) + Send>;

/// A written record, for the index.
pub(in crate::store) struct Item {
    pub(in crate::store) at: Position,
    /// The offset after it.
    pub(in crate::store) end: u64,
    pub(in crate::store) hash: ChainHash,
    pub(in crate::store) record: Record,
}

/// How the index fares. The gateway does not need it to record.
#[derive(Clone, Debug, Default)]
pub struct IndexHealth {
    /// Why it is not kept any more; the next start builds it anew.
    pub error: Option<String>,
    /// Records that wait for it.
    pub queued: usize,
    /// Its size on disk.
    pub disk_bytes: u64,
}

#[derive(Default)]
struct State {
    items: Vec<Item>,
    /// Answered when the records that came before them are indexed.
    questions: Vec<Question>,
    /// The queue overflowed: what is missing is read from the segments, up to here.
    behind: Option<Position>,
    /// Records were deleted: the rows are made anew from what is left.
    renew: bool,
    stop: bool,
    dead: bool,
    idle: bool,
    health: IndexHealth,
}

/// The bounded queue between the writer and the index.
#[derive(Default)]
pub(in crate::store) struct Feed {
    state: Mutex<State>,
    wake: Condvar,
}

impl Feed {
    /// Hands written records over without waiting. When the index is too slow they are not kept for it:
    /// it reads them from the segments instead.
    pub(in crate::store) fn push(&self, items: &mut Vec<Item>) {
        let mut state = lock(&self.state);
        let Some(last) = items.last().filter(|_| !state.dead) else {
            drop(state);
            items.clear();
            return;
        };
        let end = Position { segment: last.at.segment, offset: last.end };
        if state.behind.is_some() || state.items.len() + items.len() > QUEUE_RECORDS_MAX {
            state.behind = Some(end);
            let late = std::mem::take(&mut state.items);
            drop(state);
            drop(late);
            items.clear();
            return;
        }
        state.items.append(items);
        if std::mem::take(&mut state.idle) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Lets the rows be made anew from the segments, behind the data path.
    pub(in crate::store) fn renew(&self) {
        lock(&self.state).renew = true;
        self.wake.notify_one();
    }

    /// Puts a question, to be answered by the index's thread after all records that were pushed before.
    pub(in crate::store) fn ask(&self, question: Question) -> Result<(), LiveRowsError> {
        let mut state = lock(&self.state);
        if state.dead || state.stop {
            return Err(LiveRowsError::NoIndex);
        }
        if state.questions.len() >= QUESTIONS_MAX {
            return Err(LiveRowsError::Busy);
        }
        state.questions.push(question);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    pub(in crate::store) fn stop(&self) {
        lock(&self.state).stop = true;
        self.wake.notify_one();
    }

    pub(in crate::store) fn health(&self) -> IndexHealth {
        let state = lock(&self.state);
        IndexHealth { queued: state.items.len(), ..state.health.clone() }
    }

    /// There is no index to feed.
    pub(in crate::store) fn give_up(&self, error: &dyn std::error::Error) {
        let mut state = lock(&self.state);
        state.dead = true;
        state.items = Vec::new();
        state.questions = Vec::new();
        state.health.error = Some(chain(error));
    }

    /// The thread: ends when it is stopped and has taken everything, or at the index's first error.
    pub(in crate::store) fn run(&self, index: Index) {
        let store = index.store.clone();
        let closed = self.follow(index).and_then(Index::close);
        if lock(&self.state).renew {
            super::distrust(&store);
        }
        if let Err(error) = closed {
            super::distrust(&store);
            tracing::error!(error = %chain(&error), "the index failed; the next start rebuilds it");
            self.give_up(&error);
        }
    }

    fn follow(&self, mut index: Index) -> Result<Index, IndexError> {
        let mut durable = Instant::now();
        let mut dirty = false;
        loop {
            let Work { items, behind, questions, renew, stop } = self.take(dirty);
            dirty |= !items.is_empty() || behind.is_some() || renew;
            if renew {
                index = index.renew()?;
            }
            // First what was queued before the overflow, if anything: rows must come in order.
            index.take(&items)?;
            if behind.is_some() {
                index.catch_up(behind)?;
            }
            for question in questions {
                question(&index);
            }
            if dirty && durable.elapsed() >= DURABLE_INTERVAL {
                index.table.durable()?;
                (durable, dirty) = (Instant::now(), false);
                lock(&self.state).health.disk_bytes = index.table.stats()?;
            }
            if stop {
                return Ok(index);
            }
        }
    }

    fn take(&self, dirty: bool) -> Work {
        let mut state = lock(&self.state);
        let pressing = |state: &State| state.stop || !state.questions.is_empty();
        let work = |state: &State| {
            !state.items.is_empty() || state.behind.is_some() || state.renew || pressing(state)
        };
        if !work(&state) {
            state.idle = true;
            state = if dirty {
                let woken = self.wake.wait_timeout(state, DURABLE_INTERVAL);
                woken.unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.wake.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
            state.idle = false;
        }
        if work(&state) && !pressing(&state) {
            // An exchange that opens and settles meanwhile is then put once.
            let woken = self.wake.wait_timeout(state, GATHER);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Work {
            items: std::mem::take(&mut state.items),
            behind: state.behind.take(),
            questions: std::mem::take(&mut state.questions),
            renew: std::mem::take(&mut state.renew),
            stop: state.stop,
        }
    }
}

/// What the thread has to do next.
struct Work {
    items: Vec<Item>,
    behind: Option<Position>,
    questions: Vec<Question>,
    renew: bool,
    stop: bool,
}

/// Beyond so many waiting records the index reads the segments instead.
const QUEUE_RECORDS_MAX: usize = 16 << 10;
/// More questions at a time are refused.
const QUESTIONS_MAX: usize = 64;
/// How long records gather before they are indexed.
const GATHER: Duration = Duration::from_millis(100);
/// How often the rows are made durable: a crash costs reading what came since.
const DURABLE_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_bounded_and_end_with_the_thread() {
        let feed = Feed::default();
        let question = || -> Question { Box::new(|_| {}) };
        for _ in 0..QUESTIONS_MAX {
            feed.ask(question()).expect("there is room");
        }
        assert!(matches!(feed.ask(question()), Err(LiveRowsError::Busy)));
        // Whoever waits hears that there will be no answer: the question is dropped.
        let (held, dropped) = std::sync::mpsc::channel::<()>();
        lock(&feed.state).questions[0] = Box::new(move |_| drop(held));
        feed.give_up(&IndexError::Doubtful("a test".into()));
        assert!(dropped.recv().is_err());
        assert!(matches!(feed.ask(question()), Err(LiveRowsError::NoIndex)));
        let stopped = Feed::default();
        stopped.stop();
        assert!(matches!(stopped.ask(question()), Err(LiveRowsError::NoIndex)));
    }
}

//! What the writer gives the index, and the thread that takes it.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Index, IndexError, Position, Table as _};
use crate::{
    model::Record,
    store::{
        format::ChainHash,
        queue::{chain, lock},
    },
};

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
    /// The queue overflowed: what is missing is read from the segments, up to here.
    behind: Option<Position>,
    /// Records were deleted: the rows are made anew from what is left.
    renew: bool,
    stop: bool,
    dead: bool,
    idle: bool,
    health: IndexHealth,
}

/// What the thread has to do.
struct Taken {
    items: Vec<Item>,
    behind: Option<Position>,
    renew: bool,
    stop: bool,
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
        state.health.error = Some(chain(error));
    }

    /// The thread: ends when it is stopped and has taken everything, or at the index's first error.
    pub(in crate::store) fn run(&self, index: Index) {
        let store = index.store.clone();
        if let Err(error) = self.follow(index).and_then(Index::close) {
            super::distrust(&store);
            tracing::error!(error = %chain(&error), "the index failed; the next start rebuilds it");
            self.give_up(&error);
        }
    }

    fn follow(&self, mut index: Index) -> Result<Index, IndexError> {
        let mut durable = Instant::now();
        let mut dirty = false;
        loop {
            let Taken { items, behind, renew, stop } = self.take(dirty);
            dirty |= !items.is_empty() || behind.is_some() || renew;
            if renew {
                index = index.renew()?;
            }
            // First what was queued before the overflow, if anything: rows must come in order.
            index.take(&items)?;
            if behind.is_some() {
                index.catch_up(behind)?;
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

    fn take(&self, dirty: bool) -> Taken {
        let mut state = lock(&self.state);
        let work = |state: &State| {
            !state.items.is_empty() || state.behind.is_some() || state.renew || state.stop
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
        if work(&state) && !state.stop {
            // An exchange that opens and settles meanwhile is then put once.
            let woken = self.wake.wait_timeout(state, GATHER);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Taken {
            items: std::mem::take(&mut state.items),
            behind: state.behind.take(),
            renew: std::mem::take(&mut state.renew),
            stop: state.stop,
        }
    }
}

/// Beyond so many waiting records the index reads the segments instead.
const QUEUE_RECORDS_MAX: usize = 16 << 10;
/// How long records gather before they are indexed.
const GATHER: Duration = Duration::from_millis(100);
/// How often the rows are made durable: a crash costs reading what came since.
const DURABLE_INTERVAL: Duration = Duration::from_secs(5);

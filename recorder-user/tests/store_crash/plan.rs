//! What goes wrong, and when: all of it follows from the seed and from counts of operations.

use crate::chance::Chance;

/// What is done to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Operation {
    Create,
    Open,
    Write,
    Read,
    Allocate,
    Cut,
    Sync,
    Rename,
    Remove,
    SyncDirectory,
    MakeDirectory,
}

/// What comes of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Works,
    /// It fails with this error; a write may have written a part.
    Fails(i32),
    /// The process ends in the middle of it.
    Ends,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine loses power.
    Power,
    /// The process alone is killed.
    Kill,
}

/// A disk that does not do what it says; the suite must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// `fdatasync` says that it has flushed, and has not.
    Sync,
    /// `fsync` of a directory says so, and has not.
    SyncDirectory,
    /// A write says that it wrote, and has not.
    Write,
}

/// One life's faults.
pub(crate) struct Plan {
    seed: u64,
    life: u64,
    /// The operation in which it ends.
    ends_at: Option<u64>,
    pub(crate) end: End,
    /// One in so many operations of a kind fails; none in a calm life.
    fails: Option<u64>,
    /// From this operation on the disk is full or read-only, for a while.
    weather: Option<(u64, u64, i32)>,
    done: u64,
    of_kind: [u64; 11],
    /// How many have failed so far.
    pub(crate) failed: u64,
}

impl Plan {
    pub(crate) fn of(seed: u64, life: u64) -> Self {
        let chance = &mut Chance::of(&[seed, life, 1]);
        // Early ones hit the start and its recovery, late ones the work.
        let ends_at = match chance.below(8) {
            0 => None,
            1..=3 => Some(chance.below(16)),
            _ => Some(chance.below(80)),
        };
        let end = if chance.one_in(3) { End::Kill } else { End::Power };
        let fails = (!chance.one_in(2)).then(|| 6 + chance.below(40));
        let weather = chance.one_in(4).then(|| {
            let from = chance.below(60);
            let error = if chance.one_in(2) { ENOSPC } else { EROFS };
            (from, from + 1 + chance.below(20), error)
        });
        Self { seed, life, ends_at, end, fails, weather, done: 0, of_kind: [0; 11], failed: 0 }
    }

    /// Nothing goes wrong.
    pub(crate) fn calm(seed: u64, life: u64) -> Self {
        Self { ends_at: None, fails: None, weather: None, ..Self::of(seed, life) }
    }

    /// What comes of the next operation, and numbers for its details. The nth of a kind has the same fate
    /// however the threads interleave; when the life ends is counted over all.
    pub(crate) fn next(&mut self, operation: Operation) -> (Fate, Chance) {
        let now = self.done;
        self.done += 1;
        let kind = operation as usize;
        let nth = self.of_kind[kind];
        self.of_kind[kind] += 1;
        let mut chance = Chance::of(&[self.seed, self.life, 2, kind as u64, nth]);
        if self.ends_at == Some(now) {
            return (Fate::Ends, chance);
        }
        let fate = match self.weather {
            Some((from, until, error)) if (from..until).contains(&now) => weather(operation, error),
            _ => Fate::Works,
        };
        let fate = match self.fails {
            Some(n) if fate == Fate::Works && chance.one_in(n) => {
                Fate::Fails(error(operation, &mut chance))
            }
            _ => fate,
        };
        self.failed += u64::from(fate != Fate::Works);
        (fate, chance)
    }
}

/// A full or a read-only disk.
fn weather(operation: Operation, error: i32) -> Fate {
    let full = error == ENOSPC;
    match operation {
        Operation::Create | Operation::Write | Operation::Allocate | Operation::MakeDirectory => {
            Fate::Fails(error)
        }
        Operation::Open | Operation::Cut | Operation::Rename | Operation::Remove if !full => {
            Fate::Fails(error)
        }
        _ => Fate::Works,
    }
}

fn error(operation: Operation, chance: &mut Chance) -> i32 {
    let errors: &[i32] = match operation {
        Operation::Create | Operation::MakeDirectory | Operation::Rename => &[EIO, ENOSPC, EMFILE],
        Operation::Allocate => &[EIO, ENOSPC, EDQUOT, EOPNOTSUPP],
        // With delayed allocation a full disk may show only here.
        Operation::Write | Operation::Sync => &[EIO, ENOSPC, EDQUOT],
        _ => &[EIO],
    };
    errors[chance.index(errors.len())]
}

pub(crate) const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EOPNOTSUPP: i32 = 95;
const EDQUOT: i32 = 122;

//! What is on the platter, what is only in the page cache, and what a power cut makes of the two.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::chance::Chance;

/// A power cut tears writes here.
const SECTOR_BYTES: usize = 512;

/// A file's bytes.
#[derive(Default)]
pub(crate) struct Inode {
    /// As any process sees it.
    pub(crate) cached: Vec<u8>,
    /// As it is after a power cut, if nothing of `dirty` gets there.
    pub(crate) platter: Vec<u8>,
    /// What was changed since, in order.
    dirty: Vec<Change>,
    /// How often it was written to.
    pub(crate) writes: u64,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at..end].copy_from_slice(bytes);
            }
            Self::Length(length) => to.resize(*length, 0),
        }
    }
}

impl Inode {
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.change(Change::Write { at, bytes: bytes.to_vec() });
        self.writes += 1;
    }

    pub(crate) fn set_len(&mut self, length: usize) {
        self.change(Change::Length(length));
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.dirty.push(change);
    }

    /// All of it reaches the platter. What a failed flush has marked clean does not.
    pub(crate) fn sync(&mut self) {
        for change in self.dirty.drain(..) {
            change.apply(&mut self.platter);
        }
    }

    /// Any part of it reached the platter, and all of it counts as clean from here on. With `evict` the
    /// kernel also drops the pages, so that a read gives what the platter has.
    pub(crate) fn fail_to_sync(&mut self, chance: &mut Chance, evict: bool) {
        let length = self.cached.len();
        self.settle(chance);
        if evict {
            self.cached.clone_from(&self.platter);
            self.cached.resize(length, 0);
        }
        // The length is in the inode, which stays dirty.
        self.dirty = vec![Change::Length(length)];
    }

    /// The power is cut: each sector is as it was after any of the changes, and so is the length.
    pub(crate) fn cut(&mut self, chance: &mut Chance) {
        self.settle(chance);
        self.cached.clone_from(&self.platter);
    }

    fn settle(&mut self, chance: &mut Chance) {
        let changes = std::mem::take(&mut self.dirty);
        let mut version = self.platter.clone();
        let mut versions = vec![version.clone()];
        for change in &changes {
            change.apply(&mut version);
            versions.push(version.clone());
        }
        let longest = versions.iter().map(Vec::len).max().unwrap_or_default();
        // Now and then everything or nothing: what is likely on a real disk.
        let all_at = match chance.below(4) {
            0 => Some(0),
            1 => Some(versions.len() - 1),
            _ => None,
        };
        let mut pick = || all_at.unwrap_or_else(|| chance.index(versions.len()));
        let length = versions[pick()].len();
        let mut platter = vec![0; longest];
        for at in (0..longest).step_by(SECTOR_BYTES) {
            let from = &versions[pick()];
            let end = (at + SECTOR_BYTES).min(from.len());
            if at < end {
                platter[at..end].copy_from_slice(&from[at..end]);
            }
        }
        platter.truncate(length);
        self.platter = platter;
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File(usize),
}

/// The names: as any process sees them, and as they are after a power cut.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) cached: BTreeMap<PathBuf, Node>,
    pub(crate) platter: BTreeMap<PathBuf, Node>,
    dirty: Vec<(PathBuf, Entry)>,
}

#[derive(Clone)]
enum Entry {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

impl Entry {
    fn apply(&self, to: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Add(path, node) => {
                to.insert(path.clone(), *node);
            }
            Self::Remove(path) => {
                to.remove(path);
            }
            Self::Rename(from, new, node) => {
                to.remove(from);
                to.insert(new.clone(), *node);
            }
        }
    }
}

impl Names {
    pub(crate) fn add(&mut self, path: &Path, node: Node) {
        self.change(path, Entry::Add(path.to_owned(), node));
    }

    pub(crate) fn remove(&mut self, path: &Path) {
        self.change(path, Entry::Remove(path.to_owned()));
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) {
        let node = *self.cached.get(from).expect("the caller has looked");
        self.change(to, Entry::Rename(from.to_owned(), to.to_owned(), node));
    }

    fn change(&mut self, path: &Path, entry: Entry) {
        entry.apply(&mut self.cached);
        let directory = path.parent().expect("a file is in a directory");
        self.dirty.push((directory.to_owned(), entry));
    }

    /// Everything in this directory is durable.
    pub(crate) fn sync(&mut self, directory: &Path) {
        let (now, later) =
            std::mem::take(&mut self.dirty).into_iter().partition(|(of, _)| of == directory);
        self.dirty = later;
        for (_, entry) in now {
            entry.apply(&mut self.platter);
        }
    }

    /// The power is cut: of what was changed, the first part is there as in a journal, or any part.
    pub(crate) fn cut(&mut self, chance: &mut Chance) {
        let dirty = std::mem::take(&mut self.dirty);
        let kept = if chance.one_in(2) {
            let first = chance.index(dirty.len() + 1);
            dirty[..first].to_vec()
        } else {
            dirty.into_iter().filter(|_| chance.one_in(2)).collect()
        };
        for (_, entry) in kept {
            entry.apply(&mut self.platter);
        }
        // What is in a directory that is not there is not there either.
        let known = self.platter.clone();
        let lives = |path: &Path| {
            let mut above = path.ancestors().skip(1);
            above.all(|above| known.contains_key(above) || is_outside(above, &self.cached))
        };
        self.platter.retain(|path, _| lives(path));
        self.cached.clone_from(&self.platter);
    }
}

/// Whether a directory was there before the simulation, and so always is.
fn is_outside(path: &Path, cached: &BTreeMap<PathBuf, Node>) -> bool {
    !cached.contains_key(path)
}

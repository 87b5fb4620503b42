//! The pieces of bodies that later ones may be told by.

use std::collections::{HashMap, VecDeque};

use super::super::exchanges::Topic;
use crate::model::{Chunk, Direction};

/// A piece of a body that is stored whole.
pub(super) struct Base {
    /// Where its record begins.
    pub(super) offset: u64,
    pub(super) data: Box<[u8]>,
}

/// Which piece of which body: of the same request in the same session, in this direction, from this byte on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    topic: Topic,
    direction: Direction,
    offset: u64,
}

impl Place {
    /// Where a piece belongs; none when it is far into a body, or too long to be kept.
    pub(super) fn of(topic: Topic, chunk: &Chunk) -> Option<Self> {
        let (direction, offset) = (chunk.direction, chunk.offset);
        (offset < OFFSET_MAX && chunk.data.len() <= BASE_BYTES_MAX).then_some(Self {
            topic,
            direction,
            offset,
        })
    }
}

/// Pieces that were stored whole lately.
#[derive(Default)]
pub(super) struct Bases {
    bases: HashMap<Place, Base>,
    /// In the order in which they came, so that the oldest can go.
    order: VecDeque<Place>,
    bytes: usize,
}

impl Bases {
    pub(super) fn get(&self, place: Place) -> Option<&Base> {
        self.bases.get(&place)
    }

    pub(super) fn put(&mut self, place: Place, base: Base) {
        self.bytes += base.data.len();
        match self.bases.insert(place, base) {
            Some(old) => self.bytes -= old.data.len(),
            None => self.order.push_back(place),
        }
        while self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(base) = self.bases.remove(&oldest) {
                self.bytes -= base.data.len();
            }
        }
    }
}

/// All pieces together; the oldest go first.
const BYTES_MAX: usize = 16 << 20;
/// A longer piece is no base: it would push out too many others.
const BASE_BYTES_MAX: usize = 256 << 10;
/// What is further into a body does not come again: it is a stream.
const OFFSET_MAX: u64 = 8 << 20;

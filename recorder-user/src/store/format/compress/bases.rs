//! The pieces of bodies that later ones may be told by.

use std::collections::{HashMap, VecDeque};

use crate::model::{Chunk, Direction, ExchangeId, ExchangeOpened, Record};

/// A piece of a body that is stored whole.
pub(super) struct Base {
    /// Where its record begins.
    pub(super) offset: u64,
    pub(super) data: Box<[u8]>,
}

/// Which piece of which body: of the same request in the same session, in this direction, from this byte on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    topic: [u8; 16],
    direction: Direction,
    offset: u64,
}

/// Pieces that were stored whole lately, and which exchanges may use them.
#[derive(Default)]
pub(super) struct Bases {
    topics: HashMap<ExchangeId, [u8; 16]>,
    bases: HashMap<Place, Base>,
    /// In the order in which they came, so that the oldest can go.
    order: VecDeque<Place>,
    bytes: usize,
}

impl Bases {
    /// Takes notice of exchanges that begin and end.
    pub(super) fn see(&mut self, record: &Record) {
        match record {
            Record::ExchangeOpened(opened) if self.topics.len() < TOPICS_MAX => {
                if let Some(topic) = topic(opened) {
                    self.topics.insert(opened.exchange, topic);
                }
            }
            Record::ExchangeSettled(settled) => {
                self.topics.remove(&settled.exchange);
            }
            _ => {}
        }
    }

    /// Where a piece belongs; none when it cannot repeat, or is far into a body.
    pub(super) fn place(&self, chunk: &Chunk) -> Option<Place> {
        let topic = *self.topics.get(&chunk.exchange)?;
        let (direction, offset) = (chunk.direction, chunk.offset);
        (offset < OFFSET_MAX && chunk.data.len() <= BASE_BYTES_MAX).then_some(Place {
            topic,
            direction,
            offset,
        })
    }

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

/// What makes two requests the same one asked again. A client must not be able to find two that are not: it
/// would see from sizes what another session read.
fn topic(opened: &ExchangeOpened) -> Option<[u8; 16]> {
    let (session, head) = (opened.session?, opened.head.as_ref()?);
    let mut hasher = blake3::Hasher::new();
    hasher.update(session.as_bytes());
    hasher.update(head.method.as_bytes());
    hasher.update(b" ");
    hasher.update(head.target.as_bytes());
    hasher.finalize().as_bytes().first_chunk().copied()
}

/// All pieces together; the oldest go first.
const BYTES_MAX: usize = 16 << 20;
/// A longer piece is no base: it would push out too many others.
const BASE_BYTES_MAX: usize = 256 << 10;
/// What is further into a body does not come again: it is a stream.
const OFFSET_MAX: u64 = 8 << 20;
/// So many exchanges at once are followed; what is beyond is stored whole.
const TOPICS_MAX: usize = 1 << 14;

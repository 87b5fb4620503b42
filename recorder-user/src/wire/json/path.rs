//! Where in a document the scanner stands.

use super::{DEPTH_MAX, PATH_BYTES_MAX};

/// The containers around a value, outermost first, each with the member that is being read.
#[derive(Debug, Default)]
pub struct Path {
    frames: Vec<Frame>,
    keys: Vec<u8>,
}

#[derive(Debug)]
struct Frame {
    array: bool,
    key_start: usize,
}

/// One step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// A member of an object, its key decoded (not necessarily UTF-8).
    Key(&'a [u8]),
    /// An element of an array.
    Index,
}

impl Path {
    /// How many steps from the document to the value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether this is the document itself.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The steps, outermost first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = Segment<'_>> + Clone {
        (0..self.frames.len()).map(|depth| self.at(depth))
    }

    /// The steps into objects only, outermost first: arrays are seen through.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.segments().filter_map(|segment| match segment {
            Segment::Key(key) => Some(key),
            Segment::Index => None,
        })
    }

    /// The step at `depth`, 0 being the outermost.
    #[must_use]
    pub fn get(&self, depth: usize) -> Option<Segment<'_>> {
        (depth < self.frames.len()).then(|| self.at(depth))
    }

    /// The innermost step.
    #[must_use]
    pub fn last(&self) -> Option<Segment<'_>> {
        self.frames.len().checked_sub(1).map(|depth| self.at(depth))
    }

    fn at(&self, depth: usize) -> Segment<'_> {
        let frame = &self.frames[depth];
        if frame.array {
            return Segment::Index;
        }
        let end = self.frames.get(depth + 1).map_or(self.keys.len(), |next| next.key_start);
        Segment::Key(&self.keys[frame.key_start..end])
    }

    pub(super) fn in_array(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.array)
    }

    /// Enters a container; none at the bound.
    pub(super) fn push(&mut self, array: bool) -> Option<()> {
        if self.frames.len() >= DEPTH_MAX {
            return None;
        }
        self.frames.push(Frame { array, key_start: self.keys.len() });
        Some(())
    }

    pub(super) fn pop(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.keys.truncate(frame.key_start);
        }
    }

    pub(super) fn begin_key(&mut self) {
        if let Some(frame) = self.frames.last() {
            self.keys.truncate(frame.key_start);
        }
    }

    /// Appends to the innermost key; none at the bound.
    pub(super) fn extend_key(&mut self, bytes: &[u8]) -> Option<()> {
        if self.keys.len() + bytes.len() > PATH_BYTES_MAX {
            return None;
        }
        self.keys.extend_from_slice(bytes);
        Some(())
    }
}

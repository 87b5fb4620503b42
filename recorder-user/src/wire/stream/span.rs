//! A run of one side's bytes: whatever is cut off it still knows where it lies and how it is masked.

use super::event::Payload;

#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    wire: &'a [u8],
    /// Where `wire` begins in the pushed buffer.
    start: usize,
    /// Where `wire` begins in all that the side sent.
    offset: u64,
    mask: Option<[u8; 4]>,
}

impl<'a> Span<'a> {
    /// Bytes that begin at `start` of a pushed buffer, and at `offset` of their side.
    pub(super) fn new(wire: &'a [u8], start: usize, offset: u64) -> Self {
        Self { wire, start, offset, mask: None }
    }

    /// The same bytes under a masking key. WebSocket frames do not nest, so there is none yet.
    pub(super) fn masked(self, mask: Option<[u8; 4]>) -> Self {
        Self { mask, ..self }
    }

    pub(super) fn len(&self) -> usize {
        self.wire.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    /// Offset of the first byte in all that the side sent.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Cuts off the first `count` bytes, or all where there are fewer.
    pub(super) fn take(&mut self, count: u64) -> Self {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.wire.len());
        let (head, tail) = self.wire.split_at(count);
        let taken = Self { wire: head, ..*self };
        self.wire = tail;
        self.start += count;
        self.offset += count as u64;
        self.mask = self.mask.map(|key| rotated(key, count));
        taken
    }

    /// Cuts off as many bytes as `buffer` has room for after the first `filled`, unmasked. Returns how many
    /// bytes `buffer` then holds.
    pub(super) fn fill(&mut self, buffer: &mut [u8], filled: usize) -> usize {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let part = self.take(room.len() as u64);
        for (to, byte) in room.iter_mut().zip(part.unmasked()) {
            *to = byte;
        }
        filled + part.len()
    }

    /// The bytes without their mask.
    pub(super) fn unmasked(&self) -> impl Iterator<Item = u8> + use<'a> {
        let key = self.mask.unwrap_or_default();
        self.wire.iter().enumerate().map(move |(index, byte)| byte ^ key[index % 4])
    }

    pub(super) fn append_to(&self, buffer: &mut Vec<u8>) {
        match self.mask {
            None => buffer.extend_from_slice(self.wire),
            Some(_) => buffer.extend(self.unmasked()),
        }
    }

    pub(super) fn payload(&self, opens: bool) -> Payload<'a> {
        Payload { wire: self.wire, start: self.start, mask: self.mask, opens }
    }
}

/// The key as it applies `count` bytes further on.
pub(super) fn rotated(mut key: [u8; 4], count: usize) -> [u8; 4] {
    key.rotate_left(count % 4);
    key
}

/// Bytes that are not what the protocol allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Offset of the frame in the side's bytes.
    pub(super) offset: u64,
    pub(super) reason: &'static str,
}

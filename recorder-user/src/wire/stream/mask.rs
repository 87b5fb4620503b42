//! The record of stdin as sizes: the same bytes, with zeros for what was typed or copied.

use super::{
    decoder::Decoder,
    event::{Agreement, Channel, Event, EventKind, Payload, Protocol, Side},
};

/// Replaces a client's stdin in a copy of its bytes, in the same pass that decodes them.
///
/// The copy has the length of the original and decodes to the same events, with zeros for the data of
/// stdin and of channels that the protocol does not name. From where the client's bytes are not understood on,
/// all of them are zeros.
#[derive(Debug)]
pub struct StdinMask {
    base64: bool,
    masked_bytes: u64,
    /// The client's bytes are not understood any more.
    lost: bool,
}

impl StdinMask {
    /// For a connection of this kind.
    #[must_use]
    pub fn new(agreement: &Agreement) -> Self {
        let base64 = matches!(
            agreement.protocol,
            Protocol::RemoteCommand { base64: true, .. }
                | Protocol::PortForwardChannels { base64: true }
        );
        Self { base64, masked_bytes: 0, lost: false }
    }

    /// Bytes that were replaced so far, as they are on the wire.
    #[must_use]
    pub fn masked_bytes(&self) -> u64 {
        self.masked_bytes
    }

    /// [`Decoder::push`] of the client's next bytes. `copy` holds the same bytes, and is what may be
    /// recorded afterwards.
    ///
    /// # Panics
    /// When `copy` is shorter than `bytes`.
    pub fn push(
        &mut self,
        decoder: &mut Decoder,
        bytes: &[u8],
        copy: &mut [u8],
        on: &mut dyn FnMut(Event<'_>),
    ) {
        let copy = &mut copy[..bytes.len()];
        if self.lost {
            decoder.push(Side::Client, bytes, on);
            return self.clear(copy);
        }
        let before = decoder.bytes(Side::Client);
        let mut clear_from = None;
        decoder.push(Side::Client, bytes, &mut |event| {
            match &event.kind {
                EventKind::Data { channel: Channel::Stdin | Channel::Unknown(_), data } => {
                    self.blank(data, copy);
                }
                // The frame may have begun in an earlier push, where only its head can have been.
                EventKind::Undecodable { offset, .. } => {
                    clear_from = Some(offset.saturating_sub(before));
                }
                _ => {}
            }
            on(event);
        });
        if let Some(from) = clear_from {
            self.lost = true;
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(copy.len());
            self.clear(&mut copy[from..]);
        }
    }

    fn clear(&mut self, copy: &mut [u8]) {
        copy.fill(0);
        self.masked_bytes += copy.len() as u64;
    }

    /// Writes what decodes to zeros: the masking key alone, or in base64 an `A` for each character that is
    /// neither padding nor line end, so that sizes stay.
    fn blank(&mut self, data: &Payload<'_>, copy: &mut [u8]) {
        let key = data.mask.unwrap_or_default();
        let copy = copy[data.start..][..data.wire.len()].iter_mut();
        for ((byte, wire), key) in copy.zip(data.wire).zip(key.iter().cycle()) {
            let kept = self.base64 && matches!(wire ^ key, b'=' | b'\r' | b'\n');
            let zero = if self.base64 { b'A' } else { 0 };
            *byte = if kept { *wire } else { zero ^ key };
        }
        self.masked_bytes += data.wire.len() as u64;
    }
}

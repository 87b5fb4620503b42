//! Payloads of the base64 forms, which come in pieces that cut quads of characters.

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};

use super::event::Payload;

/// As Go's `StdEncoding`, which the servers use: padding is a must, and the bits under it may be anything.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A message is not base64. The server drops such a message whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is not base64")]
pub struct NotBase64;

/// Decodes the payloads of one channel and side, and carries the characters of a quad that is not whole
/// from one piece to the next.
///
/// [`Payload`] stays what is on the wire, so that the live path copies nothing; whoever wants the plain
/// bytes of a base64 form ([`super::Protocol`] tells) keeps one of these for each channel and side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Base64Carry {
    quad: [u8; 4],
    quad_bytes: usize,
    message: Message,
}

/// What may follow in a message.
#[derive(Clone, Copy, Debug, Default)]
enum Message {
    #[default]
    Open,
    /// Nothing, after padding.
    Padded,
    /// It is not base64.
    Bad,
}

impl Base64Carry {
    /// Between messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes the next piece and appends what is whole to `plain`. Each message is base64 of its own, so
    /// characters left over from an earlier one are dropped.
    ///
    /// # Errors
    /// When the message is not base64, also for all of its further pieces; the quads before are appended.
    pub fn push(&mut self, piece: &Payload<'_>, plain: &mut Vec<u8>) -> Result<(), NotBase64> {
        if piece.opens {
            *self = Self::new();
        }
        let text = piece.unmasked();
        // The decoder on the other side passes over line ends.
        let decoded = if text.iter().any(|byte| is_line_end(*byte)) {
            let text: Vec<u8> = text.iter().copied().filter(|byte| !is_line_end(*byte)).collect();
            self.decode(&text, plain)
        } else {
            self.decode(&text, plain)
        };
        if decoded.is_err() {
            self.message = Message::Bad;
        }
        decoded
    }

    fn decode(&mut self, mut text: &[u8], plain: &mut Vec<u8>) -> Result<(), NotBase64> {
        if self.quad_bytes > 0 {
            let missing = (self.quad.len() - self.quad_bytes).min(text.len());
            let (head, tail) = text.split_at(missing);
            self.quad[self.quad_bytes..][..missing].copy_from_slice(head);
            self.quad_bytes += missing;
            text = tail;
            if self.quad_bytes < self.quad.len() {
                return Ok(());
            }
            self.quad_bytes = 0;
            let quad = self.quad;
            self.decode_quads(&quad, plain)?;
        }
        let (whole, rest) = text.split_at(text.len() - text.len() % 4);
        self.decode_quads(whole, plain)?;
        self.quad[..rest.len()].copy_from_slice(rest);
        self.quad_bytes = rest.len();
        Ok(())
    }

    fn decode_quads(&mut self, quads: &[u8], plain: &mut Vec<u8>) -> Result<(), NotBase64> {
        if quads.is_empty() {
            return Ok(());
        }
        if !matches!(self.message, Message::Open) {
            return Err(NotBase64);
        }
        let before = plain.len();
        if BASE64.decode_vec(quads, plain).is_ok() {
            if quads.ends_with(b"=") {
                self.message = Message::Padded;
            }
            return Ok(());
        }
        plain.truncate(before);
        if quads.len() == self.quad.len() {
            return Err(NotBase64);
        }
        // Up to the quad that is wrong, as if each had come alone.
        quads.chunks(self.quad.len()).try_for_each(|quad| self.decode_quads(quad, plain))
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

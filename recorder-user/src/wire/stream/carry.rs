//! Payloads of the base64 forms, which come in pieces that cut quads of characters.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::event::Payload;

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
    /// When the piece is not base64; what comes before is appended.
    pub fn push(&mut self, piece: &Payload<'_>, plain: &mut Vec<u8>) -> Result<(), NotBase64> {
        if piece.opens {
            self.quad_bytes = 0;
        }
        let text = piece.unmasked();
        // The decoder on the other side passes over line ends.
        if text.iter().any(|byte| is_line_end(*byte)) {
            let text: Vec<u8> = text.iter().copied().filter(|byte| !is_line_end(*byte)).collect();
            self.decode(&text, plain)
        } else {
            self.decode(&text, plain)
        }
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
            STANDARD.decode_vec(self.quad, plain).map_err(|_| NotBase64)?;
        }
        let (whole, rest) = text.split_at(text.len() - text.len() % 4);
        STANDARD.decode_vec(whole, plain).map_err(|_| NotBase64)?;
        self.quad[..rest.len()].copy_from_slice(rest);
        self.quad_bytes = rest.len();
        Ok(())
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

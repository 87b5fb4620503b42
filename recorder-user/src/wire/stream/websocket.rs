//! RFC 6455 frames of one side.

use super::span::{Fault, Span, rotated};

/// The longest header: two bytes, 64 bits of length, the masking key.
const HEADER_BYTES_MAX: usize = 14;

/// RFC 6455 §5.5: the longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;

/// RFC 6455 §7.1.5: stands for a close frame that names no code.
const NO_CODE: u16 = 1005;

/// What [`Frames::next`] found.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// A message is cut in fragments; said at the first, before its payload.
    Fragmented {
        /// Offset of the frame.
        offset: u64,
    },
    /// Bytes of a message; none where a message or fragment is empty.
    Data {
        span: Span<'a>,
        /// A text message.
        text: bool,
        /// The message ends here.
        ends: bool,
    },
    /// The close frame.
    Close { code: u16 },
}

/// Follows the frames of one side.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    /// Offset of the frame that `header` begins.
    offset: u64,
    /// The frame whose payload is read; none while a header is read.
    frame: Option<Frame>,
    /// Whether the message that is not finished yet is text; none between messages.
    message: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    rest: u64,
    /// Rotated to the next byte.
    mask: Option<[u8; 4]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data { ends: bool, text: bool, announce: bool },
    Close { code: [u8; 2], code_bytes: usize },
    Ping,
}

impl Frames {
    /// Takes from `span` up to the end of the next piece. None once `span` is used up.
    pub(super) fn next<'a>(&mut self, span: &mut Span<'a>) -> Result<Option<Piece<'a>>, Fault> {
        loop {
            let Some(mut frame) = self.frame.take() else {
                if !self.read_header(span)? {
                    return Ok(None);
                }
                continue;
            };
            if let Kind::Data { announce, .. } = &mut frame.kind
                && std::mem::take(announce)
            {
                self.frame = Some(frame);
                return Ok(Some(Piece::Fragmented { offset: self.offset }));
            }
            if frame.rest > 0 && span.is_empty() {
                self.frame = Some(frame);
                return Ok(None);
            }
            let mut part = span.take(frame.rest).masked(frame.mask);
            frame.rest -= part.len() as u64;
            frame.mask = frame.mask.map(|key| rotated(key, part.len()));
            let over = frame.rest == 0;
            let piece = match &mut frame.kind {
                Kind::Data { ends, text, .. } => {
                    let ends = *ends && over;
                    if ends {
                        self.message = None;
                    }
                    Some(Piece::Data { span: part, text: *text, ends })
                }
                Kind::Close { code, code_bytes } => {
                    *code_bytes = part.fill(code, *code_bytes);
                    let code = if *code_bytes == 2 { u16::from_be_bytes(*code) } else { NO_CODE };
                    over.then_some(Piece::Close { code })
                }
                Kind::Ping => None,
            };
            if !over {
                self.frame = Some(frame);
            }
            if piece.is_some() {
                return Ok(piece);
            }
        }
    }

    /// Offset in the side's bytes of the frame that is read, or was read last.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that must pass at least before a frame of another origin may follow; 0 between messages.
    pub(super) fn bytes_to_boundary(&self) -> u64 {
        match &self.frame {
            Some(frame) => frame.rest.max(1),
            None if self.header_bytes == 0 && self.message.is_none() => 0,
            None => (self.header_bytes_needed() - self.header_bytes) as u64,
        }
    }

    /// Whether a whole header was read; `frame` then is the frame.
    fn read_header(&mut self, span: &mut Span<'_>) -> Result<bool, Fault> {
        if span.is_empty() {
            return Ok(false);
        }
        if self.header_bytes == 0 {
            self.offset = span.offset();
        }
        loop {
            let needed = self.header_bytes_needed();
            self.header_bytes = span.fill(&mut self.header[..needed], self.header_bytes);
            if self.header_bytes < needed {
                return Ok(false);
            }
            if needed == self.header_bytes_needed() {
                break;
            }
        }
        self.header_bytes = 0;
        let begun = self.begin();
        self.frame = Some(begun.map_err(|reason| Fault { offset: self.offset, reason })?);
        Ok(true)
    }

    fn header_bytes_needed(&self) -> usize {
        if self.header_bytes < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.header[1] & 0x80 == 0 { 0 } else { 4 }
    }

    /// Reads the whole header.
    fn begin(&mut self) -> Result<Frame, &'static str> {
        let [first, second, length @ ..] = self.header;
        if first & 0x70 != 0 {
            return Err("reserved bits of a WebSocket frame");
        }
        let (rest, length_bytes) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([length[0], length[1]])), 2),
            127 => {
                let long = length.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                (long, 8)
            }
            short => (u64::from(short), 0),
        };
        if rest >> 63 != 0 {
            return Err("length of a WebSocket frame over 63 bits");
        }
        let mask = match length.get(length_bytes..length_bytes + 4) {
            Some(&[a, b, c, d]) if second & 0x80 != 0 => Some([a, b, c, d]),
            _ => None,
        };
        let kind = self.kind(first & 0x80 != 0, first & 0xf)?;
        if !matches!(kind, Kind::Data { .. }) && (first & 0x80 == 0 || rest > CONTROL_BYTES_MAX) {
            return Err("fragmented or long WebSocket control frame");
        }
        Ok(Frame { kind, rest, mask })
    }

    fn kind(&mut self, last: bool, opcode: u8) -> Result<Kind, &'static str> {
        match (opcode, self.message) {
            (0, Some(text)) => Ok(Kind::Data { ends: last, text, announce: false }),
            (0, None) => Err("WebSocket continuation without a message"),
            (1 | 2, None) => {
                let text = opcode == 1;
                self.message = Some(text);
                Ok(Kind::Data { ends: last, text, announce: !last })
            }
            (1 | 2, Some(_)) => Err("WebSocket message inside another"),
            (8, _) => Ok(Kind::Close { code: [0; 2], code_bytes: 0 }),
            (9 | 10, _) => Ok(Kind::Ping),
            _ => Err("reserved opcode of a WebSocket frame"),
        }
    }
}

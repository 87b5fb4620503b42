//! SPDY/3.1 frames of one side (SPDY protocol draft 3.1, as moby/spdystream speaks it).

pub(super) mod headers;

use self::headers::{HeaderBlocks, StreamHeaders};
use super::span::{Fault, Span};

/// Every frame begins with eight bytes.
const HEAD_BYTES: usize = 8;

/// Longest control frame that is read. What names a stream takes some hundred bytes.
pub(super) const CONTROL_BYTES_MAX: u32 = 64 << 10;

/// Capacity that the buffer of control frames keeps between frames: enough for all but the odd one.
const HELD_BYTES_KEPT: usize = 512;

/// FIN: the sender sends nothing more on the stream.
pub(super) const FLAG_FIN: u8 = 1;

/// The receiver of the new stream sends nothing on it.
const FLAG_UNIDIRECTIONAL: u8 = 2;

pub(super) const SYN_STREAM: u16 = 1;
pub(super) const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
pub(super) const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// What [`Frames::next`] found. Frames that say nothing of streams (SETTINGS, PING, WINDOW_UPDATE) are
/// passed over.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    Data {
        stream: u32,
        /// Bytes of the frame; none where it is empty.
        span: Span<'a>,
        /// The frame begins here.
        opens: bool,
        /// The frame ends here.
        ends: bool,
        /// The frame ends here and is the stream's last.
        fin: bool,
    },
    Open {
        stream: u32,
        headers: StreamHeaders,
        fin: bool,
        unidirectional: bool,
    },
    /// SYN_REPLY, or HEADERS when not a `reply`.
    Answer {
        stream: u32,
        reply: bool,
        fin: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        code: u32,
    },
}

/// Follows the frames of one side.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Offset of the frame that `head` begins.
    offset: u64,
    /// Bytes of the frame's payload that are still to come; none while a head is read.
    rest: Option<u32>,
    /// No payload of the frame was given yet.
    opens: bool,
    /// The payload so far of a control frame.
    held: Vec<u8>,
    blocks: HeaderBlocks,
}

impl Frames {
    /// Takes from `span` up to the end of the next frame or piece of one. None once `span` is used up.
    pub(super) fn next<'a>(&mut self, span: &mut Span<'a>) -> Result<Option<Frame<'a>>, Fault> {
        loop {
            let Some(rest) = self.rest else {
                if span.is_empty() {
                    return Ok(None);
                }
                self.read_head(span)?;
                continue;
            };
            if rest > 0 && span.is_empty() {
                return Ok(None);
            }
            let part = span.take(rest.into());
            // `part` is no longer than `rest`.
            let rest = rest - part.len() as u32;
            let over = rest == 0;
            self.rest = (!over).then_some(rest);
            if self.head[0] & 0x80 == 0 {
                return Ok(Some(self.data(part, over)));
            }
            part.append_to(&mut self.held);
            if over {
                let frame = self.control();
                self.held.clear();
                self.held.shrink_to(HELD_BYTES_KEPT);
                let fault = |reason| Fault { offset: self.offset, reason };
                if let Some(frame) = frame.map_err(fault)? {
                    return Ok(Some(frame));
                }
            }
        }
    }

    /// Offset in the side's bytes of the frame that is read, or was read last.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that must pass at least before another frame may follow; 0 between frames.
    pub(super) fn bytes_to_boundary(&self) -> u64 {
        match self.rest {
            Some(rest) => u64::from(rest).max(1),
            None if self.head_bytes == 0 => 0,
            None => (HEAD_BYTES - self.head_bytes) as u64,
        }
    }

    /// Whether this side's header blocks have begun: the first carries the zlib header.
    pub(super) fn blocks_begun(&self) -> bool {
        self.blocks.begun()
    }

    fn read_head(&mut self, span: &mut Span<'_>) -> Result<(), Fault> {
        if self.head_bytes == 0 {
            self.offset = span.offset();
        }
        self.head_bytes = span.fill(&mut self.head, self.head_bytes);
        if self.head_bytes < HEAD_BYTES {
            return Ok(());
        }
        self.head_bytes = 0;
        let [first, _, _, _, _, length @ ..] = self.head;
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]);
        let checked =
            if first & 0x80 == 0 { self.check_data() } else { self.check_control(length) };
        checked.map_err(|reason| Fault { offset: self.offset, reason })?;
        self.rest = Some(length);
        self.opens = true;
        Ok(())
    }

    fn check_data(&self) -> Result<(), &'static str> {
        if self.data_stream() == 0 { Err("SPDY data without a stream") } else { Ok(()) }
    }

    /// Both ends take these frames to be as long as their fields, whatever the head says: another length
    /// would let them read other frames than we do. The version is not looked at by them, nor here.
    fn check_control(&self, length: u32) -> Result<(), &'static str> {
        let fits = match self.control_type() {
            RST_STREAM | GOAWAY | WINDOW_UPDATE => length == 8,
            PING => length == 4,
            SETTINGS => length >= 4 && length % 8 == 4,
            SYN_STREAM => length >= 10,
            SYN_REPLY | HEADERS => length >= 4,
            _ => return Err("unknown type of SPDY frame"),
        };
        if length > CONTROL_BYTES_MAX {
            return Err("SPDY control frame over the bound");
        }
        if fits { Ok(()) } else { Err("length of a SPDY control frame") }
    }

    fn control_type(&self) -> u16 {
        u16::from_be_bytes([self.head[2], self.head[3]])
    }

    fn data_stream(&self) -> u32 {
        word(&self.head)
    }

    fn fin(&self) -> bool {
        self.head[4] & FLAG_FIN != 0
    }

    fn data<'a>(&mut self, span: Span<'a>, over: bool) -> Frame<'a> {
        Frame::Data {
            stream: self.data_stream(),
            span,
            opens: std::mem::take(&mut self.opens),
            ends: over,
            fin: over && self.fin(),
        }
    }

    /// Reads the whole control frame in `held`, whose length was checked by its head.
    fn control(&mut self) -> Result<Option<Frame<'static>>, &'static str> {
        let held = self.held.as_slice();
        let stream = word(held);
        let code = word(held.get(4..).unwrap_or_default());
        let fin = self.fin();
        let kind = self.control_type();
        // The reserved bit is not masked by readers: to them it makes another stream.
        if (stream == 0 || stream >> 31 != 0)
            && matches!(kind, SYN_STREAM | SYN_REPLY | HEADERS | RST_STREAM)
        {
            return Err("stream of a SPDY control frame");
        }
        Ok(Some(match kind {
            SYN_STREAM => {
                let headers = self.blocks.read(held.get(10..).unwrap_or_default())?;
                let unidirectional = self.head[4] & FLAG_UNIDIRECTIONAL != 0;
                Frame::Open { stream, headers, fin, unidirectional }
            }
            SYN_REPLY | HEADERS => {
                self.blocks.read(held.get(4..).unwrap_or_default())?;
                Frame::Answer { stream, reply: kind == SYN_REPLY, fin }
            }
            RST_STREAM => Frame::Reset { stream, code },
            GOAWAY => Frame::GoAway { code },
            SETTINGS if u64::from(word(held)) * 8 + 4 != held.len() as u64 => {
                return Err("length of SPDY settings");
            }
            _ => return Ok(None),
        }))
    }
}

/// The first four bytes as a number; 0 where there are fewer.
fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

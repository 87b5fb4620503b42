//! Stored chunks of a connection to frames.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
};

use bytes::Bytes;

use super::{
    frame::{FrameKind, StreamFrame},
    head::StreamHead,
};
use crate::{
    model::{Chunk, Direction, MicrosSince, StdinRecord},
    wire::stream::{
        Base64Carry, Channel, Decoder, Event, EventKind, NotBase64, Payload, Protocol, Side,
    },
};

/// Decodes chunks in the order in which they passed.
pub(super) struct Sequence {
    decoder: Decoder,
    sides: Sides,
    plain: Plain,
    last_us: MicrosSince,
}

/// How far each side's bytes were taken.
#[derive(Default)]
struct Sides {
    client: Progress,
    server: Progress,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    next_offset: u64,
    /// Bytes are missing before this point, or were not understood: nobody can tell where a frame begins.
    lost: bool,
}

/// Turns payloads into what the other end made of them.
struct Plain {
    stdin: StdinRecord,
    base64: bool,
    /// Characters left over, by channel; a channel's number is a digit there, so that there are few.
    carries: HashMap<(Side, Channel), Base64Carry>,
}

impl Sequence {
    /// A sequence for a connection; none for what was not upgraded.
    pub(super) fn new(head: &StreamHead) -> Option<Self> {
        let agreement = head.agreement.clone()?;
        let base64 = matches!(
            agreement.protocol,
            Protocol::RemoteCommand { base64: true, .. }
                | Protocol::PortForwardChannels { base64: true }
        );
        Some(Self {
            decoder: Decoder::new(agreement),
            sides: Sides::default(),
            plain: Plain { stdin: head.stdin, base64, carries: HashMap::new() },
            last_us: 0,
        })
    }

    /// Appends the frames that a chunk completes.
    pub(super) fn push(&mut self, chunk: &Chunk, frames: &mut VecDeque<StreamFrame>) {
        let (side, at_us, data) = (side(chunk.direction), chunk.at_us, &chunk.data);
        self.last_us = at_us;
        let progress = self.sides.of(side);
        if let Some(hole) = progress.take(chunk) {
            frames.push_back(StreamFrame { at_us, side, kind: hole });
        }
        if progress.lost {
            push_raw(data, at_us, side, frames);
            return;
        }
        let (plain, mut gave_up) = (&mut self.plain, None);
        self.decoder.push(side, data, &mut |event| {
            let Event { side, kind } = event;
            if gave_up.is_some() {
                return;
            }
            let start = match &kind {
                EventKind::Data { data, .. } => data.start,
                _ => 0,
            };
            match plain.kind(side, kind, data) {
                Ok(kind) => {
                    if let FrameKind::Undecodable { offset, .. } = kind {
                        // What lies in earlier chunks was taken for the beginning of a frame.
                        gave_up = Some(offset.saturating_sub(chunk.offset));
                    }
                    frames.push_back(StreamFrame { at_us, side, kind });
                }
                Err(NotBase64) => {
                    let from = u64::try_from(start).unwrap_or(u64::MAX);
                    let (offset, reason) = (chunk.offset.saturating_add(from), "not base64");
                    let kind = FrameKind::Undecodable { offset, reason };
                    frames.push_back(StreamFrame { at_us, side, kind });
                    gave_up = Some(from);
                }
            }
        });
        if let Some(from) = gave_up {
            self.sides.of(side).lost = true;
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(data.len());
            push_raw(&data.slice(from..), at_us, side, frames);
        }
    }

    /// No more chunks come: appends what only the end makes certain.
    pub(super) fn finish(&mut self, frames: &mut VecDeque<StreamFrame>) {
        let (at_us, plain) = (self.last_us, &mut self.plain);
        self.decoder.finish(&mut |event| {
            if let Ok(kind) = plain.kind(event.side, event.kind, &Bytes::new()) {
                frames.push_back(StreamFrame { at_us, side: event.side, kind });
            }
        });
    }
}

impl Sides {
    fn of(&mut self, side: Side) -> &mut Progress {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

fn push_raw(data: &Bytes, at_us: MicrosSince, side: Side, frames: &mut VecDeque<StreamFrame>) {
    if !data.is_empty() {
        frames.push_back(StreamFrame { at_us, side, kind: FrameKind::Raw(data.clone()) });
    }
}

impl Progress {
    /// Goes past a chunk; gives the hole before it, if there is one.
    fn take(&mut self, chunk: &Chunk) -> Option<FrameKind> {
        let (from, to) = (self.next_offset, chunk.offset);
        self.next_offset = to.saturating_add(u64::try_from(chunk.data.len()).unwrap_or(u64::MAX));
        if from == to {
            return None;
        }
        self.lost = true;
        Some(FrameKind::Hole { from, to })
    }
}

impl Plain {
    fn kind(
        &mut self,
        side: Side,
        event: EventKind<'_>,
        chunk: &Bytes,
    ) -> Result<FrameKind, NotBase64> {
        Ok(match event {
            EventKind::Opened(channel) => FrameKind::Opened(channel),
            EventKind::Data { channel, data } => self.data(side, channel, &data, chunk)?,
            EventKind::Resize { columns, rows } => FrameKind::Resize { columns, rows },
            EventKind::Status(status) => FrameKind::Status(status),
            EventKind::Closed(channel) => FrameKind::Closed(channel),
            EventKind::Reset { channel, code } => FrameKind::Reset { channel, code },
            EventKind::Ended { code } => FrameKind::Ended { code },
            EventKind::Doubtful { offset, reason } => FrameKind::Doubtful { offset, reason },
            EventKind::Undecodable { offset, reason } => FrameKind::Undecodable { offset, reason },
        })
    }

    fn data(
        &mut self,
        side: Side,
        channel: Channel,
        payload: &Payload<'_>,
        chunk: &Bytes,
    ) -> Result<FrameKind, NotBase64> {
        let data = if self.base64 {
            let mut plain = Vec::new();
            self.carries.entry((side, channel)).or_default().push(payload, &mut plain)?;
            Bytes::from(plain)
        } else {
            match payload.unmasked() {
                // The payload lies in the chunk: no copy is made of it.
                Cow::Borrowed(wire) => chunk.slice(payload.start..payload.start + wire.len()),
                Cow::Owned(plain) => Bytes::from(plain),
            }
        };
        let masked = matches!(channel, Channel::Stdin | Channel::Unknown(_));
        if side == Side::Client && masked && self.stdin == StdinRecord::Sizes {
            let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
            return Ok(FrameKind::Withheld { channel, bytes });
        }
        Ok(FrameKind::Data { channel, data })
    }
}

const fn side(direction: Direction) -> Side {
    match direction {
        Direction::Request => Side::Client,
        Direction::Response => Side::Server,
    }
}

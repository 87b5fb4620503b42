//! The decoder of one connection: both sides' bytes in, events out.

use super::{
    channels::Channels,
    command::Command,
    event::{Agreement, Channel, Event, EventKind, Protocol, Side, Transport},
    span::{Fault, Span},
    spdy,
    streams::Streams,
    websocket,
};

/// Decodes an upgraded connection.
///
/// It takes each side's bytes in any chunking and the sides in the order in which they pass by: the client
/// names SPDY streams before the server answers on them. A side that is not understood is left alone after one
/// [`EventKind::Undecodable`]; the other goes on. Nothing is copied but heads and control frames, and what
/// is kept is bounded: one control frame a side, some 32 KiB of plain headers a side (as much as was
/// sent), 16 Ki streams, and 64 KiB of status.
#[derive(Debug)]
pub struct Decoder {
    agreement: Agreement,
    pub(super) wire: Wire,
    sides: [Progress; 2],
}

/// How far a side is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    bytes: u64,
    undecodable: bool,
    ended: bool,
}

/// The layers, with what belongs to one side by [`Side`].
#[derive(Debug)]
pub(super) enum Wire {
    Opaque,
    Spdy { frames: [spdy::Frames; 2], streams: Streams },
    Channels { frames: [websocket::Frames; 2], channels: Channels },
    Tunnel { outer: [websocket::Frames; 2], inner: [spdy::Frames; 2], streams: Streams },
}

impl Decoder {
    /// At the first byte after the 101 on both sides.
    #[must_use]
    pub fn new(agreement: Agreement) -> Self {
        let wire = match (agreement.transport, agreement.protocol) {
            (Transport::Spdy, Protocol::RemoteCommand { version, .. }) => Wire::Spdy {
                frames: Default::default(),
                streams: Streams::of_command(Command::new(version, false)),
            },
            (Transport::Spdy, Protocol::PortForward) => {
                Wire::Spdy { frames: Default::default(), streams: Streams::of_connections() }
            }
            (Transport::WebSocket, Protocol::RemoteCommand { version, base64 }) => Wire::Channels {
                frames: Default::default(),
                channels: Channels::of_command(version, base64),
            },
            (Transport::WebSocket, Protocol::PortForwardChannels { base64 }) => Wire::Channels {
                frames: Default::default(),
                channels: Channels::of_ports(&agreement.ports, base64),
            },
            (Transport::WebSocket, Protocol::PortForwardTunnel) => Wire::Tunnel {
                outer: Default::default(),
                inner: Default::default(),
                streams: Streams::of_connections(),
            },
            // Also what no agreement of ours says, such as base64 without WebSocket.
            _ => Wire::Opaque,
        };
        Self { agreement, wire, sides: Default::default() }
    }

    /// What both ends agreed on.
    #[must_use]
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// Takes the next bytes of `side` and gives what they say to `on`.
    pub fn push(&mut self, side: Side, bytes: &[u8], on: &mut dyn FnMut(Event<'_>)) {
        self.push_from(side, bytes, 0, on);
    }

    /// [`push`](Self::push) of what follows the first `start` bytes of a buffer.
    fn push_from(&mut self, side: Side, bytes: &[u8], start: usize, on: &mut dyn FnMut(Event<'_>)) {
        let bytes = bytes.get(start..).unwrap_or_default();
        let progress = &mut self.sides[side as usize];
        let span = Span::new(bytes, start, progress.bytes);
        progress.bytes += bytes.len() as u64;
        if progress.undecodable || bytes.is_empty() {
            return;
        }
        if let Err(fault) = self.wire.read(side, span, &mut progress.ended, on) {
            progress.undecodable = true;
            let Fault { offset, reason } = fault;
            on(Event { side, kind: EventKind::Undecodable { offset, reason } });
        }
    }

    /// No more bytes come from either side. A status that the error channel left open is given to `on`.
    pub fn finish(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        match &mut self.wire {
            Wire::Opaque => {}
            Wire::Spdy { streams, .. } | Wire::Tunnel { streams, .. } => {
                streams.ended(Side::Server, on);
            }
            Wire::Channels { channels, .. } => channels.ended(Side::Server, on),
        }
    }

    /// Bytes of `side` so far.
    #[must_use]
    pub fn bytes(&self, side: Side) -> u64 {
        self.sides[side as usize].bytes
    }

    /// Whether `side` said that the connection is over.
    #[must_use]
    pub fn has_ended(&self, side: Side) -> bool {
        self.sides[side as usize].ended
    }

    /// Whether `side` stands between frames, and between messages, so that a frame of another origin may
    /// follow. Never, where frames are not understood.
    #[must_use]
    pub fn at_boundary(&self, side: Side) -> bool {
        self.bytes_to_boundary(side) == Some(0)
    }

    /// Bytes of `side` that must pass at least before it stands [`at_boundary`](Self::at_boundary): then ask
    /// again, since only a whole head tells how long its frame is. None where frames are not understood.
    #[must_use]
    pub fn bytes_to_boundary(&self, side: Side) -> Option<u64> {
        let index = side as usize;
        if self.sides[index].undecodable {
            return None;
        }
        match &self.wire {
            Wire::Opaque => None,
            Wire::Spdy { frames, .. } => Some(frames[index].bytes_to_boundary()),
            Wire::Channels { frames, .. } => Some(frames[index].bytes_to_boundary()),
            Wire::Tunnel { outer, inner, .. } => {
                let outer = outer[index].bytes_to_boundary();
                let inner = inner[index].bytes_to_boundary();
                // A message may end inside a SPDY frame, which goes on in the next.
                Some(if outer == 0 && inner > 0 { inner + 2 } else { outer })
            }
        }
    }

    /// Takes the next bytes of `side` up to its next boundary. Returns how many it took: none where it
    /// stands at one, all where there is none in `bytes`. At a boundary afterwards, the rest can be
    /// withheld.
    pub fn push_to_boundary(
        &mut self,
        side: Side,
        bytes: &[u8],
        on: &mut dyn FnMut(Event<'_>),
    ) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let step = match self.bytes_to_boundary(side) {
                Some(0) => break,
                Some(step) => usize::try_from(step).unwrap_or(usize::MAX),
                None => usize::MAX,
            };
            let end = taken.saturating_add(step).min(bytes.len());
            self.push_from(side, &bytes[..end], taken, on);
            taken = end;
        }
        taken
    }
}

impl Wire {
    fn read(
        &mut self,
        side: Side,
        mut span: Span<'_>,
        ended: &mut bool,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        let index = side as usize;
        match self {
            Self::Opaque => {
                let kind =
                    EventKind::Data { channel: Channel::Unknown(0), data: span.payload(true) };
                on(Event { side, kind });
                Ok(())
            }
            Self::Spdy { frames, streams } => {
                read_spdy(side, &mut frames[index], &mut span, streams, ended, on)
            }
            Self::Channels { frames, channels } => {
                let frames = &mut frames[index];
                while let Some(piece) = frames.next(&mut span)? {
                    *ended |= matches!(piece, websocket::Piece::Close { .. });
                    channels.take(side, piece, frames.offset(), on)?;
                }
                Ok(())
            }
            Self::Tunnel { outer, inner, streams } => {
                let (outer, inner) = (&mut outer[index], &mut inner[index]);
                while let Some(piece) = outer.next(&mut span)? {
                    match piece {
                        websocket::Piece::Fragmented { .. } => {}
                        websocket::Piece::Data { text: true, .. } => {
                            let reason = "text where SPDY is tunnelled";
                            return Err(Fault { offset: outer.offset(), reason });
                        }
                        websocket::Piece::Data { mut span, .. } => {
                            read_spdy(side, inner, &mut span, streams, ended, on)?;
                        }
                        websocket::Piece::Close { code } => {
                            *ended = true;
                            on(Event { side, kind: EventKind::Ended { code: code.into() } });
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

fn read_spdy(
    side: Side,
    frames: &mut spdy::Frames,
    span: &mut Span<'_>,
    streams: &mut Streams,
    ended: &mut bool,
    on: &mut dyn FnMut(Event<'_>),
) -> Result<(), Fault> {
    while let Some(frame) = frames.next(span)? {
        *ended |= matches!(frame, spdy::Frame::GoAway { .. });
        streams.take(side, frame, frames.offset(), on)?;
    }
    Ok(())
}

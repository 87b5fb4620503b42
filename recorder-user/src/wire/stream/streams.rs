//! SPDY streams by id, as both sides see them, and what their frames mean.

use std::collections::{BTreeMap, VecDeque};

use super::{
    command::Command,
    event::{Channel, Event, EventKind, PortStream, Side},
    span::Fault,
    spdy::{
        Frame,
        headers::{StreamHeaders, StreamType},
    },
};

/// Streams that are remembered at a time; port-forward opens two for each connection. Data of streams
/// beyond comes on [`Channel::Unknown`].
pub(super) const STREAMS_MAX: usize = 16 << 10;

/// Streams that are remembered after one side reset them: what the other had sent before it knew is still
/// under way.
pub(super) const RESET_STREAMS_MAX: usize = 64;

/// Follows the streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    /// None where connections are carried (port-forward).
    command: Option<Command>,
    open: BTreeMap<u32, Stream>,
    reset: VecDeque<u32>,
    /// The least id that each side may use next.
    next: [u32; 2],
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    channel: Channel,
    closed: [bool; 2],
    /// The server agreed to it.
    replied: bool,
    reset: bool,
}

impl Streams {
    pub(super) fn of_command(command: Command) -> Self {
        Self { command: Some(command), ..Self::of_connections() }
    }

    pub(super) fn of_connections() -> Self {
        Self { command: None, open: BTreeMap::new(), reset: VecDeque::new(), next: [1, 2] }
    }

    /// Takes one frame of `side`, which begins at `offset`.
    pub(super) fn take(
        &mut self,
        side: Side,
        frame: Frame<'_>,
        offset: u64,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        match frame {
            Frame::Data { stream, span, opens, ends, fin } => {
                let channel = self.channel(stream);
                if !span.is_empty() {
                    let data = span.payload(opens);
                    on(Event { side, kind: EventKind::Data { channel, data } });
                    if let Some(command) = &mut self.command {
                        command.data(side, channel, &data, on);
                    }
                }
                if let Some(command) = &mut self.command
                    && ends
                {
                    command.message_ends(side, channel, on);
                }
                if fin {
                    self.close(side, stream, on);
                }
            }
            Frame::Open { stream, headers, fin, unidirectional } => {
                let next = &mut self.next[side as usize];
                if stream < *next {
                    // Peers refuse it and go on with the stream that they have; see `validateStreamId`.
                    return Err(Fault { offset, reason: "SPDY stream opened twice" });
                }
                *next = stream.saturating_add(2);
                self.open(side, stream, headers, unidirectional, on);
                if fin {
                    self.close(side, stream, on);
                }
            }
            Frame::Answer { stream, reply, fin } => {
                if let Some(known) = self.open.get_mut(&stream) {
                    known.replied |= reply && side == Side::Server;
                }
                if fin {
                    self.close(side, stream, on);
                }
            }
            Frame::Reset { stream, code } => self.reset(side, stream, code, on),
            Frame::GoAway { code } => {
                self.ended(side, on);
                on(Event { side, kind: EventKind::Ended { code } });
            }
        }
        Ok(())
    }

    /// Nothing more comes from `side`.
    pub(super) fn ended(&mut self, side: Side, on: &mut dyn FnMut(Event<'_>)) {
        if let Some(command) = &mut self.command {
            command.ended(side, on);
        }
    }

    /// Streams on which the server may still say something, oldest first: id, channel, and whether the
    /// server agreed to the stream.
    pub(super) fn open_to_server(&self) -> impl Iterator<Item = (u32, Channel, bool)> {
        let open = self.open.iter().filter(|(_, stream)| !stream.closed[Side::Server as usize]);
        open.map(|(id, stream)| (*id, stream.channel, stream.replied))
    }

    /// The highest id of a stream that the client opened; 0 where there is none.
    pub(super) fn last_of_client(&self) -> u32 {
        self.next[Side::Client as usize].saturating_sub(2)
    }

    fn channel(&self, stream: u32) -> Channel {
        self.open.get(&stream).map_or(Channel::Unknown(stream), |known| known.channel)
    }

    fn open(
        &mut self,
        side: Side,
        id: u32,
        headers: StreamHeaders,
        unidirectional: bool,
        on: &mut dyn FnMut(Event<'_>),
    ) {
        let channel = match side {
            Side::Client => self.named(id, headers),
            // No protocol has streams that the server opens.
            Side::Server => Channel::Unknown(id),
        };
        let known = self.open.len() < STREAMS_MAX;
        if known {
            let mut closed = [false; 2];
            closed[side.other() as usize] = unidirectional;
            self.open.insert(id, Stream { channel, closed, replied: false, reset: false });
        }
        let channel = if known { channel } else { Channel::Unknown(id) };
        on(Event { side, kind: EventKind::Opened(channel) });
    }

    fn named(&self, id: u32, headers: StreamHeaders) -> Channel {
        match (headers.kind, self.command.is_some()) {
            (StreamType::Stdin, true) => Channel::Stdin,
            (StreamType::Stdout, true) => Channel::Stdout,
            (StreamType::Stderr, true) => Channel::Stderr,
            (StreamType::Error, true) => Channel::Error,
            (StreamType::Resize, true) => Channel::Resize,
            (StreamType::Error, false) => {
                let request = headers.request.unwrap_or(id);
                port(headers, request).map_or(Channel::Unknown(id), Channel::PortError)
            }
            (StreamType::Data, false) => {
                // Old clients give no request; their data stream follows the error stream. So reads the
                // server: kubelet's `httpStreamHandler.requestID`.
                let request = headers.request.unwrap_or(id.saturating_sub(2));
                port(headers, request).map_or(Channel::Unknown(id), Channel::Port)
            }
            _ => Channel::Unknown(id),
        }
    }

    /// `side` sends nothing more on the stream. It is forgotten when the other does not either.
    fn close(&mut self, side: Side, id: u32, on: &mut dyn FnMut(Event<'_>)) {
        let channel = self.channel(id);
        if let Some(command) = &mut self.command {
            command.closed(side, channel, on);
        }
        on(Event { side, kind: EventKind::Closed(channel) });
        if let Some(stream) = self.open.get_mut(&id) {
            stream.closed[side as usize] = true;
            if stream.closed == [true; 2] {
                self.open.remove(&id);
            }
        }
    }

    fn reset(&mut self, side: Side, id: u32, code: u32, on: &mut dyn FnMut(Event<'_>)) {
        let channel = self.channel(id);
        if let Some(command) = &mut self.command {
            command.closed(side, channel, on);
        }
        on(Event { side, kind: EventKind::Reset { channel, code } });
        let Some(stream) = self.open.get_mut(&id) else { return };
        let first = !std::mem::replace(&mut stream.reset, true);
        stream.closed[side as usize] = true;
        if stream.closed == [true; 2] {
            self.open.remove(&id);
        } else if first {
            if self.reset.len() == RESET_STREAMS_MAX
                && let Some(oldest) = self.reset.pop_front()
            {
                self.open.remove(&oldest);
            }
            self.reset.push_back(id);
        }
    }
}

fn port(headers: StreamHeaders, request: u32) -> Option<PortStream> {
    let port = headers.port.filter(|port| *port != 0)?;
    Some(PortStream { request, port })
}

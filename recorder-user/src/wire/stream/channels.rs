//! Numbered channels in WebSocket messages: the first byte of a message is the channel.

use base64::Engine as _;

use super::{
    carry::BASE64,
    command::Command,
    event::{Channel, Event, EventKind, PortStream, Side},
    span::{Fault, Span},
    websocket::Piece,
};

/// Of version 5: the next byte names a channel on which its sender says no more (KEP-4006).
const CLOSE_SIGNAL: u8 = 255;

/// The version that has [`CLOSE_SIGNAL`].
const CLOSE_SIGNAL_VERSION: u8 = 5;

/// Ports whose two channels have a number.
const PORTS_MAX: usize = 128;

/// Follows the channels of one connection.
#[derive(Debug)]
pub(super) struct Channels {
    carried: Carried,
    base64: bool,
    messages: [Message; 2],
    doubted: bool,
}

#[derive(Debug)]
enum Carried {
    Command(Box<Command>),
    /// Two channels for each port: its bytes and its errors.
    Ports(Vec<PortChannel>),
}

/// A channel of a port: the server begins it with the port's number, little-endian.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortChannel {
    pub(super) port: u16,
    announced: [u8; 4],
    announced_bytes: usize,
    /// The number was read.
    pub(super) open: bool,
}

/// Where one side's message stands.
#[derive(Clone, Copy, Debug, Default)]
enum Message {
    /// Before the channel.
    #[default]
    Start,
    /// After the channel.
    Of {
        channel: u8,
        /// No byte of it was given yet.
        opens: bool,
    },
    /// After [`CLOSE_SIGNAL`].
    Close(Option<u8>),
}

impl Channels {
    pub(super) fn of_command(version: u8, base64: bool) -> Self {
        Self::new(Carried::Command(Box::new(Command::new(version, base64))), base64)
    }

    pub(super) fn of_ports(ports: &[u16], base64: bool) -> Self {
        let channel = |port: &u16| PortChannel {
            port: *port,
            announced: [0; 4],
            announced_bytes: 0,
            open: false,
        };
        let pairs = ports.iter().take(PORTS_MAX).flat_map(|port| [channel(port); 2]);
        Self::new(Carried::Ports(pairs.collect()), base64)
    }

    fn new(carried: Carried, base64: bool) -> Self {
        Self { carried, base64, messages: [Message::Start; 2], doubted: false }
    }

    pub(super) fn base64(&self) -> bool {
        self.base64
    }

    pub(super) fn command(&self) -> Option<&Command> {
        match &self.carried {
            Carried::Command(command) => Some(command),
            Carried::Ports(_) => None,
        }
    }

    pub(super) fn ports(&self) -> &[PortChannel] {
        match &self.carried {
            Carried::Command(_) => &[],
            Carried::Ports(ports) => ports,
        }
    }

    /// Takes one piece of `side`, of the frame that begins at `offset`.
    pub(super) fn take(
        &mut self,
        side: Side,
        piece: Piece<'_>,
        offset: u64,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        match piece {
            Piece::Fragmented { offset } => {
                // golang.org/x/net/websocket, which API servers and kubelets use, takes each fragment for a
                // message, and its first byte for a channel. Clients of Kubernetes do not fragment.
                if side == Side::Client && !std::mem::replace(&mut self.doubted, true) {
                    let reason = "a fragmented message: servers take each fragment for a message";
                    on(Event { side, kind: EventKind::Doubtful { offset, reason } });
                }
                Ok(())
            }
            Piece::Data { span, ends, .. } => {
                self.data(side, span, ends, on).map_err(|reason| Fault { offset, reason })
            }
            Piece::Close { code } => {
                self.ended(side, on);
                on(Event { side, kind: EventKind::Ended { code: code.into() } });
                Ok(())
            }
        }
    }

    /// Nothing more comes from `side`.
    pub(super) fn ended(&mut self, side: Side, on: &mut dyn FnMut(Event<'_>)) {
        if let Carried::Command(command) = &mut self.carried {
            command.ended(side, on);
        }
    }

    fn data(
        &mut self,
        side: Side,
        mut span: Span<'_>,
        ends: bool,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), &'static str> {
        let mut message = self.messages[side as usize];
        if let Message::Start = message
            && let Some(first) = span.take(1).unmasked().next()
        {
            message = self.begin(first);
        }
        match &mut message {
            Message::Start => {}
            Message::Close(named) => {
                if named.is_none() {
                    *named = span.take(1).unmasked().next();
                }
                if !span.is_empty() {
                    return Err("close signal for more than one channel");
                }
            }
            Message::Of { channel, opens } => self.channel_data(side, *channel, span, opens, on)?,
        }
        self.messages[side as usize] = if ends { Message::Start } else { message };
        if ends { self.message_ends(side, message, on) } else { Ok(()) }
    }

    fn begin(&self, first: u8) -> Message {
        let closes = self.command().is_some_and(|of| of.version() >= CLOSE_SIGNAL_VERSION);
        if closes && first == CLOSE_SIGNAL {
            return Message::Close(None);
        }
        let channel = if self.base64 { first.wrapping_sub(b'0') } else { first };
        Message::Of { channel, opens: true }
    }

    fn message_ends(
        &mut self,
        side: Side,
        message: Message,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), &'static str> {
        match message {
            Message::Start => {}
            Message::Close(None) => return Err("close signal without a channel"),
            Message::Close(Some(number)) => {
                let channel = self.channel(number);
                if let Carried::Command(command) = &mut self.carried {
                    command.closed(side, channel, on);
                }
                on(Event { side, kind: EventKind::Closed(channel) });
            }
            Message::Of { channel, .. } => {
                let channel = self.channel(channel);
                if let Carried::Command(command) = &mut self.carried {
                    command.message_ends(side, channel, on);
                }
            }
        }
        Ok(())
    }

    fn channel_data(
        &mut self,
        side: Side,
        number: u8,
        mut span: Span<'_>,
        opens: &mut bool,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), &'static str> {
        let channel = self.channel(number);
        if let Carried::Ports(ports) = &mut self.carried
            && side == Side::Server
            && let Some(port) = ports.get_mut(usize::from(number))
            && !port.open
        {
            if !port.announce(&mut span, self.base64)? {
                return Ok(());
            }
            on(Event { side, kind: EventKind::Opened(channel) });
        }
        if span.is_empty() {
            return Ok(());
        }
        let data = span.payload(std::mem::take(opens));
        on(Event { side, kind: EventKind::Data { channel, data } });
        if let Carried::Command(command) = &mut self.carried {
            command.data(side, channel, &data, on);
        }
        Ok(())
    }

    fn channel(&self, number: u8) -> Channel {
        let unknown = Channel::Unknown(number.into());
        match (&self.carried, number) {
            (Carried::Command(_), 0) => Channel::Stdin,
            (Carried::Command(_), 1) => Channel::Stdout,
            (Carried::Command(_), 2) => Channel::Stderr,
            (Carried::Command(_), 3) => Channel::Error,
            (Carried::Command(_), 4) => Channel::Resize,
            (Carried::Command(_), _) => unknown,
            (Carried::Ports(ports), _) => {
                let Some(port) = ports.get(usize::from(number)) else { return unknown };
                let stream = PortStream { request: u32::from(number / 2), port: port.port };
                if number.is_multiple_of(2) {
                    Channel::Port(stream)
                } else {
                    Channel::PortError(stream)
                }
            }
        }
    }
}

impl PortChannel {
    /// Whether the server stands inside of the port's number, so that nothing of ours can follow.
    pub(super) fn is_half_announced(&self) -> bool {
        !self.open && self.announced_bytes > 0
    }

    /// Cuts the port's number off the channel's first bytes. Whether it is whole.
    fn announce(&mut self, span: &mut Span<'_>, base64: bool) -> Result<bool, &'static str> {
        // Two bytes are four characters of base64, of which the last is padding.
        let wanted = if base64 { 4 } else { 2 };
        self.announced_bytes = span.fill(&mut self.announced[..wanted], self.announced_bytes);
        if self.announced_bytes < wanted {
            return Ok(false);
        }
        let [first, second, ..] = self.announced;
        let mut port = [first, second];
        if base64 {
            let decoded = BASE64.decode_slice(self.announced, &mut port);
            if decoded != Ok(port.len()) {
                return Err("a channel does not begin with its port");
            }
        }
        if u16::from_le_bytes(port) != self.port {
            return Err("a channel begins with another port than was asked for");
        }
        self.open = true;
        Ok(true)
    }
}

//! What an upgraded connection carries, independent of how it is framed.

use std::borrow::Cow;

/// Who sent a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// kubectl, towards the API server.
    Client,
    /// The API server, towards the client.
    Server,
}

impl Side {
    /// The side at the other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How frames are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// SPDY/3.1 frames.
    Spdy,
    /// RFC 6455 frames.
    WebSocket,
    /// Whatever else the `Upgrade` named; its bytes are [`Protocol::Opaque`].
    Other,
}

/// What frames carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// exec and attach: `channel.k8s.io` (1) to `v5.channel.k8s.io` (5).
    RemoteCommand {
        /// 1 to 5. From 4 on the error channel ends with a JSON `Status`; from 5 on channel 255 closes others.
        version: u8,
        /// Text frames of a channel digit and base64 (`base64.channel.k8s.io`, `v4.base64.channel.k8s.io`).
        base64: bool,
    },
    /// Port-forward over SPDY streams: two for each connection (`portforward.k8s.io`).
    PortForward,
    /// Port-forward over WebSocket channels: 2n carries data of the n-th port, 2n+1 its errors.
    PortForwardChannels {
        /// As for [`Protocol::RemoteCommand`].
        base64: bool,
    },
    /// Port-forward's SPDY frames inside binary WebSocket messages (`SPDY/3.1+portforward.k8s.io`, which
    /// KEP-4006 calls `v2.portforward.k8s.io`).
    PortForwardTunnel,
    /// Bytes that nobody here understands, for example behind a proxy.
    Opaque,
}

/// What both ends agreed on with the 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// How frames are cut.
    pub transport: Transport,
    /// What they carry.
    pub protocol: Protocol,
    /// The `ports` of a port-forward's query, in order; [`Protocol::PortForwardChannels`] needs them.
    pub ports: Vec<u16>,
}

/// A connection that port-forward carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortStream {
    /// The client's `requestID`, or the index of the port where channels are numbered.
    pub request: u32,
    /// The port in the pod.
    pub port: u16,
}

/// What a piece of data belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// To the process.
    Stdin,
    /// From the process.
    Stdout,
    /// From the process; with a terminal there is none.
    Stderr,
    /// What the server says about the command.
    Error,
    /// Terminal sizes.
    Resize,
    /// Bytes of a forwarded connection, both ways.
    Port(PortStream),
    /// What the server says about a forwarded connection.
    PortError(PortStream),
    /// A number or stream that the protocol does not name.
    Unknown(u32),
}

/// How a command ended, as the error channel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandStatus {
    /// Whether it is `Success`.
    pub success: bool,
    /// The exit code: 0 for success; none where the command did not run or the text does not say.
    pub exit_code: Option<i32>,
    /// The `Status` reason, for example `NonZeroExitCode`.
    pub reason: String,
    /// The `Status` message, or the plain text of versions before 4.
    pub message: String,
}

/// Something that happened on an upgraded connection.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Who sent it.
    pub side: Side,
    /// What it is.
    pub kind: EventKind<'a>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind<'a> {
    /// A channel came to be (SPDY streams; numbered channels exist without a word).
    Opened(Channel),
    /// Bytes of a channel, as they came: pieces, not messages, and none empty. What is decoded further (sizes,
    /// the status) comes as data, too.
    Data {
        /// Which channel.
        channel: Channel,
        /// The bytes.
        data: Payload<'a>,
    },
    /// The terminal's size.
    Resize {
        /// Width in characters.
        columns: u16,
        /// Height in lines.
        rows: u16,
    },
    /// The command's end.
    Status(CommandStatus),
    /// This side sends nothing more on the channel.
    Closed(Channel),
    /// This side gave the channel up.
    Reset {
        /// Which channel.
        channel: Channel,
        /// SPDY's status code.
        code: u32,
    },
    /// This side says that the connection is over (WebSocket close, SPDY GOAWAY).
    Ended {
        /// Its code: RFC 6455 §7.4, or SPDY's.
        code: u32,
    },
    /// The two ends may read what follows on this side in different ways; decoding goes on by the book.
    /// Said once a side.
    Doubtful {
        /// Offset in this side's bytes of the frame that can be read in two ways.
        offset: u64,
        /// Why.
        reason: &'static str,
    },
    /// From here on this side's bytes are not understood; no further event of this side follows.
    Undecodable {
        /// Offset in this side's bytes of the frame that was not understood.
        offset: u64,
        /// Why.
        reason: &'static str,
    },
}

/// A piece of data as it lies in the buffer that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The bytes on the wire.
    pub wire: &'a [u8],
    /// Where `wire` begins in the pushed buffer.
    pub start: usize,
    /// RFC 6455 §5.3: the masking key, rotated so that its first byte belongs to the first of `wire`.
    pub mask: Option<[u8; 4]>,
    /// Whether these are the first bytes of a frame (SPDY) or message (WebSocket); other pieces go on with
    /// the one before on the same channel.
    pub opens: bool,
}

impl<'a> Payload<'a> {
    /// The bytes without their mask.
    #[must_use]
    pub fn unmasked(&self) -> Cow<'a, [u8]> {
        match self.mask {
            None | Some([0, 0, 0, 0]) => Cow::Borrowed(self.wire),
            Some(key) => self.wire.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect(),
        }
    }
}

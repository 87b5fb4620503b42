//! What a replay of a stream consists of.

use bytes::Bytes;

use crate::{
    model::MicrosSince,
    wire::stream::{Channel, CommandStatus, Side},
};

/// One thing that happened on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFrame {
    /// When the last of its bytes passed, since the request was received.
    pub at_us: MicrosSince,
    /// Who sent it.
    pub side: Side,
    /// What it is.
    pub kind: FrameKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A channel came to be.
    Opened(Channel),
    /// Bytes of a channel.
    Data {
        /// Which channel.
        channel: Channel,
        /// The bytes as the other end understood them: unmasked, decoded.
        data: Bytes,
    },
    /// Bytes of stdin of which only the size was kept, as policy said.
    Withheld {
        /// Which channel.
        channel: Channel,
        /// How many.
        bytes: u64,
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
    /// The sender sends nothing more on the channel.
    Closed(Channel),
    /// The sender gave the channel up.
    Reset {
        /// Which channel.
        channel: Channel,
        /// SPDY's status code.
        code: u32,
    },
    /// The sender says that the connection is over.
    Ended {
        /// RFC 6455 §7.4, or SPDY's.
        code: u32,
    },
    /// The two ends may have read what follows in different ways; here it is decoded by the book.
    Doubtful {
        /// Offset in the sender's bytes.
        offset: u64,
        /// Why.
        reason: &'static str,
    },
    /// From here on the sender's bytes are not understood: they follow as [`FrameKind::Raw`].
    Undecodable {
        /// Offset in the sender's bytes.
        offset: u64,
        /// Why.
        reason: &'static str,
    },
    /// Bytes that could not be decoded, as they are stored.
    Raw(Bytes),
    /// Bytes of the sender that are not in the record.
    Hole {
        /// Offset of the first one that is missing.
        from: u64,
        /// Offset of the first one that is there again.
        to: u64,
    },
}

impl StreamFrame {
    /// The bytes of this channel, if it carries any.
    #[must_use]
    pub fn data_of(&self, wanted: Channel) -> Option<&Bytes> {
        match &self.kind {
            FrameKind::Data { channel, data } if *channel == wanted => Some(data),
            _ => None,
        }
    }
}

/// A channel's word in listings.
#[must_use]
pub fn channel_word(channel: Channel) -> String {
    match channel {
        Channel::Stdin => "stdin".into(),
        Channel::Stdout => "stdout".into(),
        Channel::Stderr => "stderr".into(),
        Channel::Error => "error".into(),
        Channel::Resize => "resize".into(),
        Channel::Port(port) => format!("port {} #{}", port.port, port.request),
        Channel::PortError(port) => format!("error of port {} #{}", port.port, port.request),
        Channel::Unknown(number) => format!("channel {number}"),
    }
}

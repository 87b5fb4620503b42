//! What a stream carried, in numbers.

use serde::Serialize;

use super::{
    copy::CopiedFiles,
    forward::Connections,
    frame::{FrameKind, StreamFrame, channel_word},
    head::StreamHead,
};
use crate::{
    model::MicrosSince,
    wire::stream::{Channel, CommandStatus, Side},
};

/// Channels beyond these are summed up in one: nothing that speaks the protocols has so many.
const CHANNELS_MAX: usize = 16;

/// What one channel carried one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelTotal {
    /// Its word.
    pub channel: String,
    /// `client` or `server`.
    pub from: &'static str,
    /// How many bytes.
    pub bytes: u64,
    /// In how many frames.
    pub frames: u64,
}

/// What a stream carried.
#[derive(Debug, Default)]
pub struct StreamSummary {
    /// Bytes by channel and sender, in the order in which they were first seen.
    pub channels: Vec<ChannelTotal>,
    /// When the last frame passed.
    pub last_at_us: MicrosSince,
    /// The first size of the terminal.
    pub size: Option<(u16, u16)>,
    /// How the command ended, as the error channel says.
    pub status: Option<CommandStatus>,
    /// Bytes that could not be decoded.
    pub raw_bytes: u64,
    /// Why they could not, first reason first; at most one for each side.
    pub undecodable: Vec<String>,
    /// Why the two ends may have read bytes in different ways; at most one for each side.
    pub doubtful: Vec<String>,
    /// Bytes that are not in the record.
    pub missing_bytes: u64,
    /// The connections of a port-forward.
    pub connections: Connections,
    /// The files of a `kubectl cp`.
    pub copied: Option<CopiedFiles>,
}

impl StreamSummary {
    /// An empty summary of this stream.
    #[must_use]
    pub fn new(head: &StreamHead) -> Self {
        Self { copied: CopiedFiles::of(head), ..Self::default() }
    }

    /// Takes a frame.
    pub fn push(&mut self, frame: &StreamFrame) {
        self.last_at_us = self.last_at_us.max(frame.at_us);
        self.connections.push(frame);
        if let Some(copied) = &mut self.copied {
            copied.push(frame);
        }
        match &frame.kind {
            FrameKind::Data { channel, data } => {
                self.count(*channel, frame.side, u64::try_from(data.len()).unwrap_or(u64::MAX));
            }
            FrameKind::Withheld { channel, bytes } => self.count(*channel, frame.side, *bytes),
            FrameKind::Resize { columns, rows } => {
                self.size.get_or_insert((*columns, *rows));
            }
            FrameKind::Status(status) => self.status = Some(status.clone()),
            FrameKind::Raw(data) => {
                self.raw_bytes += u64::try_from(data.len()).unwrap_or(u64::MAX);
            }
            FrameKind::Undecodable { reason, .. } => self.undecodable.push((*reason).into()),
            FrameKind::Doubtful { reason, .. } => self.doubtful.push((*reason).into()),
            FrameKind::Hole { from, to } => self.missing_bytes += to.saturating_sub(*from),
            FrameKind::Opened(_)
            | FrameKind::Closed(_)
            | FrameKind::Reset { .. }
            | FrameKind::Ended { .. } => {}
        }
    }

    fn count(&mut self, channel: Channel, side: Side, bytes: u64) {
        // Connections have a list of their own.
        let word = match channel {
            Channel::Port(_) => "ports".into(),
            Channel::PortError(_) => "errors of ports".into(),
            channel => channel_word(channel),
        };
        let from = side_word(side);
        let known =
            self.channels.iter().position(|total| total.channel == word && total.from == from);
        let place = known.unwrap_or_else(|| {
            let full = self.channels.len() >= CHANNELS_MAX;
            if !full {
                self.channels.push(ChannelTotal { channel: word, from, bytes: 0, frames: 0 });
            } else if self.channels.len() == CHANNELS_MAX {
                let channel = "others".into();
                self.channels.push(ChannelTotal { channel, from: "both", bytes: 0, frames: 0 });
            }
            self.channels.len() - 1
        });
        self.channels[place].bytes += bytes;
        self.channels[place].frames += 1;
    }
}

/// The side's word.
#[must_use]
pub const fn side_word(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

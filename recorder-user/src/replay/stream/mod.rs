//! Upgraded connections, and followed logs, as they went: frames in time, decoded from the stored bytes.
//!
//! A recording may be gigabytes: [`StreamRecording`] reads it record by record, and whatever is collected
//! of it has a stated bound. What cannot be decoded is a frame like any other ([`FrameKind::Raw`],
//! [`FrameKind::Hole`], [`FrameKind::Undecodable`]): it is shown as what it is, and nothing is skipped.

mod copy;
mod emulator;
mod forward;
mod frame;
mod head;
mod lines;
mod recording;
mod sequence;
mod summary;
mod utf8;

pub use copy::{CopiedFile, CopiedFiles, FILES_MAX};
pub use emulator::{COLUMNS_MAX, Colour, Emulator, ROWS_MAX, Run, SCREEN_DEFAULT, Style};
pub use forward::{CONNECTIONS_MAX, Connection, Connections};
pub use frame::{FrameKind, StreamFrame, channel_word};
pub use head::{StreamEnd, StreamHead, command_line, is_log, may_be_stream};
pub use lines::{LINE_BYTES_MAX, Lines, Text, TimedLine};
pub use recording::{OpenStreamError, StreamRecording};
pub use summary::{ChannelTotal, StreamSummary, side_word};
pub use utf8::Utf8;

//! Recorded streams in the formats of others: asciicast for players, text, and the bytes themselves.
//!
//! A library, as `replay` is: it writes to what it is given and knows of no terminal. Exports are written
//! frame by frame, so that a recording of any size can be exported.

mod asciicast;
mod plain;

use std::io::{self, Write};

use crate::{
    replay::stream::{FrameKind, OpenStreamError, StreamFrame, StreamRecording},
    store::{ExchangeRow, ReadError, Reader},
    wire::stream::Channel,
};

pub use asciicast::CastVersion;

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// asciicast, for asciinema and its player.
    Asciicast(CastVersion),
    /// UTF-8 text; what a terminal was sent is drawn, and its lines are written.
    Text,
    /// A channel's bytes exactly.
    Raw,
}

/// A channel of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// What was typed.
    Stdin,
    /// What it printed.
    Stdout,
    /// What it printed as errors; with a terminal there is none.
    Stderr,
}

impl Selected {
    const fn channel(self) -> Channel {
        match self {
            Self::Stdin => Channel::Stdin,
            Self::Stdout => Channel::Stdout,
            Self::Stderr => Channel::Stderr,
        }
    }

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What to export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// As what.
    pub format: Format,
    /// Only this channel. Without it an asciicast has stdout and stderr, other formats have stdout.
    pub channel: Option<Selected>,
    /// Whether an asciicast has what was typed, too.
    pub input: bool,
}

/// An export could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The stream could not be opened.
    #[error(transparent)]
    Open(#[from] OpenStreamError),
    /// The records could not be read on.
    #[error("cannot read the records of the stream")]
    Read(#[from] ReadError),
    /// The protocol has no such channels: a port-forward, or one that nobody here understands.
    #[error("a stream of kind {kind} has no stdin, stdout or stderr to export")]
    NoChannels {
        /// Its kind.
        kind: &'static str,
    },
    /// The output could not be written.
    #[error("cannot write the export")]
    Write(#[from] io::Error),
}

/// What an export could not hold; all zero where it holds everything that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Bytes of the connection that could not be decoded.
    pub undecoded_bytes: u64,
    /// Bytes of the connection that are not in the record.
    pub missing_bytes: u64,
    /// Bytes of the chosen stdin of which only the size was kept.
    pub withheld_bytes: u64,
    /// Bytes of stderr that were not asked for.
    pub stderr_bytes: u64,
    /// Times that a full-screen program drew: text holds lines alone.
    pub full_screens: u64,
}

/// Writes a stream to `out`.
///
/// # Errors
/// When it cannot be read or written, or has nothing that the format could hold.
pub fn export(
    reader: &Reader,
    row: &ExchangeRow,
    options: &Options,
    out: &mut dyn Write,
) -> Result<LeftOut, ExportError> {
    let mut recording = StreamRecording::open(reader, row)?;
    if !recording.head().has_channels() {
        return Err(ExportError::NoChannels { kind: recording.head().kind() });
    }
    let left_out = match options.format {
        Format::Asciicast(version) => {
            let size = first_size(reader, row)?;
            asciicast::write(&mut recording, version, size, options, out)?
        }
        Format::Text | Format::Raw => plain::write(&mut recording, options, out)?,
    };
    out.flush()?;
    Ok(left_out)
}

/// The first size that the client told, looked for before anything is written: the header has it.
fn first_size(reader: &Reader, row: &ExchangeRow) -> Result<Option<(u16, u16)>, ExportError> {
    let mut recording = StreamRecording::open(reader, row)?;
    if !recording.head().has_terminal() {
        return Ok(None);
    }
    while let Some(frame) = recording.next_frame()? {
        if let FrameKind::Resize { columns: columns @ 1.., rows: rows @ 1.. } = frame.kind {
            return Ok(Some((columns, rows)));
        }
    }
    Ok(None)
}

impl LeftOut {
    fn note(&mut self, frame: &StreamFrame, options: &Options) {
        let length = |data: &bytes::Bytes| u64::try_from(data.len()).unwrap_or(u64::MAX);
        match &frame.kind {
            FrameKind::Raw(data) => self.undecoded_bytes += length(data),
            FrameKind::Hole { from, to } => self.missing_bytes += to.saturating_sub(*from),
            FrameKind::Withheld { bytes, .. }
                if options.input || options.channel == Some(Selected::Stdin) =>
            {
                self.withheld_bytes += bytes;
            }
            FrameKind::Data { channel: Channel::Stderr, data }
                if options.channel.is_none()
                    && matches!(options.format, Format::Text | Format::Raw) =>
            {
                self.stderr_bytes += length(data);
            }
            _ => {}
        }
    }
}

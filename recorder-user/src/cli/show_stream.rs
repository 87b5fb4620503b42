//! What `recorder show` says of an upgraded connection.

use serde::Serialize;

use super::{
    CliError, frame_json::FrameShown, library::failed, screen::Screen, stream, stream_views, text,
};
use crate::{
    model::{ExchangeOpened, ExchangeSettled, StreamFacts, StreamRequest},
    replay::stream::{
        ChannelTotal, Connection, CopiedFile, CopiedFiles, FILES_MAX, FrameKind, OpenStreamError,
        StreamEnd, StreamHead, StreamRecording, StreamSummary,
    },
    store::{ExchangeRow, Reader},
    wire::tar::Direction,
};

/// `show --json` names so many frames; what is over is counted, and `replay --json` has all.
const FRAMES_MAX: usize = 10_000;

/// `show --json` holds so many bytes of frames.
const FRAME_BYTES_MAX: usize = 8 << 20;

/// More files of a `kubectl cp` are counted, not listed.
const FILES_SHOWN_MAX: usize = 200;

/// A stream, gone through once.
pub(super) struct StreamLoaded {
    head: StreamHead,
    end: StreamEnd,
    pub(super) summary: StreamSummary,
    pub(super) frames: Vec<FrameShown>,
    pub(super) frames_left_out: u64,
}

impl StreamLoaded {
    /// None where no stream came of the request.
    pub(super) fn load(
        reader: &Reader,
        row: &ExchangeRow,
        frames: bool,
    ) -> Result<Option<Self>, CliError> {
        let read = |error| failed("read", reader.directory(), error);
        let mut recording = match StreamRecording::open(reader, row) {
            Ok(recording) => recording,
            Err(OpenStreamError::NotAStream | OpenStreamError::NotAnswered) => return Ok(None),
            Err(OpenStreamError::Read(error)) => return Err(read(error)),
        };
        let mut loaded = Self {
            head: recording.head().clone(),
            end: StreamEnd::Open,
            summary: StreamSummary::new(recording.head()),
            frames: Vec::new(),
            frames_left_out: 0,
        };
        let mut room = FRAME_BYTES_MAX;
        while let Some(frame) = recording.next_frame().map_err(read)? {
            loaded.summary.push(&frame);
            if !frames {
                continue;
            }
            let bytes = match &frame.kind {
                FrameKind::Data { data, .. } | FrameKind::Raw(data) => data.len(),
                _ => 0,
            };
            // All that comes after the first one left out is, so that there are no holes.
            let fits =
                loaded.frames_left_out == 0 && loaded.frames.len() < FRAMES_MAX && bytes <= room;
            if fits {
                room -= bytes;
                loaded.frames.push(FrameShown::new(&frame));
            } else {
                loaded.frames_left_out += 1;
            }
        }
        loaded.end = recording.end();
        Ok(Some(loaded))
    }

    /// The stream for people.
    pub(super) fn print(&self, row: &ExchangeRow, screen: &mut Screen<'_>) -> Result<(), CliError> {
        screen.line("")?;
        for line in stream::header(&self.head, screen.look) {
            screen.line(&line)?;
        }
        if !self.summary.connections.told.is_empty() {
            screen.line("")?;
            stream_views::connections(&self.summary.connections, screen)?;
        }
        if let Some(copied) = &self.summary.copied {
            screen.line("")?;
            for file in copied.files.iter().take(FILES_SHOWN_MAX) {
                screen.line(&text::copied_file(file))?;
            }
            let rest = copied.files.len().saturating_sub(FILES_SHOWN_MAX);
            let rest = copied.left_out + u64::try_from(rest).unwrap_or(u64::MAX);
            if rest > 0 {
                screen.line(&format!("… {rest} more; --json names up to {FILES_MAX}"))?;
            }
        }
        stream_views::closing(&self.summary, &self.end, screen)?;
        let id = text::short_id(&row.exchange);
        screen.line("")?;
        screen.line(&format!("see it with: recorder replay {id}"))?;
        Ok(())
    }
}

/// `show --json`: what is known of the connection besides its frames.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StreamShown<'a> {
    request: Option<&'a StreamRequest>,
    facts: Option<&'a StreamFacts>,
    channels: Vec<ChannelTotal>,
    connections: Vec<Connection>,
    connections_left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    copied: Option<CopiedShown>,
    undecodable: Vec<String>,
    doubtful: Vec<String>,
    missing_bytes: u64,
}

/// The files of a `kubectl cp`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CopiedShown {
    /// `into` or `outOf` the container.
    way: &'static str,
    path: String,
    files: Vec<CopiedFile>,
    files_left_out: u64,
    content_bytes: u64,
    complete: bool,
    error: Option<String>,
}

impl From<CopiedFiles> for CopiedShown {
    fn from(copied: CopiedFiles) -> Self {
        Self {
            way: match copied.copied.direction {
                Direction::IntoContainer => "into",
                Direction::OutOfContainer => "outOf",
            },
            complete: copied.is_complete(),
            path: copied.copied.path,
            files: copied.files,
            files_left_out: copied.left_out,
            content_bytes: copied.content_bytes,
            error: copied.error,
        }
    }
}

impl<'a> StreamShown<'a> {
    pub(super) fn new(
        opened: &'a ExchangeOpened,
        settled: Option<&'a ExchangeSettled>,
        summary: StreamSummary,
    ) -> Self {
        Self {
            request: opened.stream.as_ref(),
            facts: settled.and_then(|settled| settled.stream.as_ref()),
            channels: summary.channels,
            connections: summary.connections.told,
            connections_left_out: summary.connections.left_out,
            copied: summary.copied.map(CopiedShown::from),
            undecodable: summary.undecodable,
            doubtful: summary.doubtful,
            missing_bytes: summary.missing_bytes,
        }
    }
}

//! `kubectl cp`: the files in the tar stream, by name and size. Nothing is ever extracted.

use serde::Serialize;

use super::{
    frame::{FrameKind, StreamFrame},
    head::StreamHead,
};
use crate::wire::{
    stream::Channel,
    tar::{Copied, Direction, Entry, EntryKind, Listing, copied},
};

/// Of one copy so many entries are named; the others are counted.
pub const FILES_MAX: usize = 10_000;

/// A longer path is cut: Linux knows none.
const PATH_BYTES_MAX: usize = 4096;

/// One entry of the tar stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopiedFile {
    /// As it stands in the stream, with whatever `..` it holds.
    pub path: String,
    /// Bytes of content.
    pub bytes: u64,
    /// `file`, `directory`, `symlink`, `hardlink` or `other`.
    pub kind: &'static str,
    /// Where a link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// What a `kubectl cp` carried, as far as its tar stream tells.
#[derive(Debug)]
pub struct CopiedFiles {
    /// Which way, and where.
    pub copied: Copied,
    /// In order; at most [`FILES_MAX`].
    pub files: Vec<CopiedFile>,
    /// How many entries are over the bound.
    pub left_out: u64,
    /// Bytes of content that all entries announce.
    pub content_bytes: u64,
    /// Why the stream could not be listed to its end.
    pub error: Option<String>,
    listing: Listing,
}

impl CopiedFiles {
    /// None where the command is not one that `kubectl cp` executes.
    #[must_use]
    pub fn of(head: &StreamHead) -> Option<Self> {
        let copied = copied(&head.request.as_ref()?.command)?;
        let error = (copied.skipped_bytes > 0).then(|| {
            format!("resumed after {} bytes: its names came before", copied.skipped_bytes)
        });
        Some(Self {
            copied,
            files: Vec::new(),
            left_out: 0,
            content_bytes: 0,
            error,
            listing: Listing::new(),
        })
    }

    /// The channel that carries the tar stream.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self.copied.direction {
            Direction::IntoContainer => Channel::Stdin,
            Direction::OutOfContainer => Channel::Stdout,
        }
    }

    /// Whether the end of the archive was seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.listing.is_complete()
    }

    /// Takes a frame; frames of other channels are passed over.
    pub fn push(&mut self, frame: &StreamFrame) {
        match &frame.kind {
            FrameKind::Withheld { channel, .. } if *channel == self.channel() => {
                self.error.get_or_insert_with(|| "only its size was kept".into());
            }
            // What comes after bytes that are missing is no longer the stream that was listed.
            FrameKind::Hole { .. } | FrameKind::Undecodable { .. } => {
                self.error.get_or_insert_with(|| "the record of the stream has a gap".into());
            }
            _ => {}
        }
        if self.error.is_some() {
            return;
        }
        let Some(data) = frame.data_of(self.channel()) else { return };
        let (files, left_out, content) =
            (&mut self.files, &mut self.left_out, &mut self.content_bytes);
        let pushed = self.listing.push(data, &mut |entry| {
            *content = content.saturating_add(entry.size);
            if files.len() < FILES_MAX {
                files.push(file(&entry));
            } else {
                *left_out += 1;
            }
        });
        if let Err(error) = pushed {
            self.error = Some(error.to_string());
        }
    }
}

fn file(entry: &Entry) -> CopiedFile {
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[..bytes.len().min(PATH_BYTES_MAX)]).into_owned()
    };
    CopiedFile {
        path: text(&entry.path),
        bytes: entry.size,
        kind: match entry.kind {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink => "symlink",
            EntryKind::HardLink => "hardlink",
            EntryKind::Other(_) => "other",
        },
        link: entry.link.as_deref().map(text),
    }
}

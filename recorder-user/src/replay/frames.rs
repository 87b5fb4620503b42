//! Watch events out of stored chunks, with the time at which each was delivered.

use bytes::Bytes;
use serde::Serialize;

use crate::{
    model::{Chunk, Direction, MicrosSince},
    wire::{
        gzip::{Gunzip, GunzipError},
        kubernetes::{Document, ObjectFacts},
        watch::{Framing, Splitter},
    },
};

/// One watch event, as it was delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// When its last byte passed, since the request was received.
    pub at_us: MicrosSince,
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`, `ERROR`; empty when it could not be decoded.
    #[serde(rename = "type")]
    pub event: String,
    /// The object's kind; empty where the event does not carry it.
    pub kind: String,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's uid.
    pub uid: String,
    /// The object's resource version.
    pub resource_version: String,
    /// What an `ERROR` says, as `Expired 410`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Events of one watch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// At most [`FRAMES_MAX`].
    pub frames: Vec<Frame>,
    /// How many are over the bound.
    pub left_out: u64,
    /// Bytes at the end that are no whole event: the stream was cut, damaged, or is not of a known
    /// form.
    pub undecoded_bytes: u64,
}

impl Frames {
    /// Keeps at most so many frames, and counts the others as left out.
    pub fn truncate(&mut self, frames_max: usize) {
        let over = self.frames.len().saturating_sub(frames_max);
        self.frames.truncate(frames_max);
        self.left_out += u64::try_from(over).unwrap_or(u64::MAX);
    }
}

/// Replays name so many events of one watch; what is over is counted.
pub const FRAMES_MAX: usize = 10_000;

/// Decodes the events of a watch.
#[must_use]
pub fn watch_frames(chunks: &[Chunk], content_type: Option<&str>, encoding: &str) -> Frames {
    let mut found = Frames::default();
    let mut decoder = WatchDecoder::new(content_type, encoding);
    for chunk in chunks {
        for frame in decoder.push(chunk) {
            if found.frames.len() < FRAMES_MAX {
                found.frames.push(frame);
            } else {
                found.left_out += 1;
            }
        }
    }
    found.undecoded_bytes = decoder.undecoded_bytes();
    found
}

/// Decodes the events of a watch chunk by chunk.
pub struct WatchDecoder {
    /// None where the form is not known.
    splitter: Option<(Framing, Splitter)>,
    gunzip: Option<Gunzip>,
    next_offset: u64,
    damaged: bool,
    undecoded_bytes: u64,
}

impl WatchDecoder {
    /// For a response with these headers.
    #[must_use]
    pub fn new(content_type: Option<&str>, encoding: &str) -> Self {
        Self {
            splitter: Framing::of(content_type).map(|framing| (framing, Splitter::new(framing))),
            gunzip: matches!(encoding, "gzip" | "x-gzip").then(Gunzip::new),
            next_offset: 0,
            damaged: false,
            undecoded_bytes: 0,
        }
    }

    /// The events that a chunk completes.
    pub fn push(&mut self, chunk: &Chunk) -> Vec<Frame> {
        let mut frames = Vec::new();
        if chunk.direction != Direction::Response {
            return frames;
        }
        let Some((framing, splitter)) = &mut self.splitter else {
            self.undecoded_bytes += length(chunk);
            return frames;
        };
        // Behind a hole nothing tells where an event begins.
        self.damaged |= chunk.offset != self.next_offset;
        self.next_offset = chunk.offset.saturating_add(length(chunk));
        let mut events = Vec::new();
        if !self.damaged {
            self.damaged = !split(&chunk.data, self.gunzip.as_mut(), splitter, &mut events);
        }
        if self.damaged {
            self.undecoded_bytes += length(chunk);
        }
        for event in events {
            note(&mut frames, chunk.at_us, *framing, &event);
        }
        frames
    }

    /// Bytes that are no whole event so far.
    #[must_use]
    pub fn undecoded_bytes(&self) -> u64 {
        let pending = self.splitter.as_ref().map_or(0, |(_, splitter)| splitter.pending_bytes());
        self.undecoded_bytes + u64::try_from(pending).unwrap_or(u64::MAX)
    }
}

fn length(chunk: &Chunk) -> u64 {
    u64::try_from(chunk.data.len()).unwrap_or(u64::MAX)
}

/// Whether all bytes could be taken; the events that are now whole are appended in any case.
fn split(
    data: &[u8],
    gunzip: Option<&mut Gunzip>,
    splitter: &mut Splitter,
    events: &mut Vec<Bytes>,
) -> bool {
    match gunzip {
        None => splitter.push(data, events).is_ok(),
        Some(gunzip) => gunzip
            .push(data, |plain| splitter.push(plain, events).map_err(|_| GunzipError::OverBound))
            .is_ok(),
    }
}

fn note(found: &mut Vec<Frame>, at_us: MicrosSince, framing: Framing, bytes: &[u8]) {
    let document = match framing {
        Framing::Json => Document::from_json(bytes),
        Framing::Protobuf => Document::from_watch_protobuf(bytes).unwrap_or_default(),
    };
    let event = document.event.clone();
    let frame = |facts: &ObjectFacts| Frame {
        at_us,
        event: event.clone(),
        kind: known_kind(&facts.kind).into(),
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        uid: facts.uid.clone(),
        resource_version: facts.resource_version.clone(),
        reason: String::new(),
    };
    let mut frames: Vec<_> = document.objects().map(frame).collect();
    if frames.is_empty() {
        // A Status, a Table without rows, or something unknown: an event all the same.
        let status = &document.status;
        let reason = match status.code {
            0 => status.reason.clone(),
            code => format!("{} {code}", status.reason),
        };
        let kind = known_kind(&document.kind).into();
        frames.push(Frame { at_us, event, kind, reason, ..Frame::default() });
    }
    found.append(&mut frames);
}

/// Tables carry the metadata of their objects alone; the watch's own resource says more then.
fn known_kind(kind: &str) -> &str {
    if kind == "PartialObjectMetadata" { "" } else { kind }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::model::ExchangeId;

    fn chunks(parts: &[&[u8]]) -> Vec<Chunk> {
        let exchange = ExchangeId::new();
        let (mut offset, mut at_us) = (0, 0);
        let mut chunks = Vec::new();
        for part in parts {
            at_us += 1000;
            let data = Bytes::copy_from_slice(part);
            let direction = Direction::Response;
            chunks.push(Chunk { exchange, direction, at_us, offset, data });
            offset += part.len() as u64;
        }
        chunks
    }

    fn told(frames: &Frames) -> Vec<String> {
        let tell = |f: &Frame| {
            format!("{} {} {} {}/{} {}", f.at_us, f.event, f.kind, f.namespace, f.name, f.reason)
        };
        frames.frames.iter().map(tell).collect()
    }

    const ADDED: &[u8] = br#"{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-0","namespace":"shop","uid":"u1","resourceVersion":"7"}}}"#;
    const TABLE: &[u8] = br#"{"type":"MODIFIED","object":{"kind":"Table","apiVersion":"meta.k8s.io/v1","rows":[{"cells":["a"],"object":{"kind":"PartialObjectMetadata","metadata":{"name":"web-1","namespace":"shop"}}}]}}"#;
    const ERROR: &[u8] = br#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","reason":"Expired","code":410}}"#;

    #[test]
    fn events_have_the_time_of_their_last_byte() {
        let (head, tail) = ADDED.split_at(40);
        let parts = [head, tail, b"\n", TABLE, b"\n", ERROR, b"\n{\"type\""];
        let frames = watch_frames(&chunks(&parts), Some("application/json"), "");
        assert_eq!(
            told(&frames),
            [
                "3000 ADDED Pod shop/web-0 ",
                "5000 MODIFIED  shop/web-1 ",
                "7000 ERROR Status / Expired 410"
            ]
        );
        assert_eq!(frames.frames[0].uid, "u1");
        assert_eq!((frames.left_out, frames.undecoded_bytes), (0, 7));
    }

    #[test]
    fn compressed_watches_are_unpacked() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(ADDED).expect("a Vec");
        packer.write_all(b"\n").expect("a Vec");
        let packed = packer.finish().expect("a Vec");
        let (head, tail) = packed.split_at(20);
        let frames = watch_frames(&chunks(&[head, tail]), None, "gzip");
        assert_eq!(told(&frames), ["2000 ADDED Pod shop/web-0 "]);
    }

    #[test]
    fn behind_a_hole_nothing_is_guessed() {
        let mut chunks = chunks(&[ADDED, b"\n", ADDED, b"\n"]);
        chunks.remove(2);
        let frames = watch_frames(&chunks, Some("application/json"), "");
        assert_eq!((frames.frames.len(), frames.undecoded_bytes), (1, 1));
        let frames = watch_frames(&chunks, Some("application/cbor-seq"), "");
        assert_eq!((frames.frames.len(), frames.undecoded_bytes), (0, ADDED.len() as u64 + 2));
    }

    #[test]
    fn the_bound_counts_what_is_over() {
        let many = b"{\"type\":\"ADDED\",\"object\":{}}\n".repeat(FRAMES_MAX + 3);
        let frames = watch_frames(&chunks(&[&many]), None, "");
        assert_eq!((frames.frames.len(), frames.left_out), (FRAMES_MAX, 3));
        let mut frames = frames;
        frames.truncate(1);
        assert_eq!((frames.frames.len(), frames.left_out), (1, FRAMES_MAX as u64 + 2));
    }
}

//! Watch streams: where one event ends and the next begins.
//!
//! JSON events are one document per line; protobuf events follow a four-byte big-endian length.

use bytes::{Buf, Bytes, BytesMut};

use super::Media;

/// Bytes of one frame that [`Splitter`] keeps; a longer one is an error. Objects are bounded by etcd at
/// 1.5 MiB; JSON with managed fields may be several times that.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// How events are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON document per line.
    Json,
    /// Four bytes of length, big-endian, then the event.
    Protobuf,
}

impl Framing {
    /// By the response's `Content-Type`; none for a framing that we do not know (CBOR).
    #[must_use]
    pub fn of(content_type: Option<&str>) -> Option<Self> {
        match Media::of(content_type) {
            Media::Json => Some(Self::Json),
            Media::Protobuf => Some(Self::Protobuf),
            Media::Yaml | Media::Other => None,
        }
    }
}

/// What is known of how a stream of JSON uses line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    /// No document has ended yet.
    Unknown,
    /// The first document took one line, as an API server writes them: line ends are nowhere else.
    OneEach,
    /// The first document took several.
    Many,
}

/// Tells whether a stream stands between two frames, in constant memory.
///
/// It is what decides whether an event of our own may be appended when a watch is cut. Every byte of every watch comes
/// by here, so a stream whose first event took one line is not read any further than to the end of each piece.
#[derive(Clone, Debug)]
pub struct FrameTracker(Track);

#[derive(Clone, Debug)]
enum Track {
    Json { documents: JsonTrack, lines: Lines },
    Protobuf { header: [u8; 4], header_bytes: usize, rest: u64 },
}

impl FrameTracker {
    /// At the start of a stream, which is a boundary.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Json => Track::Json { documents: JsonTrack::default(), lines: Lines::Unknown },
            Framing::Protobuf => Track::Protobuf { header: [0; 4], header_bytes: 0, rest: 0 },
        })
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, mut bytes: &[u8]) {
        match &mut self.0 {
            Track::Json { documents, lines: Lines::OneEach } => {
                if let Some(last) = bytes.last() {
                    documents.in_line = *last != b'\n';
                }
            }
            Track::Json { documents, lines } => {
                for (index, byte) in bytes.iter().enumerate() {
                    let blank = !documents.in_line;
                    documents.push(*byte);
                    if *byte != b'\n' || blank || *lines != Lines::Unknown {
                        continue;
                    }
                    if documents.in_line {
                        *lines = Lines::Many;
                    } else {
                        *lines = Lines::OneEach;
                        return self.push(&bytes[index + 1..]);
                    }
                }
            }
            Track::Protobuf { header, header_bytes, rest } => {
                while !bytes.is_empty() {
                    if *rest > 0 {
                        let step = usize::try_from(*rest).unwrap_or(usize::MAX).min(bytes.len());
                        bytes = &bytes[step..];
                        *rest -= step as u64;
                        continue;
                    }
                    header[*header_bytes] = bytes[0];
                    bytes = &bytes[1..];
                    *header_bytes += 1;
                    if *header_bytes == header.len() {
                        *header_bytes = 0;
                        *rest = u32::from_be_bytes(*header).into();
                    }
                }
            }
        }
    }

    /// Whether every frame so far is whole.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        match &self.0 {
            Track::Json { documents, .. } => documents.at_boundary(),
            Track::Protobuf { header_bytes, rest, .. } => *header_bytes == 0 && *rest == 0,
        }
    }
}

/// Follows JSON just closely enough to know which line ends are outside of documents.
#[derive(Clone, Debug, Default)]
struct JsonTrack {
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// Something follows the last line end.
    in_line: bool,
}

impl JsonTrack {
    fn push(&mut self, byte: u8) {
        self.in_line = true;
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b'\n' if self.depth == 0 => self.in_line = false,
            _ => {}
        }
    }

    fn at_boundary(&self) -> bool {
        !self.in_line
    }
}

/// A frame is longer than [`FRAME_BYTES_MAX`]; the stream cannot be split further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("watch frame of more than {FRAME_BYTES_MAX} bytes")]
pub struct FrameOverBound;

/// Cuts a watch stream into frames.
#[derive(Debug)]
pub struct Splitter {
    framing: Framing,
    buffer: BytesMut,
    track: JsonTrack,
    /// Bytes of the buffer that `track` has seen.
    tracked: usize,
    failed: bool,
}

impl Splitter {
    /// At the start of a stream.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            buffer: BytesMut::new(),
            track: JsonTrack::default(),
            tracked: 0,
            failed: false,
        }
    }

    /// Takes the next bytes and appends every frame that is now whole: the event alone, without line
    /// end or length. Empty lines are no frames.
    ///
    /// # Errors
    /// Once a frame is over the bound; what was split before is in `frames`, and nothing more comes.
    pub fn push(&mut self, bytes: &[u8], frames: &mut Vec<Bytes>) -> Result<(), FrameOverBound> {
        if self.failed {
            return Err(FrameOverBound);
        }
        // Fed in pieces so that the buffer never holds more than a frame and a piece.
        for piece in bytes.chunks(FRAME_BYTES_MAX) {
            self.buffer.extend_from_slice(piece);
            let split = match self.framing {
                Framing::Json => self.split_json(frames),
                Framing::Protobuf => self.split_protobuf(frames),
            };
            if let Err(error) = split {
                self.failed = true;
                self.buffer = BytesMut::new();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Bytes of a frame that is not whole yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn split_json(&mut self, frames: &mut Vec<Bytes>) -> Result<(), FrameOverBound> {
        while let Some(byte) = self.buffer.get(self.tracked) {
            self.track.push(*byte);
            self.tracked += 1;
            if !self.track.at_boundary() {
                continue;
            }
            let line = self.buffer.split_to(self.tracked).freeze();
            self.tracked = 0;
            let frame = line.slice(..line.len() - 1);
            if frame.len() > FRAME_BYTES_MAX {
                return Err(FrameOverBound);
            }
            if !frame.trim_ascii().is_empty() {
                frames.push(frame);
            }
        }
        if self.buffer.len() > FRAME_BYTES_MAX { Err(FrameOverBound) } else { Ok(()) }
    }

    fn split_protobuf(&mut self, frames: &mut Vec<Bytes>) -> Result<(), FrameOverBound> {
        while let Some(header) = self.buffer.first_chunk::<4>() {
            let length = u32::from_be_bytes(*header) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(FrameOverBound);
            }
            if self.buffer.len() < 4 + length {
                break;
            }
            self.buffer.advance(4);
            frames.push(self.buffer.split_to(length).freeze());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(framing: Framing, bytes: &[u8], chunk: usize) -> (Vec<Bytes>, usize) {
        let mut splitter = Splitter::new(framing);
        let mut frames = Vec::new();
        for part in bytes.chunks(chunk) {
            splitter.push(part, &mut frames).expect("small frames");
        }
        (frames, splitter.pending_bytes())
    }

    #[test]
    fn json_lines() {
        let bytes = b"{\"a\":\"}\\\"\\n{\"}\n\n {\n\"b\": [1,\n2]}\r\n{\"c\"";
        for chunk in 1..bytes.len() {
            let (frames, pending) = split(Framing::Json, bytes, chunk);
            assert_eq!(frames.len(), 2);
            assert_eq!(frames[0], &b"{\"a\":\"}\\\"\\n{\"}"[..]);
            assert_eq!(frames[1], &b" {\n\"b\": [1,\n2]}\r"[..]);
            assert_eq!(pending, 4);
        }
    }

    #[test]
    fn boundaries_of_documents_of_many_lines() {
        let documents = ["{\n\"a\": \"}\",\n\"b\": [\n1]\n}\n", "{\n}\n"];
        let stream = format!("\n{}{}", documents[0], documents[1]).into_bytes();
        let ends = [0, 1, 1 + documents[0].len()];
        let mut tracker = FrameTracker::new(Framing::Json);
        for (index, byte) in stream.iter().enumerate() {
            assert_eq!(tracker.at_boundary(), ends.contains(&index), "before {index}");
            tracker.push(&[*byte]);
        }
        assert!(tracker.at_boundary());
    }

    #[test]
    fn over_the_bound_is_an_error_and_stays_one() {
        let mut frames = Vec::new();
        let mut splitter = Splitter::new(Framing::Protobuf);
        assert!(splitter.push(b"\0\0\0\x01x\xff\xff\xff\xff", &mut frames).is_err());
        assert_eq!(frames, [Bytes::from_static(b"x")]);
        assert!(splitter.push(b"\0\0\0\x01y", &mut frames).is_err());
        assert_eq!(frames.len(), 1);
        let mut splitter = Splitter::new(Framing::Json);
        assert!(splitter.push(&vec![b'1'; FRAME_BYTES_MAX + 1], &mut frames).is_err());
    }

    #[test]
    fn framing_by_content_type() {
        assert_eq!(Framing::of(Some("application/json")), Some(Framing::Json));
        let protobuf = "application/vnd.kubernetes.protobuf;stream=watch";
        assert_eq!(Framing::of(Some(protobuf)), Some(Framing::Protobuf));
        assert_eq!(Framing::of(Some("application/cbor-seq")), None);
    }

    proptest! {
        #[test]
        fn every_chunking_and_the_tracker_agree(
            events in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            json in any::<bool>(),
            chunk in 1usize..30,
        ) {
            let framing = if json { Framing::Json } else { Framing::Protobuf };
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            let mut expected = Vec::new();
            for event in &events {
                let event = if json {
                    serde_json::to_vec(&String::from_utf8_lossy(event)).expect("JSON")
                } else {
                    event.clone()
                };
                if !json {
                    bytes.extend((event.len() as u32).to_be_bytes());
                }
                bytes.extend(&event);
                if json {
                    bytes.push(b'\n');
                }
                ends.push(bytes.len());
                expected.push(Bytes::from(event));
            }
            prop_assert_eq!(split(framing, &bytes, chunk), (expected, 0));
            let mut tracker = FrameTracker::new(framing);
            prop_assert!(tracker.at_boundary());
            for (index, byte) in bytes.iter().enumerate() {
                tracker.push(&[*byte]);
                prop_assert_eq!(tracker.at_boundary(), ends.contains(&(index + 1)), "{}", index);
            }
            let mut whole = FrameTracker::new(framing);
            whole.push(&bytes);
            prop_assert!(whole.at_boundary());
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..100), json in any::<bool>()) {
            let framing = if json { Framing::Json } else { Framing::Protobuf };
            let mut tracker = FrameTracker::new(framing);
            tracker.push(&bytes);
            let _ = tracker.at_boundary();
            let _ = Splitter::new(framing).push(&bytes, &mut Vec::new());
        }
    }
}

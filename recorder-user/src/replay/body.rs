//! Stored bodies, put together and decoded for people. Nothing here panics on any bytes.

use crate::{
    model::{Chunk, Direction},
    wire::{
        Media,
        gzip::{Gunzip, GunzipError},
        kubernetes::Document,
    },
};

/// A body, put together from its chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// The bytes as stored; they stop at the first hole.
    pub bytes: Vec<u8>,
    /// Stored bytes that are not in `bytes`: behind a hole, or over the bound.
    pub left_out_bytes: u64,
}

impl Assembled {
    /// Bytes that were stored, as the outcome says, and are not there: deleted, or lost with a failure.
    #[must_use]
    pub fn missing_bytes(&self, stored_bytes: u64) -> u64 {
        let there = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        stored_bytes.saturating_sub(there.saturating_add(self.left_out_bytes))
    }
}

/// Bodies are put together up to here; what is over is counted, not kept.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Compressed bodies are unpacked up to here; the rest is left out, and said so.
pub const INFLATED_BYTES_MAX: usize = 64 << 20;

/// Puts together the chunks of one direction, which come in the order of their offsets.
#[must_use]
pub fn assemble(chunks: &[Chunk], direction: Direction, bytes_max: usize) -> Assembled {
    let mut body = Assembled::default();
    for chunk in chunks.iter().filter(|chunk| chunk.direction == direction) {
        let next = u64::try_from(body.bytes.len()).unwrap_or(u64::MAX);
        let fits = body.bytes.len().saturating_add(chunk.data.len()) <= bytes_max;
        if chunk.offset == next && fits && body.left_out_bytes == 0 {
            body.bytes.extend_from_slice(&chunk.data);
        } else {
            body.left_out_bytes += u64::try_from(chunk.data.len()).unwrap_or(u64::MAX);
        }
    }
    body
}

/// A body for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable {
    /// What it is.
    pub form: Form,
    /// Whether it was unpacked, and then not to its end: over the bound, or damaged.
    pub cut: bool,
}

/// The forms of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// No bytes.
    Empty,
    /// Text in UTF-8, as it was stored; JSON too (see [`indent_json`]).
    Text(String),
    /// Kubernetes protobuf: one line on what it holds, and the bytes.
    Protobuf(String, Vec<u8>),
    /// Anything else.
    Binary(Vec<u8>),
}

/// Decodes a stored body.
///
/// `content_type` is the message's header; `encoding` the `Content-Encoding` as stored.
#[must_use]
pub fn readable(stored: &[u8], content_type: Option<&str>, encoding: &str) -> Readable {
    let (bytes, cut) = match encoding {
        "gzip" | "x-gzip" => inflate(stored),
        _ => (stored.to_vec(), false),
    };
    if bytes.is_empty() {
        return Readable { form: Form::Empty, cut };
    }
    if Media::of(content_type) == Media::Protobuf {
        return Readable { form: Form::Protobuf(summary(&bytes), bytes), cut };
    }
    let form = match String::from_utf8(bytes) {
        Ok(text) => Form::Text(text),
        Err(error) => Form::Binary(error.into_bytes()),
    };
    Readable { form, cut }
}

/// The plain bytes, and whether they are not all: damaged, cut half-way, or over the bound. What
/// came before is kept: a body cut half-way is still worth reading.
fn inflate(stored: &[u8]) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut gunzip = Gunzip::new();
    let end = gunzip.push(stored, |plain| {
        if bytes.len().saturating_add(plain.len()) > INFLATED_BYTES_MAX {
            return Err(GunzipError::OverBound);
        }
        bytes.extend_from_slice(plain);
        Ok(())
    });
    let cut = end.is_err() || !gunzip.is_complete();
    (bytes, cut)
}

/// One line on what a protobuf body holds.
fn summary(bytes: &[u8]) -> String {
    let size = bytes.len();
    let Ok(document) = Document::from_protobuf(bytes) else {
        return format!("protobuf without the Kubernetes envelope, {size} bytes");
    };
    let what = format!("protobuf {} {}", document.api_version, document.kind);
    if document.is_list() {
        return format!("{what} of {} objects, {size} bytes", document.item_count);
    }
    let object = &document.object;
    let name = match (object.namespace.as_str(), object.name.as_str()) {
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    format!("{what} {name}, {size} bytes").replace(" ,", ",")
}

/// Indents JSON text without reading it into values: key order and numbers stay as they were
/// written. None when it is not one JSON value (then it is shown as text), nested over serde_json's
/// bound too.
#[must_use]
pub fn indent_json(text: &str) -> Option<String> {
    let text = text.trim();
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    Some(out)
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::Bytes;

    use super::*;
    use crate::{model::ExchangeId, wire::kubernetes::envelope};

    fn chunk(direction: Direction, offset: u64, data: &'static [u8]) -> Chunk {
        let data = Bytes::from_static(data);
        Chunk { exchange: ExchangeId::new(), direction, at_us: 0, offset, data }
    }

    #[test]
    fn bodies_stop_at_a_hole_and_at_the_bound() {
        let chunks = [
            chunk(Direction::Request, 0, b"abc"),
            chunk(Direction::Response, 0, b"other"),
            chunk(Direction::Request, 3, b"de"),
            chunk(Direction::Request, 9, b"late"),
            chunk(Direction::Request, 5, b"x"),
        ];
        let body = assemble(&chunks, Direction::Request, 100);
        assert_eq!((body.bytes.as_slice(), body.left_out_bytes), (b"abcde".as_slice(), 5));
        let body = assemble(&chunks, Direction::Request, 4);
        assert_eq!((body.bytes.as_slice(), body.left_out_bytes), (b"abc".as_slice(), 7));
    }

    #[test]
    fn json_is_indented_as_written() {
        let text = r#"{"z":1.10,"a":{"s":"x\",{}","e":[ ],"n":[1, 2]},"o":{}}"#;
        let want = "{\n  \"z\": 1.10,\n  \"a\": {\n    \"s\": \"x\\\",{}\",\n    \"e\": [],\n    \"n\": [\n      \
                    1,\n      2\n    ]\n  },\n  \"o\": {}\n}";
        assert_eq!(indent_json(text).expect("JSON"), want);
        for bad in ["", "{", "{} {}", "nope", &"[".repeat(100_000)] {
            assert_eq!(indent_json(bad), None);
        }
    }

    #[test]
    fn gzip_is_unpacked_and_damage_is_said() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(br#"{"kind":"Pod"}"#).expect("a Vec");
        let packed = packer.finish().expect("a Vec");
        let read = readable(&packed, Some("application/json"), "gzip");
        assert_eq!(read, Readable { form: Form::Text(r#"{"kind":"Pod"}"#.into()), cut: false });
        assert!(readable(&packed[..packed.len() - 4], Some("application/json"), "gzip").cut);
        assert!(readable(b"not gzip", Some("application/json"), "gzip").cut);
    }

    #[test]
    fn a_gzip_bomb_stops_at_the_bound() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let plain = vec![b'a'; 12 << 20];
        packer.write_all(&plain).expect("a Vec");
        let read = readable(&packer.finish().expect("a Vec"), Some("text/plain"), "gzip");
        let Form::Text(text) = read.form else { panic!("text") };
        assert!(read.cut && !text.is_empty() && text.len() < plain.len());
    }

    #[test]
    fn protobuf_is_summarised() {
        let pod = envelope("v1", "Pod", b"\x0a\x0b\x0a\x03web\x1a\x04shop");
        let media = Some("application/vnd.kubernetes.protobuf");
        let Form::Protobuf(summary, bytes) = readable(&pod, media, "").form else {
            panic!("protobuf")
        };
        assert_eq!(summary, format!("protobuf v1 Pod shop/web, {} bytes", pod.len()));
        assert_eq!(bytes, pod);
        let Form::Protobuf(summary, _) = readable(b"junk", media, "").form else {
            panic!("protobuf")
        };
        assert_eq!(summary, "protobuf without the Kubernetes envelope, 4 bytes");
    }

    #[test]
    fn other_bytes_are_binary() {
        assert_eq!(readable(b"\xff\xfe", None, "identity").form, Form::Binary(vec![0xff, 0xfe]));
        assert_eq!(readable(b"", Some("application/json"), "").form, Form::Empty);
        assert_eq!(readable(b"hello\n", Some("text/plain"), "").form, Form::Text("hello\n".into()));
    }
}

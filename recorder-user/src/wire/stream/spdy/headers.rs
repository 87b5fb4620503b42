//! The header blocks of one direction: one zlib stream for the whole connection, cut at its flushes.
//!
//! A live inflater is some 40 KiB for each direction of each idle exec. Peers end each block with a sync
//! flush, where a deflate stream depends on nothing but the plain bytes before; so those are kept, and an
//! inflater lives for one block. A block that does not end so is a fault, and so is one that holds more
//! than its headers: readers would take the rest for the beginning of the next block.

use flate2::{Decompress, FlushDecompress, Status};

/// SPDY draft 3.1 §2.6.10.1.
pub(in crate::wire::stream) const DICTIONARY: &[u8; 1423] = include_bytes!("dictionary.bin");

/// RFC 1950 §2.2: Adler-32 of [`DICTIONARY`].
pub(in crate::wire::stream) const DICTIONARY_ID: [u8; 4] = [0xe3, 0xc6, 0xa7, 0xc2];

/// Plain bytes of one block; more is a fault.
pub(in crate::wire::stream) const BLOCK_BYTES_MAX: usize = 64 << 10;

/// How far back deflate refers at most.
const WINDOW_BYTES: usize = 32 << 10;

/// Plain bytes before the blocks are inflated in steps of this.
const STEP_BYTES: usize = 1 << 10;

/// RFC 1950 §2.2: a dictionary is named.
const FDICT: u8 = 0x20;

/// An empty last block of deflate: at a flush, and only there, it ends the stream and yields nothing.
const END: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// What a stream is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::wire::stream) enum StreamType {
    Stdin,
    Stdout,
    Stderr,
    Error,
    Resize,
    Data,
    #[default]
    Other,
}

/// What the headers of a new stream say of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::wire::stream) struct StreamHeaders {
    pub(in crate::wire::stream) kind: StreamType,
    pub(in crate::wire::stream) port: Option<u16>,
    /// `requestID`; also none where it is no number.
    pub(in crate::wire::stream) request: Option<u32>,
}

/// Inflates block after block.
#[derive(Debug, Default)]
pub(in crate::wire::stream) struct HeaderBlocks {
    /// The zlib header was read.
    begun: bool,
    /// The last plain bytes, at most [`WINDOW_BYTES`].
    history: Vec<u8>,
}

impl HeaderBlocks {
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Reads the next block.
    pub(super) fn read(&mut self, mut block: &[u8]) -> Result<StreamHeaders, &'static str> {
        if !self.begun {
            block = self.begin(block)?;
            self.begun = true;
        }
        let plain = inflate(&self.history, block)?;
        let headers = parse(&plain)?;
        self.history.extend_from_slice(&plain);
        let surplus = self.history.len().saturating_sub(WINDOW_BYTES);
        self.history.drain(..surplus);
        Ok(headers)
    }

    /// RFC 1950 §2.2: the two bytes before the first block, and the dictionary that they may call for.
    fn begin<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], &'static str> {
        let [method, flags, rest @ ..] = block else { return Err("SPDY headers without zlib's") };
        let check = u16::from_be_bytes([*method, *flags]) % 31;
        if method & 0xf != 8 || method >> 4 > 7 || check != 0 {
            return Err("zlib header of SPDY headers");
        }
        if flags & FDICT == 0 {
            return Ok(rest);
        }
        let rest = rest.strip_prefix(&DICTIONARY_ID).ok_or("dictionary of SPDY headers")?;
        self.history.extend_from_slice(DICTIONARY);
        Ok(rest)
    }
}

/// Inflates one block after `history`.
fn inflate(history: &[u8], block: &[u8]) -> Result<Vec<u8>, &'static str> {
    const MALFORMED: &str = "malformed SPDY headers";
    let mut inflater = Decompress::new(false);
    if !history.is_empty() {
        inflater.set_dictionary(history).map_err(|_| MALFORMED)?;
    }
    let mut plain = Vec::new();
    loop {
        if plain.len() > BLOCK_BYTES_MAX {
            return Err("SPDY headers over the bound");
        }
        plain.reserve(STEP_BYTES);
        let before = (inflater.total_in(), plain.len());
        // What the inflater took is never more than it was given.
        let rest = block.get(before.0 as usize..).unwrap_or_default();
        let status = inflater
            .decompress_vec(rest, &mut plain, FlushDecompress::Sync)
            .map_err(|_| MALFORMED)?;
        if status == Status::StreamEnd {
            return Err("end of zlib in SPDY headers");
        }
        if (inflater.total_in(), plain.len()) == before {
            break;
        }
    }
    if inflater.total_in() != block.len() as u64 {
        return Err(MALFORMED);
    }
    let mut after = [0; 1];
    let status = inflater.decompress(&END, &mut after, FlushDecompress::Sync);
    let inflated = inflater.total_out();
    if !matches!(status, Ok(Status::StreamEnd)) || inflated != plain.len() as u64 {
        return Err("SPDY headers do not end at a flush");
    }
    Ok(plain)
}

/// Reads a block's plain bytes: a count, then names and values, each after its length.
fn parse(mut plain: &[u8]) -> Result<StreamHeaders, &'static str> {
    let mut headers = StreamHeaders::default();
    let mut seen = [false; 3];
    let count = number(&mut plain)?;
    for _ in 0..count {
        let name = text(&mut plain)?;
        let value = text(&mut plain)?;
        if name.iter().any(u8::is_ascii_uppercase) {
            return Err("name of a SPDY header");
        }
        let known = match name {
            b"streamtype" => 0,
            b"port" => 1,
            b"requestid" => 2,
            _ => continue,
        };
        if std::mem::replace(&mut seen[known], true) {
            return Err("SPDY header given twice");
        }
        // Values of one name are separated by zeros; readers take the first.
        let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
        match known {
            0 => headers.kind = StreamType::of(value),
            1 => headers.port = digits(value).and_then(|text| text.parse().ok()),
            _ => headers.request = digits(value).and_then(|text| text.parse().ok()),
        }
    }
    if plain.is_empty() { Ok(headers) } else { Err("bytes after SPDY headers") }
}

impl StreamType {
    fn of(value: &[u8]) -> Self {
        match value {
            b"stdin" => Self::Stdin,
            b"stdout" => Self::Stdout,
            b"stderr" => Self::Stderr,
            b"error" => Self::Error,
            b"resize" => Self::Resize,
            b"data" => Self::Data,
            _ => Self::Other,
        }
    }
}

fn digits(value: &[u8]) -> Option<&str> {
    value.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(value).ok()).flatten()
}

fn text<'a>(plain: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = number(plain)? as usize;
    let (text, rest) = plain.split_at_checked(length).ok_or("SPDY headers are cut")?;
    *plain = rest;
    Ok(text)
}

fn number(plain: &mut &[u8]) -> Result<u32, &'static str> {
    let (number, rest) = plain.split_first_chunk().ok_or("SPDY headers are cut")?;
    *plain = rest;
    Ok(u32::from_be_bytes(*number))
}

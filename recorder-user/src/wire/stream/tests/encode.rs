//! Encoders that share nothing with the decoders but the SPDY dictionary's bytes.

use flate2::{Compress, Compression, FlushCompress};

use crate::wire::stream::spdy::headers::DICTIONARY;

/// One side's SPDY frames.
pub(super) struct Spdy {
    headers: Compress,
}

impl Spdy {
    pub(super) fn new() -> Self {
        let mut headers = Compress::new(Compression::default(), true);
        headers.set_dictionary(DICTIONARY).expect("before the first block");
        Self { headers }
    }

    /// A compressed header block.
    pub(super) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        self.flushed(&plain, FlushCompress::Sync)
    }

    pub(super) fn flushed(&mut self, plain: &[u8], flush: FlushCompress) -> Vec<u8> {
        let mut block = Vec::with_capacity(plain.len() * 2 + 100);
        self.headers.compress_vec(plain, &mut block, flush).expect("room enough");
        block
    }

    pub(super) fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let block = self.block(headers);
        syn_stream(stream, &block, 0)
    }

    pub(super) fn reply(&mut self, stream: u32) -> Vec<u8> {
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend(self.block(&[]));
        control(2, 0, &payload)
    }

    /// A stream of a command.
    pub(super) fn channel(&mut self, stream: u32, kind: &str) -> Vec<u8> {
        self.open(stream, &[("streamtype", kind)])
    }

    /// A stream of a port-forward.
    pub(super) fn port(&mut self, stream: u32, kind: &str, port: u16, request: u32) -> Vec<u8> {
        let (port, request) = (port.to_string(), request.to_string());
        let headers = [("port", &port), ("requestid", &request), ("streamtype", &kind.to_owned())];
        self.open(stream, &headers.map(|(name, value)| (name, value.as_str())))
    }
}

pub(super) fn syn_stream(stream: u32, block: &[u8], flags: u8) -> Vec<u8> {
    let mut payload = stream.to_be_bytes().to_vec();
    payload.extend([0; 6]);
    payload.extend(block);
    control(1, flags, &payload)
}

pub(super) fn control(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![0x80, 3, 0, kind, flags, length[1], length[2], length[3]];
    frame.extend(payload);
    frame
}

pub(super) fn data(stream: u32, bytes: &[u8], fin: bool) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    let mut frame = stream.to_be_bytes().to_vec();
    frame.extend([u8::from(fin), length[1], length[2], length[3]]);
    frame.extend(bytes);
    frame
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

pub(super) fn reset(stream: u32, code: u32) -> Vec<u8> {
    control(3, 0, &words(&[stream, code]))
}

pub(super) fn ping(id: u32) -> Vec<u8> {
    control(6, 0, &words(&[id]))
}

pub(super) fn goaway(last: u32) -> Vec<u8> {
    control(7, 0, &words(&[last, 0]))
}

/// A WebSocket frame; `key` masks it.
pub(super) fn frame(last: bool, opcode: u8, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::from(last) << 7 | opcode];
    let masked = if key.is_some() { 0x80 } else { 0 };
    match payload.len() {
        0..=125 => bytes.push(masked | payload.len() as u8),
        126..=0xffff => {
            bytes.push(masked | 126);
            bytes.extend((payload.len() as u16).to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(key.unwrap_or_default().iter().take(if key.is_some() { 4 } else { 0 }));
    let key = key.unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index & 3]));
    bytes
}

pub(super) const KEY: Option<[u8; 4]> = Some([0x9a, 0x01, 0xff, 0x3c]);

/// A whole binary message, the channel first.
pub(super) fn message(key: Option<[u8; 4]>, channel: u8, payload: &[u8]) -> Vec<u8> {
    frame(true, 2, key, &[&[channel], payload].concat())
}

pub(super) fn close(key: Option<[u8; 4]>, code: u16) -> Vec<u8> {
    frame(true, 8, key, &code.to_be_bytes())
}

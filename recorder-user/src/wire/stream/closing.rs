//! What the gateway appends to the server's side to end a connection with a reason that kubectl shows.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    channels::Channels,
    command::JSON_STATUS_VERSION,
    decoder::{Decoder, Wire},
    event::{Channel, Protocol, Side},
    spdy::{self, headers::DICTIONARY_ID},
    streams::Streams,
};

/// Connections of a port-forward that are told the reason; others see the end alone.
pub(super) const TOLD_CONNECTIONS_MAX: usize = 64;

/// Payload of one SPDY data frame of ours.
const DATA_BYTES_MAX: usize = 64 << 10;

/// RFC 6455 §7.4.1. With any other code kubectl takes the error channel for broken and does not show what
/// it said (client-go's `readDemuxLoop` and `watchErrorStream`).
const NORMAL_CLOSURE: u16 = 1000;

/// RFC 6455 §5.5: 125 bytes for a control frame, less the code.
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// The channel of a command's errors.
const ERROR_CHANNEL: u8 = 3;

impl Decoder {
    /// Bytes that end the connection when they follow the server's at a boundary: the reason on the error
    /// channel, then GOAWAY or a close frame. `status_json` is a `Status` for clients that read one
    /// (commands from version 4 on), `message` is for the others.
    ///
    /// kubectl prints the reason of a command, once it has all its streams (over SPDY it opens them one after
    /// the other); of a port-forward it may print it for each connection that is open, and `lost connection to
    /// pod` in any case.
    ///
    /// None where nothing can be said: the server is not at a boundary, has ended the connection, or
    /// frames are not understood.
    #[must_use]
    pub fn closing(&self, status_json: &[u8], message: &str) -> Option<Vec<u8>> {
        if !self.at_boundary(Side::Server) || self.has_ended(Side::Server) {
            return None;
        }
        let command = match self.agreement().protocol {
            Protocol::RemoteCommand { version, .. } if version >= JSON_STATUS_VERSION => {
                status_json
            }
            _ => message.as_bytes(),
        };
        match &self.wire {
            Wire::Opaque => None,
            Wire::Spdy { frames, streams } => {
                let server = &frames[Side::Server as usize];
                Some(spdy_closing(server, streams, command, message))
            }
            Wire::Channels { channels, .. } => {
                let mut bytes = channels_closing(channels, command, message);
                push_close(&mut bytes, message);
                Some(bytes)
            }
            Wire::Tunnel { inner, streams, .. } => {
                let server = &inner[Side::Server as usize];
                let mut bytes = Vec::new();
                let tunnelled = spdy_closing(server, streams, command, message);
                push_frame(&mut bytes, OPCODE_BINARY, &tunnelled);
                push_close(&mut bytes, message);
                Some(bytes)
            }
        }
    }
}

fn spdy_closing(
    server: &spdy::Frames,
    streams: &Streams,
    command: &[u8],
    message: &str,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut begun = server.blocks_begun();
    let told = streams.open_to_server().filter_map(|(id, channel, replied)| match channel {
        Channel::Error => Some((id, replied, command)),
        Channel::PortError(_) => Some((id, replied, message.as_bytes())),
        _ => None,
    });
    for (id, replied, text) in told.take(TOLD_CONNECTIONS_MAX) {
        // Clients drop data on a stream that was not agreed to.
        if !replied {
            push_reply(&mut bytes, id, !std::mem::replace(&mut begun, true));
        }
        push_data(&mut bytes, id, text);
    }
    let mut goaway = streams.last_of_client().to_be_bytes().to_vec();
    goaway.extend([0; 4]);
    push_control(&mut bytes, spdy::GOAWAY, &goaway);
    bytes
}

/// SYN_REPLY without headers. Its block is stored, not compressed, so it fits wherever the server's blocks
/// stand.
fn push_reply(bytes: &mut Vec<u8>, stream: u32, first: bool) {
    const NO_HEADERS: [u8; 9] = [0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0];
    let mut payload = stream.to_be_bytes().to_vec();
    if first {
        // RFC 1950 §2.2: deflate with a window of 32 KiB, and a dictionary.
        payload.extend([0x78, 0xbb]);
        payload.extend(DICTIONARY_ID);
    }
    payload.extend(NO_HEADERS);
    push_control(bytes, spdy::SYN_REPLY, &payload);
}

/// The last data of a stream.
fn push_data(bytes: &mut Vec<u8>, stream: u32, text: &[u8]) {
    let mut pieces = text.chunks(DATA_BYTES_MAX).peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        let fin = if pieces.peek().is_none() { spdy::FLAG_FIN } else { 0 };
        bytes.extend(stream.to_be_bytes());
        // A piece is shorter than 24 bits tell.
        bytes.extend((u32::from(fin) << 24 | piece.len() as u32).to_be_bytes());
        bytes.extend(piece);
        if fin != 0 {
            return;
        }
    }
}

fn push_control(bytes: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    bytes.extend([0x80, 3]);
    bytes.extend(kind.to_be_bytes());
    // Our own control frames are some bytes long.
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
}

fn channels_closing(channels: &Channels, command: &[u8], message: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let base64 = channels.base64();
    if channels.command().is_some() {
        push_channel(&mut bytes, ERROR_CHANNEL, command, base64);
    }
    let errors = channels.ports().iter().enumerate().skip(1).step_by(2);
    let errors = errors.filter(|(_, port)| !port.is_half_announced());
    for (number, port) in errors.take(TOLD_CONNECTIONS_MAX) {
        // Channel numbers are a byte, and ports are bounded so that theirs are.
        let number = number as u8;
        if !port.open {
            push_channel(&mut bytes, number, &port.port.to_le_bytes(), base64);
        }
        push_channel(&mut bytes, number, message.as_bytes(), base64);
    }
    bytes
}

fn push_channel(bytes: &mut Vec<u8>, number: u8, data: &[u8], base64: bool) {
    if base64 {
        let text = STANDARD.encode(data);
        let message = [&[b'0'.wrapping_add(number)], text.as_bytes()].concat();
        push_frame(bytes, OPCODE_TEXT, &message);
    } else {
        push_frame(bytes, OPCODE_BINARY, &[&[number], data].concat());
    }
}

const OPCODE_TEXT: u8 = 1;
const OPCODE_BINARY: u8 = 2;
const OPCODE_CLOSE: u8 = 8;

fn push_close(bytes: &mut Vec<u8>, message: &str) {
    let mut length = message.len().min(CLOSE_REASON_BYTES_MAX);
    while !message.is_char_boundary(length) {
        length -= 1;
    }
    let payload = [&NORMAL_CLOSURE.to_be_bytes(), &message.as_bytes()[..length]].concat();
    push_frame(bytes, OPCODE_CLOSE, &payload);
}

/// A whole message; servers do not mask.
fn push_frame(bytes: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    bytes.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => bytes.push(short),
        (_, Ok(medium)) => {
            bytes.push(126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
}

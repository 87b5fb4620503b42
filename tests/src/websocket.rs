//! A WebSocket client (RFC 6455) that speaks any subprotocol and hides nothing: for protocols that no
//! kubectl speaks any more, or never did.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client::Endpoint;

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    stream: TlsStream<TcpStream>,
    unread: Vec<u8>,
    /// The subprotocol that the server chose; empty for none.
    pub protocol: String,
}

/// A message of the server: its opcode and its payload.
pub type Message = (u8, Vec<u8>);

/// RFC 6455 §5.2.
pub const TEXT: u8 = 1;
/// RFC 6455 §5.2.
pub const BINARY: u8 = 2;
/// RFC 6455 §5.5.1.
pub const CLOSE: u8 = 8;

impl WebSocket {
    /// Opens `target` with these subprotocols and, where one is given, a bearer token in `Authorization`.
    ///
    /// # Errors
    /// With the server's answer when that is not a 101.
    pub async fn open(
        endpoint: &Endpoint,
        target: &str,
        protocols: &[&str],
        bearer: Option<&str>,
    ) -> Result<Self> {
        let mut stream = endpoint.tls(&[b"http/1.1"]).await?;
        let authorization =
            bearer.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: {}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            protocols.join(", ")
        );
        stream.write_all(request.as_bytes()).await?;
        let mut unread = Vec::new();
        let end = loop {
            if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let got = timeout(LIMIT, stream.read_buf(&mut unread)).await??;
            ensure!(got > 0, "closed: {}", String::from_utf8_lossy(&unread));
        };
        let head = String::from_utf8_lossy(&unread[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 101") {
            // Whoever refuses an upgrade closes the connection.
            while timeout(LIMIT, stream.read_buf(&mut unread)).await?.unwrap_or(0) > 0 {}
            bail!("not a 101: {}", String::from_utf8_lossy(&unread));
        }
        unread.drain(..end);
        let protocol = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-protocol").then(|| value.trim().to_owned())
        });
        ensure!(!head.to_ascii_lowercase().contains("sec-websocket-extensions"), "{head}");
        Ok(Self { stream, unread, protocol: protocol.unwrap_or_default() })
    }

    /// Sends a message in one frame, masked with a key that is not zero.
    ///
    /// # Errors
    /// When the server is gone.
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        let mut frame = vec![opcode | FINAL];
        match u16::try_from(payload.len()) {
            Ok(length) if length < 126 => frame.push(0x80 | u8::try_from(length)?),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend(KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.stream.write_all(&frame).await.context("send a frame")
    }

    /// The server's next frame; none when it has closed the connection.
    ///
    /// # Errors
    /// When it says nothing for long, or ends inside a frame.
    pub async fn receive(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            let got = timeout(LIMIT, self.stream.read_buf(&mut self.unread)).await?;
            // Some servers leave without saying so in TLS.
            if got.unwrap_or(0) == 0 {
                ensure!(self.unread.is_empty(), "ends inside a frame");
                return Ok(None);
            }
        }
    }

    fn take(&mut self) -> Option<Message> {
        let bytes = &self.unread;
        let (opcode, short) = (*bytes.first()? & 0x0f, usize::from(*bytes.get(1)? & 0x7f));
        let (length, start) = match short {
            126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => {
                (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10)
            }
            short => (short, 2),
        };
        let payload = bytes.get(start..start + length)?.to_vec();
        self.unread.drain(..start + length);
        Some((opcode, payload))
    }
}

const FINAL: u8 = 0x80;
const KEY: [u8; 4] = [0x5a, 0x01, 0xff, 0x80];
const LIMIT: Duration = Duration::from_secs(30);

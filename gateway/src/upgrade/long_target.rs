//! Request targets over 64 KiB: a command line is part of the URL of an exec, and may be as long as
//! the kernel takes. `http::Uri` ends at 65,534 bytes, so such a target never meets it: it is taken out
//! of a connection's first request line before hyper reads that, and put back into the line that hyper
//! writes to the API server. Go's own bound for a head is 1 MiB (`http.DefaultMaxHeaderBytes`).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::bounds::{SHORT_TARGET_BYTES_MAX, TARGET_BYTES_MAX};

/// What stands in the place of a long target.
pub const STAND_IN: &str = "/long-target";

/// The head's first bytes, which were read before hyper, then the rest of the stream.
pub struct Prefixed<S> {
    prefix: Bytes,
    stream: S,
}

/// A target that is too long for hyper, and its place among those that wait for an identity.
#[derive(Debug)]
pub struct LongTarget {
    /// Path and query.
    pub text: String,
    _place: OwnedSemaphorePermit,
}

/// Reads the first request line of a connection. Gives the stream as hyper shall read it, and the target
/// if that is too long for hyper.
///
/// # Errors
/// When the stream fails, the line is over [`TARGET_BYTES_MAX`] or has no target, or there is no room.
pub async fn take<S: AsyncRead + Unpin>(
    mut stream: S,
    room: &Arc<Semaphore>,
) -> io::Result<(Prefixed<S>, Option<LongTarget>)> {
    let mut place = None;
    let mut head = BytesMut::new();
    let mut searched = 0;
    let end = loop {
        let end = head[searched..].iter().position(|byte| *byte == b'\n').map(|at| searched + at);
        searched = head.len();
        let line_bytes = end.unwrap_or(searched);
        if line_bytes > TARGET_BYTES_MAX {
            return Err(malformed("the request line is too long"));
        }
        if line_bytes > SHORT_TARGET_BYTES_MAX && place.is_none() {
            let taken = Arc::clone(room).try_acquire_owned();
            place = Some(taken.map_err(|_| io::Error::other("too many long request lines"))?);
        }
        // A line that is no longer than hyper takes is hyper's to judge.
        if end.is_some() || stream.read_buf(&mut head).await? == 0 {
            break end;
        }
    };
    let Some((end, place)) = end.zip(place) else {
        return Ok((Prefixed { prefix: head.freeze(), stream }, None));
    };
    let line = head.split_to(end);
    let (text, short) = shorten(&line).ok_or_else(|| malformed("the request line is malformed"))?;
    let mut prefix = BytesMut::from(short.as_bytes());
    prefix.extend_from_slice(&head);
    Ok((Prefixed { prefix: prefix.freeze(), stream }, Some(LongTarget { text, _place: place })))
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The target of a request line, and the line with the stand-in.
fn shorten(line: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(line).ok()?;
    let (method, rest) = text.split_once(' ')?;
    let (target, version) = rest.split_once(' ')?;
    Some((target.to_owned(), format!("{method} {STAND_IN} {version}")))
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let bytes = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix.split_to(bytes));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream whose first request line gets its long target back.
pub struct Retargeted<S> {
    stream: S,
    target: Option<String>,
    /// The first bytes, rewritten, that did not go yet.
    out: BytesMut,
}

impl<S> Retargeted<S> {
    /// Puts `target`, if there is one, in the place of a path that ends with [`STAND_IN`].
    pub fn new(stream: S, target: Option<String>) -> Self {
        Self { stream, target, out: BytesMut::new() }
    }
}

impl<S: AsyncWrite + Unpin> Retargeted<S> {
    /// Takes the first write whole, so that its line can be rewritten; hyper writes a head at once.
    fn rewrite(&mut self, buf: &[u8], target: &str) -> io::Result<usize> {
        let mut words = buf.splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(path), Some(rest)) = (words.next(), words.next(), words.next())
        else {
            return Err(io::Error::other("the first write holds no request line"));
        };
        // The path of the server's URL may stand before it.
        if !path.ends_with(STAND_IN.as_bytes()) {
            return Err(io::Error::other("the first request is not the one with the long target"));
        }
        self.out.extend_from_slice(method);
        self.out.extend_from_slice(b" ");
        self.out.extend_from_slice(target.as_bytes());
        self.out.extend_from_slice(b" ");
        self.out.extend_from_slice(rest);
        Ok(buf.len())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.out.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Retargeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Retargeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(target) = self.target.take() {
            return Poll::Ready(self.rewrite(buf, &target));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.target.is_some() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_write(cx, first);
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn taken(sent: &[u8]) -> io::Result<(Vec<u8>, Option<String>)> {
        taken_with(sent, 1).await
    }

    async fn taken_with(sent: &[u8], room: usize) -> io::Result<(Vec<u8>, Option<String>)> {
        // A small pipe, so that the line comes in many pieces.
        let (mut near, far) = tokio::io::duplex(4096);
        let sending = async {
            // The reader may give up before the end.
            drop(near.write_all(sent).await);
            drop(near);
        };
        let reading = async {
            let (mut stream, target) = take(far, &Arc::new(Semaphore::new(room))).await?;
            let target = target.map(|target| target.text);
            let mut seen = Vec::new();
            stream.read_to_end(&mut seen).await?;
            Ok((seen, target))
        };
        let ((), result) = tokio::join!(sending, reading);
        result
    }

    #[tokio::test]
    async fn short_lines_pass_as_they_are() {
        for sent in ["GET /x HTTP/1.1\r\nhost: h\r\n\r\nbody", "no line at all", ""] {
            let (seen, target) = taken(sent.as_bytes()).await.expect("read");
            assert_eq!((seen.as_slice(), target), (sent.as_bytes(), None));
        }
    }

    #[tokio::test]
    async fn a_long_target_is_taken_out_and_put_back() {
        let target = format!("/exec?command={}", "x".repeat(100 << 10));
        let sent = format!("POST {target} HTTP/1.1\r\nhost: h\r\n\r\n");
        let (seen, taken_out) = taken(sent.as_bytes()).await.expect("read");
        assert_eq!(seen, format!("POST {STAND_IN} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
        assert_eq!(taken_out.as_deref(), Some(target.as_str()));

        let (near, mut far) = tokio::io::duplex(1000);
        let writing = async {
            let mut stream = Retargeted::new(near, taken_out);
            stream.write_all(&seen).await?;
            stream.write_all(b"more").await?;
            stream.shutdown().await
        };
        let mut arrived = Vec::new();
        let (written, read) = tokio::join!(writing, far.read_to_end(&mut arrived));
        written.expect("written");
        read.expect("read");
        assert_eq!(arrived, [sent.as_bytes(), b"more"].concat());
    }

    #[tokio::test]
    async fn a_stand_in_may_be_behind_the_path_of_a_server() {
        let (near, mut far) = tokio::io::duplex(1000);
        let writing = async {
            let mut stream = Retargeted::new(near, Some("/k8s/c-1/exec?command=x".to_owned()));
            let head = format!("POST /k8s/c-1{STAND_IN} HTTP/1.1\r\nhost: a b\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.shutdown().await
        };
        let mut arrived = Vec::new();
        let (written, read) = tokio::join!(writing, far.read_to_end(&mut arrived));
        written.expect("written");
        read.expect("read");
        assert_eq!(arrived, b"POST /k8s/c-1/exec?command=x HTTP/1.1\r\nhost: a b\r\n\r\n");

        let mut stream = Retargeted::new(tokio::io::sink(), Some("/x".to_owned()));
        assert!(stream.write_all(b"GET /version HTTP/1.1\r\n\r\n").await.is_err());
    }

    #[tokio::test]
    async fn without_room_only_long_lines_are_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100 << 10));
        assert!(taken_with(long.as_bytes(), 0).await.is_err());
        assert!(taken_with(b"GET /x HTTP/1.1\r\n\r\n", 0).await.is_ok());
    }

    #[tokio::test]
    async fn a_line_without_end_or_form_is_refused() {
        assert!(taken(&vec![b'x'; TARGET_BYTES_MAX + 8192]).await.is_err());
        let shapeless = format!("{}\r\n\r\n", "x".repeat(SHORT_TARGET_BYTES_MAX + 10));
        assert!(taken(shapeless.as_bytes()).await.is_err());
    }
}

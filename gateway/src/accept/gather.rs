//! Small writes of an HTTP/2 connection, gathered.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose small writes leave with what follows them, or with the next flush.
///
/// h2 copies small frames into one buffer and writes them together. Where vectored writes are to be had it takes only
/// those below 256 bytes for small, and those below 1 KiB otherwise: an event of a watch is between. So this says that
/// there are none, and joins what h2 then writes by itself, the head of a large frame and its first KiB, to the rest.
pub(super) struct Gather<S> {
    stream: S,
    /// What waits for more: [`WAITING_MAX`] bytes at most, and none after a flush.
    waiting: Vec<u8>,
}

const WAITING_MAX: usize = 4096;

impl<S> Gather<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, waiting: Vec::new() }
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Writes all that waits.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() + bytes.len() <= WAITING_MAX {
            self.waiting.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let Self { stream, waiting } = &mut *self;
        while !waiting.is_empty() {
            let both = [IoSlice::new(waiting), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &both))?;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            let ours = written.min(waiting.len());
            waiting.drain(..ours);
            if written > ours {
                return Poll::Ready(Ok(written - ours));
            }
        }
        Pin::new(stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Takes a few bytes at a time, and notes the calls.
    #[derive(Default)]
    struct Slow {
        bytes: Vec<u8>,
        calls: usize,
        most: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let taken = all.len().min(self.most);
            self.bytes.extend_from_slice(&all[..taken]);
            self.calls += 1;
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn written(most: usize, writes: &[usize]) -> (Slow, Vec<u8>) {
        let mut gather = Gather::new(Slow { most, ..Slow::default() });
        let mut all = Vec::new();
        for (number, length) in writes.iter().enumerate() {
            let bytes = vec![u8::try_from(number % 251).expect("below 251"); *length];
            gather.write_all(&bytes).await.expect("written");
            all.extend(bytes);
        }
        gather.flush().await.expect("flushed");
        assert!(gather.waiting.is_empty());
        (gather.stream, all)
    }

    #[tokio::test]
    async fn small_writes_leave_together() {
        let (stream, all) = written(usize::MAX, &[9, 100, 2_000, 9]).await;
        assert_eq!((stream.calls, stream.bytes), (1, all));
    }

    #[tokio::test]
    async fn a_head_leaves_with_its_frame() {
        let (stream, all) = written(usize::MAX, &[1_033, 15_000, 9, 16_384]).await;
        assert_eq!((stream.calls, stream.bytes), (2, all));
    }

    #[tokio::test]
    async fn nothing_is_lost_or_moved_however_little_is_taken() {
        for most in [1, 7, 1_000, 4_096, 5_000] {
            let (stream, all) = written(most, &[10, 4_086, 1, 9_000, 3, 4_093, 4_096, 0, 5]).await;
            assert_eq!(stream.bytes, all, "{most} at a time");
        }
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_is_an_error() {
        let mut gather = Gather::new(Slow::default());
        gather.write_all(b"waits").await.expect("it waits");
        let error = gather.flush().await.expect_err("nothing is taken");
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}

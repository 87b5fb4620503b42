//! One direction of an upgraded connection: read, record, pass on. Bytes wait for the recorder only when
//! it is behind its bound, and then the sender waits too; nothing is dropped.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use recorder_user::wire::stream::Side;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::book::Book;
use crate::{bounds::UPGRADE_CHUNK_BYTES, tap::Append};

/// Why a direction stopped before its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// This end's connection failed.
    Lost(Side, io::Error),
    /// The recorder failed, or stayed behind its bound for too long.
    Recorder(String),
    /// Policy wants only streams that can be decoded.
    Undecodable,
}

/// One direction.
pub(super) struct Flow {
    /// Who sends.
    from: Side,
    /// Recorded, and not yet passed on.
    pending: Bytes,
    /// The receiver stands between two frames, just before all of the pending bytes.
    rests: bool,
    /// The recorder is behind; the pending bytes wait for it, and for as long as patience lasts.
    append: Option<Append>,
    unflushed: bool,
    /// An error that came right behind bytes.
    failed: Option<io::Error>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The sender sends no more; the receiver is told.
    Ending,
    Done,
}

/// How far a direction goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To its end.
    End,
    /// To the end of the frame that is under way.
    Frame,
}

impl Flow {
    /// Before its first byte.
    pub(super) fn new(from: Side) -> Self {
        Self {
            from,
            pending: Bytes::new(),
            rests: true,
            append: None,
            unflushed: false,
            failed: None,
            state: State::Open,
        }
    }

    /// Whether the sender has ended, and the receiver was told.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes back bytes of which nothing was passed on, so that the receiver stands between two frames.
    /// Says whether it does.
    pub(super) fn take_back(&mut self) -> bool {
        if self.pending.is_empty() || self.rests {
            self.pending = Bytes::new();
            return true;
        }
        false
    }

    /// The receiver takes no more: what the sender still sends goes nowhere.
    pub(super) fn give_up(&mut self) {
        self.pending = Bytes::new();
        self.failed = None;
        self.state = State::Done;
    }

    /// Takes bytes that were read.
    pub(super) fn take(&mut self, bytes: Bytes, book: &mut Book) -> Result<(), Broken> {
        self.rests = book.is_at_boundary(self.from);
        self.append = book.take(self.from, &bytes)?;
        self.pending = bytes;
        Ok(())
    }

    /// Moves bytes from `reader` to `writer` as far as both go.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut reader: Pin<&mut R>,
        mut writer: Pin<&mut W>,
        book: &mut Book,
        reach: Reach,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        loop {
            ready!(self.poll_recorded(cx))?;
            ready!(self.poll_pass(cx, writer.as_mut()))?;
            match self.state {
                State::Open if reach == Reach::Frame && book.is_at_boundary(self.from) => {
                    return writer.poll_flush(cx).map_err(|error| self.write_failed(error));
                }
                State::Open => {
                    let limit = match reach {
                        Reach::End => UPGRADE_CHUNK_BYTES,
                        Reach::Frame => book.to_boundary(self.from).min(UPGRADE_CHUNK_BYTES),
                    };
                    match self.poll_chunk(cx, reader.as_mut(), limit) {
                        Poll::Ready(Ok(bytes)) if bytes.is_empty() => {
                            // Passed on as an end, it could not be explained any more.
                            if self.from == Side::Server && !book.may_end() {
                                let early = io::ErrorKind::UnexpectedEof.into();
                                return Poll::Ready(Err(Broken::Lost(Side::Server, early)));
                            }
                            self.state = State::Ending;
                        }
                        Poll::Ready(Ok(bytes)) => self.take(bytes, book)?,
                        Poll::Ready(Err(error)) => {
                            return Poll::Ready(Err(Broken::Lost(self.from, error)));
                        }
                        Poll::Pending => {
                            if self.unflushed {
                                ready!(writer.poll_flush(cx))
                                    .map_err(|error| self.write_failed(error))?;
                                self.unflushed = false;
                            }
                            return Poll::Pending;
                        }
                    }
                }
                State::Ending => {
                    ready!(writer.as_mut().poll_shutdown(cx))
                        .map_err(|error| self.write_failed(error))?;
                    self.state = State::Done;
                }
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Waits until the record of what was taken last is queued: at most for as long as patience lasts.
    pub(super) async fn recorded(&mut self) -> Result<(), Broken> {
        std::future::poll_fn(|cx| self.poll_recorded(cx)).await
    }

    /// Waits until the record of the pending bytes is queued, or written where that was asked.
    fn poll_recorded(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(append) = &mut self.append else { return Poll::Ready(Ok(())) };
        let kept = ready!(append.as_mut().poll(cx));
        self.append = None;
        Poll::Ready(kept.map_err(|error| Broken::Recorder(error.to_string())))
    }

    fn poll_pass<W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut writer: Pin<&mut W>,
    ) -> Poll<Result<(), Broken>> {
        while !self.pending.is_empty() {
            let written = ready!(writer.as_mut().poll_write(cx, &self.pending));
            match written.map_err(|error| self.write_failed(error))? {
                0 => return Poll::Ready(Err(self.write_failed(io::ErrorKind::WriteZero.into()))),
                written => self.pending.advance(written),
            }
            self.rests = false;
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn write_failed(&self, error: io::Error) -> Broken {
        let to = match self.from {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        Broken::Lost(to, error)
    }

    /// What can be read now, at most `limit` bytes; empty at the end. Read into a buffer of the thread,
    /// so that an idle stream holds none, and a record no more memory than it has bytes.
    fn poll_chunk<R: AsyncRead>(
        &mut self,
        cx: &mut Context<'_>,
        mut reader: Pin<&mut R>,
        limit: usize,
    ) -> Poll<io::Result<Bytes>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch[..limit]);
            loop {
                let before = buffer.filled().len();
                match reader.as_mut().poll_read(cx, &mut buffer) {
                    Poll::Pending if before == 0 => return Poll::Pending,
                    Poll::Ready(Err(error)) if before == 0 => return Poll::Ready(Err(error)),
                    Poll::Ready(Err(error)) => {
                        self.failed = Some(error);
                        break;
                    }
                    Poll::Pending => break,
                    // At the end the next read says so again.
                    Poll::Ready(Ok(())) if buffer.filled().len() == before => break,
                    Poll::Ready(Ok(())) if buffer.remaining() == 0 => break,
                    Poll::Ready(Ok(())) => {}
                }
            }
            Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
        })
    }
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; UPGRADE_CHUNK_BYTES].into());
}

//! The socket of a connection: what a system call moves is counted before anybody else sees it.

use std::{
    cell::RefCell,
    io::{self, Read as _},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use recorder_user::{
    model::{ConnectionClosed, Record},
    store::Recorder,
    witness::{Role, Witness},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::Connection;
use crate::bounds::READ_AHEAD_BYTES;

/// A TCP stream whose bytes are counted. Dropping it records the connection's final account, before
/// the socket is closed and the kernel forgets it.
pub struct WitnessedTcp {
    stream: Arc<TcpStream>,
    /// Read, and not yet asked for.
    ahead: Bytes,
    connection: Arc<Connection>,
    witness: Witness,
    recorder: Recorder,
    on_close: Arc<dyn Fn(&ConnectionClosed) + Send + Sync>,
}

impl WitnessedTcp {
    /// Takes a stream over right after `accept` or `connect`, before its first byte.
    pub fn adopt(
        stream: TcpStream,
        peer: SocketAddr,
        role: Role,
        witness: &Witness,
        recorder: &Recorder,
        on_close: Arc<dyn Fn(&ConnectionClosed) + Send + Sync>,
    ) -> Self {
        let stream = Arc::new(stream);
        let connection = Arc::new(Connection::new(&stream, peer, role, witness));
        let (ahead, witness, recorder) = (Bytes::new(), witness.clone(), recorder.clone());
        Self { stream, ahead, connection, witness, recorder, on_close }
    }

    /// The connection's counters.
    #[must_use]
    pub fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

impl Drop for WitnessedTcp {
    fn drop(&mut self) {
        let closed = self.connection.closed(&self.witness);
        (self.on_close)(&closed);
        if let Err(error) = self.recorder.try_append(Record::ConnectionClosed(Box::new(closed))) {
            tracing::warn!(cookie = self.connection.cookie(), %error, "connection account not kept");
        }
    }
}

impl AsyncRead for WitnessedTcp {
    /// TLS asks for 4 KiB at a time. A system call takes as much as is there, and what is more than that
    /// goes into memory of the thread first: an idle connection holds none.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let bytes = buf.remaining().min(self.ahead.len());
            buf.put_slice(&self.ahead[..bytes]);
            self.ahead.advance(bytes);
            if self.ahead.is_empty() {
                self.ahead = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.read(buf) {
                Ok(ahead) => {
                    self.ahead = ahead;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl WitnessedTcp {
    /// One system call into `buf`; gives what did not fit.
    fn read(&self, buf: &mut ReadBuf<'_>) -> io::Result<Bytes> {
        let asked = buf.remaining();
        SCRATCH.with_borrow_mut(|scratch| {
            let read = self.connection.input.around(|| {
                let rest = &mut scratch[..READ_AHEAD_BYTES.saturating_sub(asked)];
                let own = io::IoSliceMut::new(buf.initialize_unfilled());
                read_all(&self.stream, &mut [own, io::IoSliceMut::new(rest)])
            })?;
            self.connection.read(read);
            buf.advance(read.min(asked));
            Ok(Bytes::copy_from_slice(&scratch[..read.saturating_sub(asked)]))
        })
    }
}

/// One system call. Where it leaves room it took all that was there, and the stream is not ready any more: it need not be
/// asked again to say so.
fn read_all(stream: &TcpStream, slices: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
    let room: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut taken = 0;
    let result = stream.try_io(Interest::READABLE, || {
        taken = (&*socket2::SockRef::from(stream)).read_vectored(slices)?;
        if (1..room).contains(&taken) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    });
    if taken > 0 { Ok(taken) } else { result }
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_AHEAD_BYTES].into());
}

impl AsyncWrite for WitnessedTcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.connection.output.around(|| self.stream.try_write_vectored(bufs)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket can be shut down through a shared reference only by socket2's view of it.
        Poll::Ready(
            match socket2::SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write) {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                result => result,
            },
        )
    }
}

//! A Unix stream that carries frames and descriptors, and tells who is at its other end.
#![allow(unsafe_code, reason = "SO_PEERCRED, SCM_RIGHTS and poll are reached through libc")]

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    ptr,
    sync::{Mutex, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    ANSWER_TIMEOUT,
    message::{Form, HEADER_BYTES, decode, encode, header, malformed, parse_header},
};

/// Descriptors that one message may carry, and that may wait to be taken.
const DESCRIPTORS_MAX: usize = 2;

/// Who is at the other end, as of when it connected or listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) user: u32,
    /// 0 where its pid namespace is not visible from here.
    pub(super) process: i32,
}

/// Asks the kernel who is at the other end.
pub(super) fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which `found` has; any bytes are a ucred.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { user: found.uid, process: found.pid })
}

/// Whether the other end has closed, or is gone. What it sent before may still be there.
pub(super) fn is_gone(stream: &UnixStream) -> bool {
    let events = libc::POLLRDHUP;
    let mut look = libc::pollfd { fd: stream.as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid pollfd; the call does not wait.
    let ready = unsafe { libc::poll(&raw mut look, 1, 0) };
    ready > 0 && look.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

/// The writing end: whole frames, one after the other.
pub(super) struct Writer {
    stream: Mutex<UnixStream>,
}

impl Writer {
    /// Writes to `stream`; who does not read for [`ANSWER_TIMEOUT`] is given up.
    pub(super) fn new(stream: &UnixStream) -> io::Result<Self> {
        let stream = stream.try_clone()?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: Mutex::new(stream) })
    }

    /// Sends a message with these descriptors.
    pub(super) fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.frame(Form::Json, &encode(message)?, descriptors)
    }

    /// Sends a batch of notices.
    pub(super) fn send_batch(&self, payload: &[u8]) -> io::Result<()> {
        self.frame(Form::Batch, payload, &[])
    }

    fn frame(&self, form: Form, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let header = header(form, payload)?;
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if descriptors.is_empty() {
            stream.write_all(&header)?;
        } else {
            send_with(&stream, &header, descriptors)?;
        }
        stream.write_all(payload)
    }
}

/// The reading end.
pub(super) struct Reader {
    stream: UnixStream,
    descriptors: VecDeque<OwnedFd>,
}

impl Reader {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, descriptors: VecDeque::new() }
    }

    /// The stream itself.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The next frame.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other end is gone, `WouldBlock` when nothing came within the read timeout.
    pub(super) fn frame(&mut self) -> io::Result<(Form, Vec<u8>)> {
        let mut bytes = [0; HEADER_BYTES];
        let mut filled = 0;
        while filled < HEADER_BYTES {
            match receive_with(&self.stream, &mut bytes[filled..], &mut self.descriptors) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.descriptors.len() > DESCRIPTORS_MAX {
                return Err(malformed("more descriptors than any message has"));
            }
        }
        let (length, form) = parse_header(bytes)?;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok((form, payload))
    }

    /// The next message, which must not be a batch.
    pub(super) fn message<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        match self.frame()? {
            (Form::Json, payload) => decode(&payload),
            (Form::Batch, _) => Err(malformed("a batch where an answer is due")),
        }
    }

    /// The next descriptor that came with the last message.
    pub(super) fn descriptor(&mut self) -> io::Result<OwnedFd> {
        self.descriptors.pop_front().ok_or_else(|| malformed("a message lacks its descriptor"))
    }
}

/// Room for a control message of [`DESCRIPTORS_MAX`] descriptors, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

const CONTROL_DATA: usize = DESCRIPTORS_MAX * mem::size_of::<libc::c_int>();
// SAFETY: arithmetic only.
const _: () = assert!(unsafe { libc::CMSG_SPACE(CONTROL_DATA as u32) } as usize <= 64);

fn send_with(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(malformed("more descriptors than any message has"));
    }
    let size = mem::size_of_val(descriptors) as u32;
    let raw: Vec<libc::c_int> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all fields are integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the control buffer is aligned and holds a header and DESCRIPTORS_MAX descriptors (asserted
    // above), of which `size` bytes are written; `message` and what it points to live until the call returns.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
        ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), size as usize);
        libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    match usize::try_from(sent) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn receive_with(
    stream: &UnixStream,
    into: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: all fields are integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: `message` and what it points to live until the call returns, and its lengths are right.
    let read =
        unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel filled the control buffer and set its length; CMSG_NXTHDR stays within it.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: `header` is a control message within the buffer; the descriptors behind it were made for
        // this process, and nobody else owns them.
        unsafe {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<libc::c_int>();
                let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / mem::size_of::<libc::c_int>() {
                    let raw = ptr::read_unaligned(data.add(index));
                    descriptors.push_back(OwnedFd::from_raw_fd(raw));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(malformed("more descriptors than any message has"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Seek as _, SeekFrom},
        os::fd::AsFd as _,
    };

    use super::{super::message::FromGateway, *};

    fn pair() -> (Writer, Reader) {
        let (near, far) = UnixStream::pair().expect("a pair");
        (Writer::new(&near).expect("a writer"), Reader::new(far))
    }

    #[test]
    fn descriptors_come_with_their_message() {
        let (writer, mut reader) = pair();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"the same file").expect("write");
        writer.send(&FromGateway::WhoAmI, &[]).expect("send");
        writer.send(&FromGateway::Pair, &[file.as_fd(), file.as_fd()]).expect("send");
        assert_eq!(reader.message::<FromGateway>().expect("first"), FromGateway::WhoAmI);
        assert!(reader.descriptor().is_err());
        assert_eq!(reader.message::<FromGateway>().expect("second"), FromGateway::Pair);
        for _ in 0..2 {
            let mut passed = File::from(reader.descriptor().expect("passed"));
            passed.seek(SeekFrom::Start(0)).expect("seek");
            let mut text = String::new();
            passed.read_to_string(&mut text).expect("read");
            assert_eq!(text, "the same file");
        }
        assert!(reader.descriptor().is_err());
    }

    #[test]
    fn descriptors_above_the_bound_are_refused() {
        let (writer, mut reader) = pair();
        let file = tempfile::tempfile().expect("a file");
        assert!(writer.send(&FromGateway::Pair, &[file.as_fd(); 3]).is_err());
        for _ in 0..3 {
            writer.send(&FromGateway::Pair, &[file.as_fd(); 1]).expect("send");
        }
        reader.frame().expect("one waits");
        reader.frame().expect("two wait");
        assert!(reader.frame().is_err(), "nobody takes them");
    }

    #[test]
    fn a_peer_that_is_gone_is_seen_at_once() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let own = peer(&near).expect("credentials");
        assert_eq!(own.process, i32::try_from(std::process::id()).expect("a pid"));
        assert!(!is_gone(&near));
        drop(far);
        assert!(is_gone(&near));
        assert!(Reader::new(near).frame().is_err());
    }
}

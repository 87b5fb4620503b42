//! One connection to a probe: the hello, the self-test of the way through its table, questions and answers.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, TcpStream},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use recorder_ebpf::{ABI_VERSION, Slot};

use super::{
    ANSWER_TIMEOUT, PROTOCOL_VERSION, TEST_BYTES,
    channel::{Reader, Writer, is_gone, peer},
    message::{Counts, FromGateway, FromProbe, malformed},
};
use crate::{
    model::CapabilityRecord,
    witness::{
        Identity, Table, locked,
        loopback::{pair, pass},
        sys,
    },
};

/// There is no probe to work with.
#[derive(Debug, thiserror::Error)]
pub enum ConnectProbeError {
    /// Nobody listens there, or the connection broke.
    #[error("no probe answers on {}: is `recorder probe` running on this node?", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error(
        "user {0} answers in the place of the probe, which runs as root or as the gateway's user"
    )]
    Stranger(u32),
    /// The probe does not serve this gateway.
    #[error("the probe refuses: {0}")]
    Refused(String),
    /// The bytes that this gateway passed are not in the table.
    #[error("the way through the probe's table failed its self-test: {0}")]
    SelfTest(String),
}

/// The connection to a probe while it lasts. Its table ends with it: what a dead probe's programs counted
/// stands still.
pub(in crate::witness) struct Session {
    table: Table,
    stream: UnixStream,
    writer: Writer,
    identity: Identity,
    lost: AtomicBool,
    requests: AtomicU64,
    answers: Mutex<HashMap<u64, mpsc::SyncSender<Option<String>>>>,
    counts: Mutex<Counts>,
}

impl Session {
    /// A socket's slot; None when there is none, or the probe is gone: its programs may have been cut off
    /// before the socket's last byte. One system call.
    pub(in crate::witness) fn read(&self, cookie: u64) -> Option<Slot> {
        let slot = self.table.read(cookie)?;
        // In this order: what was read was counted while the probe lived. A process that ends closes what
        // it opened last first, so that this socket goes before the programs do.
        let lives = !self.lost.load(Ordering::Acquire) && !is_gone(&self.stream);
        lives.then_some(slot)
    }

    /// Looks at every slot.
    pub(in crate::witness) fn for_each(&self, each: impl FnMut(&Slot)) {
        self.table.for_each(each);
    }

    /// What this process is in the eyes of the programs.
    pub(in crate::witness) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it is still there.
    pub(in crate::witness) fn lives(&self) -> bool {
        !self.lost.load(Ordering::Acquire)
    }

    /// Tells the probe; no answer comes.
    pub(super) fn send(&self, message: &FromGateway) -> io::Result<()> {
        self.pass(message, &[])
    }

    /// Tells the probe, with descriptors.
    pub(super) fn pass(
        &self,
        message: &FromGateway,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.writer.send(message, descriptors)
    }

    /// Hangs up.
    pub(super) fn end(&self) {
        // Gone already, where this fails.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// It is over; whoever waits for an answer waits no longer.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        locked(&self.answers).clear();
    }

    /// What the probe counted, by its latest word.
    pub(super) fn counts(&self) -> Counts {
        *locked(&self.counts)
    }

    /// Takes the latest word in; gives the one before.
    pub(super) fn replace_counts(&self, counts: Counts) -> Counts {
        std::mem::replace(&mut *locked(&self.counts), counts)
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(
        &self,
        message: impl FnOnce(u64) -> FromGateway,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), String> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = mpsc::sync_channel(1);
        locked(&self.answers).insert(request, answer);
        let sent = self.writer.send(&message(request), descriptors);
        let done = sent.map_err(|error| error.to_string()).and_then(|()| {
            match answered.recv_timeout(ANSWER_TIMEOUT) {
                Ok(None) => Ok(()),
                Ok(Some(error)) => Err(error),
                Err(_) => Err("the probe does not answer".to_owned()),
            }
        });
        locked(&self.answers).remove(&request);
        done
    }

    /// An answer came.
    pub(super) fn answered(&self, request: u64, error: Option<String>) {
        if let Some(waits) = locked(&self.answers).get(&request) {
            // Whoever waited no longer does not care.
            drop(waits.try_send(error));
        }
    }
}

/// Connects, and passes the self-test of the way through the table. The notices do not flow yet.
pub(super) fn connect(
    path: &Path,
) -> Result<(Session, Reader, CapabilityRecord), ConnectProbeError> {
    let failed = |source| connect_error(path, source);
    let stream = UnixStream::connect(path).map_err(failed)?;
    let user = peer(&stream).map_err(failed)?.user;
    if user != 0 && user != sys::own_user() {
        return Err(ConnectProbeError::Stranger(user));
    }
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
    let writer = Writer::new(&stream).map_err(failed)?;
    let mut reader = Reader::new(stream.try_clone().map_err(failed)?);
    let hello = FromGateway::Hello {
        protocol: PROTOCOL_VERSION,
        abi: ABI_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    writer.send(&hello, &[]).map_err(failed)?;
    let (capability, kept) = match reader.message().map_err(failed)? {
        FromProbe::Hello { protocol, abi, capability, kept, .. }
            if (protocol, abi) == (PROTOCOL_VERSION, ABI_VERSION) =>
        {
            (capability, kept)
        }
        FromProbe::Refused { why } => return Err(ConnectProbeError::Refused(why)),
        _ => return Err(failed(malformed("an answer that is no hello of this version"))),
    };
    let table = reader.descriptor().and_then(|fd| Table::map(fd.as_fd())).map_err(failed)?;
    let identity = known(&writer, &mut reader, &table)?;
    tracing::info!(process = identity.tgid, kept, "the probe answers");
    let session = Session {
        table,
        stream,
        writer,
        identity,
        lost: AtomicBool::new(false),
        requests: AtomicU64::new(0),
        answers: Mutex::default(),
        counts: Mutex::default(),
    };
    Ok((session, reader, capability))
}

/// Passes the known bytes: the probe learns what this process is, and this process that the table counts.
fn known(
    writer: &Writer,
    reader: &mut Reader,
    table: &Table,
) -> Result<Identity, ConnectProbeError> {
    let mut test = || -> io::Result<(Identity, [u64; 4])> {
        let (mut near, mut far) = pair()?;
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        }
        writer.send(&FromGateway::Pair, &[near.as_fd(), far.as_fd()])?;
        let FromProbe::Counted = reader.message()? else {
            return Err(malformed("another answer than that the pair is counted"));
        };
        let [up, down] = TEST_BYTES.map(|bytes| bytes as usize);
        pass(&mut near, &mut far, up)?;
        pass(&mut far, &mut near, down)?;
        writer.send(&FromGateway::WhoAmI, &[])?;
        let FromProbe::Known { tgid, cgroup_id, netns_cookie } = reader.message()? else {
            return Err(malformed("another answer than who this is"));
        };
        let slot = |end: &TcpStream| {
            let cookie = sys::cookie(end.as_fd())?;
            io::Result::Ok(table.read(cookie).unwrap_or_default())
        };
        let (near, far): (Slot, Slot) = (slot(&near)?, slot(&far)?);
        let counted = [near.sent_bytes, near.received_bytes, far.received_bytes, far.sent_bytes];
        Ok((Identity { tgid, cgroup_id, netns_cookie }, counted))
    };
    let (identity, counted) =
        test().map_err(|error| ConnectProbeError::SelfTest(error.to_string()))?;
    let [up, down] = TEST_BYTES;
    if counted != [up, down, up, down] {
        let why = format!("of {TEST_BYTES:?} bytes {counted:?} were counted");
        return Err(ConnectProbeError::SelfTest(why));
    }
    Ok(identity)
}

pub(super) fn connect_error(path: &Path, source: io::Error) -> ConnectProbeError {
    ConnectProbeError::Connect { path: path.to_owned(), source }
}

//! The gateway's end: one connection to the probe, made again whenever it is lost.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use recorder_ebpf::{ABI_VERSION, Slot};

use super::{
    ANSWER_TIMEOUT, PROTOCOL_VERSION, SILENCE_MAX, TEST_BYTES,
    channel::{Reader, Writer, is_gone, peer},
    message::{Address, Counts, Form, FromGateway, FromProbe, decode, decode_batch, malformed},
};
use crate::{
    model::CapabilityRecord,
    witness::{
        EndpointAddress, EndpointKind, Identity, Table, Trouble, health, notices::Correlator, sys,
    },
};

/// How often a lost probe is looked for.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// Addresses that this process connected to and that are remembered.
const EXPECTED_MAX: usize = 256;

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

/// What the programs shall choose sockets by, to be set again whenever a probe comes.
#[derive(Default)]
struct Wanted {
    port: Option<u16>,
    listener: Option<OwnedFd>,
    endpoints: Vec<EndpointAddress>,
    /// Addresses that this process connected to, whether or not they are among the endpoints.
    expected: Vec<EndpointAddress>,
    watched: Vec<u64>,
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

    /// Asks, and waits for the answer.
    fn ask(
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

    fn answered(&self, request: u64, error: Option<String>) {
        if let Some(waits) = locked(&self.answers).get(&request) {
            // Whoever waited no longer does not care.
            drop(waits.try_send(error));
        }
    }
}

/// The link to the probe. Dropping it ends it.
pub(in crate::witness) struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    capability: CapabilityRecord,
    session: Mutex<Option<Arc<Session>>>,
    wanted: Mutex<Wanted>,
    correlator: Arc<Correlator>,
    state: Arc<health::State>,
    stop: AtomicBool,
}

impl Link {
    /// Connects to a probe, and goes on to look for it when it is lost. Gives what the probe's programs can
    /// see. Waits up to `patience` for one that does not listen yet.
    ///
    /// # Errors
    /// When there is none that serves this gateway.
    pub(in crate::witness) fn start(
        path: &Path,
        patience: Duration,
        correlator: Arc<Correlator>,
        state: Arc<health::State>,
    ) -> Result<(Self, CapabilityRecord), ConnectProbeError> {
        let (session, reader, capability) = await_probe(path, patience)?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            capability: capability.clone(),
            session: Mutex::default(),
            wanted: Mutex::default(),
            correlator,
            state,
            stop: AtomicBool::new(false),
        });
        let first = (Arc::new(session), reader);
        shared.publish(&first.0).map_err(|source| connect_error(path, source))?;
        let thread = thread::Builder::new().name("witness-link".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(first)
        });
        let thread = thread.map_err(|source| connect_error(path, source))?;
        Ok((Self { shared, thread: Some(thread) }, capability))
    }

    /// The probe that is there now.
    pub(in crate::witness) fn session(&self) -> Option<Arc<Session>> {
        locked(&self.shared.session).clone()
    }

    /// This gateway listens on this port; to be told before `bind`.
    pub(in crate::witness) fn set_port(&self, port: u16) -> Result<(), String> {
        self.shared.set(
            |wanted| wanted.port = Some(port),
            |session, _| session.ask(|request| FromGateway::Gateway { request, port }, &[]),
        )
    }

    /// The listener itself: a probe that comes later is told by its descriptor, of which a copy is kept until
    /// [`forget_listener`](Self::forget_listener).
    pub(in crate::witness) fn set_listener(&self, listener: BorrowedFd<'_>) -> io::Result<()> {
        let copy = listener.try_clone_to_owned()?;
        locked(&self.shared.wanted).listener = Some(copy);
        Ok(())
    }

    /// This process is about to connect to this API server's address: a connection to an address that the
    /// programs do not look after would not be witnessed. Asks the probe at the first time only.
    pub(in crate::witness) fn expect(&self, address: EndpointAddress) -> Result<(), String> {
        let known = {
            let wanted = locked(&self.shared.wanted);
            wanted.endpoints.contains(&address) || wanted.expected.contains(&address)
        };
        if known {
            return Ok(());
        }
        let note = |wanted: &mut Wanted| {
            // Whoever changes its addresses so often loses the oldest.
            if wanted.expected.len() == EXPECTED_MAX {
                wanted.expected.remove(0);
            }
            wanted.expected.push(address);
        };
        self.shared.set(note, tell_endpoints)
    }

    /// What the probe counted, by its latest word; nothing while it is lost.
    pub(in crate::witness) fn counts(&self) -> Counts {
        self.session().map_or_else(Counts::default, |session| *locked(&session.counts))
    }

    /// Lets the copy of the listener go, without which its port stays open.
    pub(in crate::witness) fn forget_listener(&self) {
        locked(&self.shared.wanted).listener = None;
    }

    /// The addresses to look after from now on.
    pub(in crate::witness) fn set_endpoints(
        &self,
        endpoints: &[EndpointAddress],
    ) -> Result<(), String> {
        let note = |wanted: &mut Wanted| wanted.endpoints = endpoints.to_vec();
        self.shared.set(note, tell_endpoints)
    }

    /// The cgroups to watch from now on.
    pub(in crate::witness) fn set_watched(&self, cgroups: &[u64]) -> Result<(), String> {
        self.shared.set(
            |wanted| wanted.watched = cgroups.to_vec(),
            |session, _| {
                let cgroups = cgroups.to_vec();
                session.ask(|request| FromGateway::Watched { request, cgroups }, &[])
            },
        )
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(session) = self.session() {
            // Gone already, where this fails.
            drop(session.stream.shutdown(Shutdown::Both));
        }
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread of the link to the probe panicked");
            }
        }
    }
}

impl Shared {
    /// Notes a wish, and tells the probe if there is one: else the next one is told.
    fn set(
        &self,
        note: impl FnOnce(&mut Wanted),
        tell: impl FnOnce(&Session, &Wanted) -> Result<(), String>,
    ) -> Result<(), String> {
        // Under the lock of wishes, so that a probe that comes now is told either before or after.
        let mut wanted = locked(&self.wanted);
        note(&mut wanted);
        let session = locked(&self.session).clone();
        match session.filter(|session| session.lives()) {
            Some(session) => match tell(&session, &wanted) {
                Err(_) if !session.lives() => Ok(()),
                told => told,
            },
            None => Ok(()),
        }
    }

    /// Takes a probe that serves into use.
    fn publish(&self, session: &Arc<Session>) -> io::Result<()> {
        session.writer.send(&FromGateway::Start, &[])?;
        *locked(&self.session) = Some(Arc::clone(session));
        Ok(())
    }

    fn run(&self, first: (Arc<Session>, Reader)) {
        let mut next = Some(first);
        while !self.stop.load(Ordering::Acquire) {
            let Some((session, mut reader)) = next.take() else {
                thread::park_timeout(RECONNECT_INTERVAL);
                next = self.again();
                continue;
            };
            let Err(why) = self.attend(&session, &mut reader);
            session.lost.store(true, Ordering::Release);
            // Whoever waits for an answer waits no longer.
            locked(&session.answers).clear();
            *locked(&self.session) = None;
            if !self.stop.load(Ordering::Acquire) {
                tracing::error!(%why, "the probe is lost: what passes now is not witnessed");
                self.state.lasting(vec![Trouble::ProbeLost]);
            }
        }
    }

    /// A probe that is back, told of all wishes and in use.
    fn again(&self) -> Option<(Arc<Session>, Reader)> {
        let (session, mut reader, capability) = connect(&self.path)
            .inspect_err(|error| tracing::debug!(%error, "the probe is not back"))
            .ok()?;
        if !capability.self_test || capability.tier != self.capability.tier {
            tracing::warn!(tier = ?capability.tier, "a probe came that sees less: not used");
            return None;
        }
        let session = Arc::new(session);
        let wanted = locked(&self.wanted);
        let told = tell_all(&session, &mut reader, &wanted).and_then(|()| self.publish(&session));
        drop(wanted);
        match told {
            Ok(()) => {
                tracing::info!("the probe is back");
                self.state.lasting(vec![]);
                Some((session, reader))
            }
            Err(error) => {
                tracing::warn!(%error, "a probe came and cannot be used");
                None
            }
        }
    }

    /// Takes in what the probe tells, until it is lost.
    fn attend(
        &self,
        session: &Session,
        reader: &mut Reader,
    ) -> Result<std::convert::Infallible, io::Error> {
        reader.stream().set_read_timeout(Some(SILENCE_MAX))?;
        loop {
            let (form, payload) = reader.frame()?;
            if form == Form::Batch {
                let (batch, records) = decode_batch(&payload)?;
                self.correlator.observe(records.into_iter());
                session.writer.send(&FromGateway::Taken { batch }, &[])?;
                continue;
            }
            match decode(&payload)? {
                FromProbe::Done { request, error } => session.answered(request, error),
                FromProbe::Pulse { troubles, counts } => self.pulse(session, troubles, counts),
                FromProbe::Event { event } => self.state.hear(event),
                _ => return Err(malformed("a message at the wrong time")),
            }
        }
    }

    fn pulse(&self, session: &Session, troubles: Vec<Trouble>, counts: Counts) {
        self.state.lasting(troubles);
        let before = std::mem::replace(&mut *locked(&session.counts), counts);
        let lost = counts.dropped_connections.saturating_sub(before.dropped_connections);
        if lost > 0 {
            self.state.instant(Trouble::ConnectionsLost { notices: lost });
        }
        let lost = counts.dropped_notices.saturating_sub(before.dropped_notices);
        if lost > 0 {
            self.state.instant(Trouble::NoticesLost { notices: lost });
        }
    }
}

fn await_probe(
    path: &Path,
    patience: Duration,
) -> Result<(Session, Reader, CapabilityRecord), ConnectProbeError> {
    let deadline = Instant::now() + patience;
    loop {
        match connect(path) {
            Err(_) if Instant::now() < deadline => thread::sleep(RECONNECT_INTERVAL),
            connected => return connected,
        }
    }
}

/// Connects, and passes the self-test of the way through the table. The notices do not flow yet.
fn connect(path: &Path) -> Result<(Session, Reader, CapabilityRecord), ConnectProbeError> {
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
        writer.send(&FromGateway::Pair, &[near.as_fd(), far.as_fd()])?;
        let FromProbe::Counted = reader.message()? else {
            return Err(malformed("another answer than that the pair is counted"));
        };
        let [up, down] = TEST_BYTES;
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

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    }
    Ok((near, far))
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0x5a; usize::try_from(bytes).map_err(io::Error::other)?];
    from.write_all(&buffer)?;
    to.read_exact(&mut buffer)
}

/// Tells a probe all wishes before notices flow, so that each answer is the next message.
fn tell_all(session: &Session, reader: &mut Reader, wanted: &Wanted) -> io::Result<()> {
    let mut ask = |message: FromGateway, descriptors: &[BorrowedFd<'_>]| -> io::Result<()> {
        session.writer.send(&message, descriptors)?;
        match reader.message()? {
            FromProbe::Done { error: None, .. } => Ok(()),
            FromProbe::Done { error: Some(error), .. } => Err(io::Error::other(error)),
            _ => Err(malformed("another answer than that it is done")),
        }
    };
    let request = 0;
    if let Some(port) = wanted.port {
        ask(FromGateway::Gateway { request, port }, &[])?;
    }
    if let Some(listener) = &wanted.listener {
        ask(FromGateway::Listener { request }, &[listener.as_fd()])?;
    }
    let addresses = addresses(wanted);
    ask(FromGateway::Endpoints { request, addresses }, &[])?;
    ask(FromGateway::Watched { request, cgroups: wanted.watched.clone() }, &[])
}

fn tell_endpoints(session: &Session, wanted: &Wanted) -> Result<(), String> {
    let addresses = addresses(wanted);
    session.ask(|request| FromGateway::Endpoints { request, addresses }, &[])
}

fn addresses(wanted: &Wanted) -> Vec<Address> {
    let address = |one: &EndpointAddress| Address {
        address: one.address,
        gateway: one.kind == EndpointKind::Gateway,
        netns_cookie: one.netns_cookie,
    };
    let further = wanted.expected.iter().filter(|one| !wanted.endpoints.contains(one));
    wanted.endpoints.iter().chain(further).map(address).collect()
}

fn connect_error(path: &Path, source: io::Error) -> ConnectProbeError {
    ConnectProbeError::Connect { path: path.to_owned(), source }
}

/// Whoever panicked under a lock left it whole: each holds one value that is replaced at once.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

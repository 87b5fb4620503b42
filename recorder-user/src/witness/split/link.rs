//! The gateway's end: the connection to the probe, made again whenever it is lost, and what is wished of any probe.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    SILENCE_MAX,
    channel::Reader,
    message::{Address, Counts, Form, FromGateway, FromProbe, decode, decode_batch, malformed},
    session::{self, ConnectProbeError, Session, connect_error},
};
use crate::{
    model::CapabilityRecord,
    witness::{EndpointAddress, EndpointKind, Trouble, health, locked, notices::Correlator},
};

/// How often a lost probe is looked for.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// Addresses that this process connected to and that are remembered.
const EXPECTED_MAX: usize = 256;

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
        self.session().map_or_else(Counts::default, |session| session.counts())
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
            session.end();
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
        session.send(&FromGateway::Start)?;
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
            session.lose();
            *locked(&self.session) = None;
            if !self.stop.load(Ordering::Acquire) {
                tracing::error!(%why, "the probe is lost: what passes now is not witnessed");
                self.state.lasting(vec![Trouble::ProbeLost]);
            }
        }
    }

    /// A probe that is back, told of all wishes and in use.
    fn again(&self) -> Option<(Arc<Session>, Reader)> {
        let (session, mut reader, capability) = session::connect(&self.path)
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
                session.send(&FromGateway::Taken { batch })?;
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
        let before = session.replace_counts(counts);
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
        match session::connect(path) {
            Err(_) if Instant::now() < deadline => thread::sleep(RECONNECT_INTERVAL),
            connected => return connected,
        }
    }
}

/// Tells a probe all wishes before notices flow, so that each answer is the next message.
fn tell_all(session: &Session, reader: &mut Reader, wanted: &Wanted) -> io::Result<()> {
    let mut ask = |message: FromGateway, descriptors: &[BorrowedFd<'_>]| -> io::Result<()> {
        session.pass(&message, descriptors)?;
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

//! The probe's end: it listens, and serves one gateway at a time.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, chown},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use recorder_ebpf::ABI_VERSION;
use tokio::sync::mpsc::Receiver;

use super::{
    ANSWER_TIMEOUT, PROTOCOL_VERSION, PULSE, TEST_BYTES,
    channel::{Peer, Reader, Writer, is_gone, peer},
    mailbox::Mailbox,
    message::{Address, Counts, FromGateway, FromProbe, encode_batch, malformed},
};
use crate::witness::{
    EndpointAddress, EndpointKind, HealthEvent, Identity, SelectError, Selection, SocketWitness,
    Witness, confine, netns_cookie,
};

/// How the probe listens.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The socket; its directory is made when it is not there.
    pub socket: PathBuf,
    /// The users that gateways run as.
    pub users: Vec<u32>,
    /// The group that may connect; none for that of the socket's directory or process.
    pub group: Option<u32>,
}

/// The probe cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeProbeError {
    /// Something else than a socket has the name.
    #[error("{} is there and is no socket: remove it, or set --listen", .0.display())]
    NotASocket(PathBuf),
    /// Somebody answers on it.
    #[error("another probe answers on {}: there is one for each node", .0.display())]
    InUse(PathBuf),
    /// The system refused the socket.
    #[error("cannot listen on {}", .path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The programs cannot be told what to look after.
    #[error(
        "the programs do not choose sockets on this kernel, which a gateway without rights needs: {0}"
    )]
    ChoosesNothing(String),
    /// Rights are left.
    #[error("the probe still has capabilities: it does not serve with them")]
    Mighty,
    /// The system refuses what it takes to serve.
    #[error("no descriptor of the table of totals, or /proc cannot be read")]
    Table(#[source] io::Error),
}

/// The listening socket.
pub struct ProbeSocket {
    listener: UnixListener,
    options: ServeOptions,
}

impl ProbeSocket {
    /// Makes the socket with mode 0660, in the place of one that a probe left behind. Gateways may connect from
    /// now on, and wait until [`serve`](Self::serve).
    ///
    /// # Errors
    /// When it cannot be made, or is in use.
    pub fn bind(options: ServeOptions) -> Result<Self, ServeProbeError> {
        let path = options.socket.clone();
        let failed = |source| ServeProbeError::Listen { path: path.clone(), source };
        if let Some(directory) = path.parent() {
            make_directory(directory, options.group).map_err(failed)?;
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServeProbeError::NotASocket(path));
            }
            Ok(_) if UnixStream::connect(&path).is_ok() => {
                return Err(ServeProbeError::InUse(path));
            }
            Ok(_) => fs::remove_file(&path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        // Until here others may connect, but none of them is answered: the user is checked.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
        if options.group.is_some() {
            chown(&path, None, options.group).map_err(failed)?;
        }
        Ok(Self { listener, options })
    }

    /// Serves gateways with what this witness's programs see, on threads of its own, until the process ends.
    ///
    /// # Errors
    /// When the witness's programs do not choose sockets.
    pub fn serve(&self, witness: &Witness) -> Result<(), ServeProbeError> {
        if confine::has_capabilities().map_err(ServeProbeError::Table)? {
            return Err(ServeProbeError::Mighty);
        }
        let capability = witness.capability();
        let selection = witness.selection().ok_or_else(|| {
            let refused = |hook: &crate::model::HookState| {
                hook.error.as_ref().map(|error| format!("{}: {error}", hook.hook))
            };
            let errors: Vec<_> = capability.hooks.iter().filter_map(refused).collect();
            ServeProbeError::ChoosesNothing(errors.join("; "))
        })?;
        let table = witness.table_descriptor().map_err(ServeProbeError::Table)?;
        let table = table.ok_or_else(|| ServeProbeError::Table(io::ErrorKind::NotFound.into()))?;
        let mailbox = Arc::<Mailbox>::default();
        let keeps = Arc::clone(&mailbox);
        witness.pass_on(move |record| keeps.put(record));
        let probe = Arc::new(Probe {
            events: Mutex::new(witness.take_health()),
            witness: witness.clone(),
            selection,
            table,
            mailbox,
            users: self.options.users.clone(),
            serving: AtomicBool::new(false),
            gateway: Mutex::default(),
        });
        for stream in self.listener.incoming() {
            match stream {
                Ok(stream) => Probe::answer(&probe, stream),
                Err(error) => {
                    tracing::warn!(%error, "a gateway could not be accepted");
                    // Out of descriptors, most likely: not again at once.
                    thread::sleep(PULSE);
                }
            }
        }
        Ok(())
    }
}

fn make_directory(directory: &Path, group: Option<u32>) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o750).create(directory) {
        Ok(()) => chown(directory, None, group),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// What all connections share.
struct Probe {
    witness: Witness,
    selection: Selection,
    table: OwnedFd,
    mailbox: Arc<Mailbox>,
    /// Changes of health wait here for the next gateway.
    events: Mutex<Option<Receiver<HealthEvent>>>,
    users: Vec<u32>,
    /// Whether a gateway is served.
    serving: AtomicBool,
    /// The gateway whose sockets the programs choose: it may be gone, and its keys stay until the next.
    gateway: Mutex<Option<(Identity, u16)>>,
}

impl Probe {
    /// Begins to serve a gateway, or refuses it.
    fn answer(probe: &Arc<Self>, stream: UnixStream) {
        let own = Arc::clone(probe);
        let thread = thread::Builder::new().name("probe-gateway".to_owned());
        // Who is refused gets a thread for a moment only: the answer must not wait for anybody.
        let started = thread.spawn(move || match own.attend(stream) {
            Ok(()) => tracing::info!("the gateway left"),
            Err(error) => tracing::warn!(%error, "the gateway is lost"),
        });
        if let Err(error) = started {
            tracing::error!(%error, "no thread for a gateway");
        }
    }

    fn attend(&self, stream: UnixStream) -> io::Result<()> {
        let peer = peer(&stream)?;
        let writer = Writer::new(&stream)?;
        let refuse = |why: String| {
            tracing::warn!(user = peer.user, process = peer.process, why, "a gateway is refused");
            writer.send(&FromProbe::Refused { why }, &[])
        };
        if !self.users.contains(&peer.user) {
            return refuse(format!("user {} is none that this probe serves (--user)", peer.user));
        }
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut reader = Reader::new(stream);
        if let Some(why) = unfit(&reader.message()?) {
            return refuse(why);
        }
        if self.serving.swap(true, Ordering::AcqRel) {
            return refuse("this probe serves another gateway already".to_owned());
        }
        let result = self.converse(peer, writer, reader);
        self.serving.store(false, Ordering::Release);
        result
    }

    fn converse(&self, peer: Peer, writer: Writer, reader: Reader) -> io::Result<()> {
        let hello = FromProbe::Hello {
            protocol: PROTOCOL_VERSION,
            abi: ABI_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capability: self.witness.capability().clone(),
            kept: self.mailbox.len() as u64,
        };
        writer.send(&hello, &[self.table.as_fd()])?;
        let (taken, batches) = mpsc::sync_channel(1);
        let mut conversation =
            Conversation { probe: self, writer: &writer, reader, pair: None, identity: None };
        while conversation.prepare()? {}
        let identity = conversation.identity;
        tracing::info!(
            user = peer.user,
            process = identity.map(|identity| identity.tgid),
            cgroup = identity.map(|identity| identity.cgroup_id),
            kept = self.mailbox.len(),
            "a gateway is served"
        );
        conversation.reader.stream().set_read_timeout(None)?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let stream = conversation.reader.stream().try_clone()?;
            let writer = &writer;
            let over = &over;
            let teller = scope.spawn(move || {
                let told = self.tell(writer, &stream, &batches, over);
                // The reader wakes up, if it was not the first to see the end.
                stream.shutdown(std::net::Shutdown::Both).or_else(already_gone).and(told)
            });
            let heard = conversation.requests(&taken);
            over.store(true, Ordering::Release);
            let told = teller.join().unwrap_or_else(|_| Err(io::Error::other("a panic")));
            match heard {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
                heard => heard.and(told),
            }
        })
    }

    /// Tells what comes and how the probe is, until the gateway is gone.
    fn tell(
        &self,
        writer: &Writer,
        stream: &UnixStream,
        taken: &mpsc::Receiver<u64>,
        over: &AtomicBool,
    ) -> io::Result<()> {
        let mut pulse: Option<Instant> = None;
        let mut batch = 0;
        while !over.load(Ordering::Acquire) && !is_gone(stream) {
            if pulse.is_none_or(|last| last.elapsed() >= PULSE) {
                self.pulse(writer)?;
                pulse = Some(Instant::now());
            }
            let records = self.mailbox.take(PULSE / 4);
            if records.is_empty() {
                continue;
            }
            batch += 1;
            let sent = writer.send_batch(&encode_batch(batch, &records));
            let arrived = sent.and_then(|()| match taken.recv_timeout(ANSWER_TIMEOUT) {
                Ok(number) if number == batch => Ok(()),
                Ok(_) => Err(malformed("an answer to another batch")),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            });
            if let Err(error) = arrived {
                self.mailbox.put_back(records);
                return Err(error);
            }
        }
        Ok(())
    }

    fn pulse(&self, writer: &Writer) -> io::Result<()> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(event) = events.as_mut().and_then(|events| events.try_recv().ok()) {
            writer.send(&FromProbe::Event { event }, &[])?;
        }
        drop(events);
        let (stats, dropped) = (self.witness.stats(), self.mailbox.dropped());
        let counts = Counts {
            emitted: stats.emitted,
            lost_ring: stats.lost_ring,
            malformed: stats.lost_malformed,
            dropped_notices: dropped.notices,
            dropped_connections: dropped.connections,
        };
        let troubles = self.witness.health().troubles;
        writer.send(&FromProbe::Pulse { troubles, counts }, &[])
    }

    /// From now on the programs choose this gateway's sockets, and no earlier one's.
    fn choose(&self, identity: Identity, port: u16) -> Result<(), SelectError> {
        let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, its_port)) = gateway.take_if(|before| *before != (identity, port)) {
            self.selection.remove_gateway(before, its_port)?;
        }
        self.selection.add_gateway(identity, port)?;
        *gateway = Some((identity, port));
        Ok(())
    }
}

/// Why this gateway cannot be served, if so.
fn unfit(hello: &FromGateway) -> Option<String> {
    match hello {
        FromGateway::Hello { protocol, abi, .. }
            if (*protocol, *abi) == (PROTOCOL_VERSION, ABI_VERSION) =>
        {
            None
        }
        FromGateway::Hello { version, .. } => Some(format!(
            "the gateway is version {version} and the probe {}: run both from one release",
            env!("CARGO_PKG_VERSION")
        )),
        _ => Some("a gateway says hello first".to_owned()),
    }
}

fn already_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}

/// One gateway's connection.
struct Conversation<'p> {
    probe: &'p Probe,
    writer: &'p Writer,
    reader: Reader,
    /// Both ends of the connection by which the gateway shows what it is.
    pair: Option<[(OwnedFd, SocketWitness); 2]>,
    identity: Option<Identity>,
}

impl Conversation<'_> {
    /// Answers one message of the beginning; false when the gateway wants notices.
    fn prepare(&mut self) -> io::Result<bool> {
        match self.reader.message()? {
            FromGateway::Pair => {
                let ends = [self.reader.descriptor()?, self.reader.descriptor()?];
                self.pair = Some(ends.map(|end| {
                    let watch = self.probe.witness.adopt(end.as_fd());
                    (end, watch)
                }));
                self.writer.send(&FromProbe::Counted, &[])?;
            }
            FromGateway::WhoAmI => {
                let identity = self.who().map_err(|why| malformed(&why))?;
                self.identity = Some(identity);
                let Identity { tgid, cgroup_id, netns_cookie } = identity;
                self.writer.send(&FromProbe::Known { tgid, cgroup_id, netns_cookie }, &[])?;
            }
            FromGateway::Start if self.identity.is_some() => return Ok(false),
            FromGateway::Start => return Err(malformed("a gateway that did not show what it is")),
            request => self.request(request)?,
        }
        Ok(true)
    }

    /// Answers requests until the gateway leaves.
    fn requests(&mut self, taken: &mpsc::SyncSender<u64>) -> io::Result<()> {
        loop {
            match self.reader.message()? {
                // Nobody waits for it when the teller has ended.
                FromGateway::Taken { batch } => drop(taken.try_send(batch)),
                request => self.request(request)?,
            }
        }
    }

    /// Who sent the known bytes through the pair.
    fn who(&mut self) -> Result<Identity, String> {
        let [(near, near_watch), (_, far_watch)] =
            self.pair.take().ok_or("a gateway passes the ends of a connection first")?;
        let slot = |watch: &SocketWitness| {
            let unseen = || watch.unwitnessed().unwrap_or("nothing was counted").to_owned();
            watch.slot().ok_or_else(unseen)
        };
        let (near_slot, far_slot) = (slot(&near_watch)?, slot(&far_watch)?);
        let [up, down] = TEST_BYTES;
        let counted = [near_slot.sent_bytes, near_slot.received_bytes];
        if counted != [up, down] || [far_slot.received_bytes, far_slot.sent_bytes] != [up, down] {
            return Err(format!("of {TEST_BYTES:?} bytes {counted:?} were counted"));
        }
        if near_slot.owner_tgid == 0 || near_slot.cgroup_id == 0 || near_slot.other_tgid != 0 {
            return Err("it is not known who sent the known bytes".to_owned());
        }
        let netns_cookie = netns_cookie(near.as_fd()).map_err(|error| error.to_string())?;
        let (tgid, cgroup_id) = (near_slot.owner_tgid, near_slot.cgroup_id);
        Ok(Identity { tgid, cgroup_id, netns_cookie })
    }

    fn request(&mut self, asked: FromGateway) -> io::Result<()> {
        let identity = self.identity.ok_or_else(|| malformed("a request of an unknown gateway"))?;
        let probe = self.probe;
        let (request, done) = match asked {
            FromGateway::Gateway { request, port } => (request, probe.choose(identity, port)),
            FromGateway::Listener { request } => {
                let listener = self.reader.descriptor()?;
                (request, probe.selection.adopt_listener(listener.as_fd(), identity))
            }
            FromGateway::Endpoints { request, addresses } => {
                let addresses: Vec<_> = addresses.into_iter().map(endpoint).collect();
                (request, probe.selection.set_endpoints(&addresses))
            }
            FromGateway::Watched { request, cgroups } => {
                (request, probe.selection.set_watched(&cgroups))
            }
            _ => return Err(malformed("a message at the wrong time")),
        };
        let error = done.err().map(|error| error.to_string());
        self.writer.send(&FromProbe::Done { request, error }, &[])
    }
}

fn endpoint(address: Address) -> EndpointAddress {
    EndpointAddress {
        address: address.address,
        kind: if address.gateway { EndpointKind::Gateway } else { EndpointKind::Api },
        netns_cookie: address.netns_cookie,
    }
}

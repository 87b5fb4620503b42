//! A TCP connection under the kernel's witness: every byte that crosses it is counted here, under TLS
//! (ciphertext) and above it (plaintext), and compared with what the kernel counted.

mod plaintext;
mod tcp;

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use recorder_user::{
    model::{ConnectionClosed, ExchangeId, SessionId, SocketEvidence, Timestamp},
    witness::{self, Looks, Role, Sample, SightMark, SocketWitness, View, Witness},
};
use tokio::net::TcpStream;

pub use plaintext::Plaintext;
pub use tcp::WitnessedTcp;

use crate::{
    bounds::CONNECTION_SESSIONS_MAX,
    passage::{Beginnings, Passage, Traffic},
    upgrade::long_target::LongTarget,
};

/// Bytes of one direction. `started` and `finished` count system calls, so that a reader can tell
/// whether one is under way, between the kernel's count and ours.
#[derive(Debug, Default)]
struct Flow {
    bytes: AtomicU64,
    started: AtomicU64,
    finished: AtomicU64,
}

impl Flow {
    fn around(&self, call: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let result = call();
        if let Ok(bytes) = result {
            self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        }
        self.finished.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// The calls finished so far; none while one is under way.
    fn quiet(&self) -> Option<u64> {
        let finished = self.finished.load(Ordering::SeqCst);
        (self.started.load(Ordering::SeqCst) == finished).then_some(finished)
    }
}

/// One connection's identity and counters, shared with the exchanges that it carries.
pub struct Connection {
    role: Role,
    peer: SocketAddr,
    socket: Weak<TcpStream>,
    witness: SocketWitness,
    input: Flow,
    output: Flow,
    /// What the latest read gave.
    last_read: AtomicU64,
    /// A read gave the end of what the peer sends.
    saw_end: AtomicBool,
    plain_in: AtomicU64,
    plain_out: AtomicU64,
    exchanges: AtomicU64,
    traffic: Traffic,
    carried: Mutex<Carried>,
    /// How well the witness saw when it began to watch the socket.
    adopted: SightMark,
    /// The target of the connection's first request, where that is too long for hyper.
    long_target: Mutex<Option<LongTarget>>,
    /// The last look, taken before the socket was closed: exchanges may outlive it by a moment.
    last: OnceLock<SocketEvidence>,
}

/// What a connection notes of its exchanges.
#[derive(Default)]
struct Carried {
    sessions: Vec<SessionId>,
    beginnings: Beginnings,
}

impl Connection {
    /// Of a stream before its first byte.
    fn new(stream: &Arc<TcpStream>, peer: SocketAddr, role: Role, witness: &Witness) -> Self {
        // Before it is watched: what happens between counts.
        let adopted = witness.sight().mark();
        Self {
            role,
            peer,
            socket: Arc::downgrade(stream),
            witness: witness.adopt(stream.as_fd()),
            input: Flow::default(),
            output: Flow::default(),
            last_read: AtomicU64::new(0),
            saw_end: AtomicBool::new(false),
            plain_in: AtomicU64::new(0),
            plain_out: AtomicU64::new(0),
            exchanges: AtomicU64::new(0),
            traffic: Traffic::default(),
            carried: Mutex::default(),
            adopted,
            long_target: Mutex::new(None),
            last: OnceLock::new(),
        }
    }

    /// The kernel's identity of the socket (`SO_COOKIE`).
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.witness.cookie()
    }

    /// Whether a connection that is opened now would be witnessed, and this one is not: its probe was lost, and
    /// there is another.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.witness.is_superseded()
    }

    /// The other end.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Notes that an exchange of this session uses the connection. Gives the session when it is new to it.
    pub fn carries(
        &self,
        session: Option<SessionId>,
        exchange: ExchangeId,
        passage: &Passage,
    ) -> Option<SessionId> {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        let mut carried = self.carried.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.role == Role::Client {
            carried.beginnings.note(passage.beginning(exchange));
        }
        let session = session?;
        if carried.sessions.len() >= CONNECTION_SESSIONS_MAX || carried.sessions.contains(&session)
        {
            return None;
        }
        carried.sessions.push(session);
        Some(session)
    }

    /// The connection's exchanges.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// How well the witness saw when it began to watch the socket.
    #[must_use]
    pub const fn adopted(&self) -> SightMark {
        self.adopted
    }

    /// Where the connection stands, by the kernel's count and by ours: without a system call.
    #[must_use]
    pub fn look(&self) -> Sample {
        Sample {
            at_ns: witness::monotonic_ns(),
            gateway_in_bytes: self.input.bytes.load(Ordering::SeqCst),
            gateway_out_bytes: self.output.bytes.load(Ordering::SeqCst),
            kernel: self.witness.sample(),
        }
    }

    /// From now on bytes belong to requests: the TLS handshake is over. The read that brought its last bytes
    /// may have brought the first request too, so that is where the first request begins.
    pub fn begins(&self) {
        let last_read = self.last_read.load(Ordering::Relaxed);
        let mut look = self.look();
        look.gateway_in_bytes = look.gateway_in_bytes.saturating_sub(last_read);
        if let Some(kernel) = &mut look.kernel {
            kernel.in_bytes = kernel.in_bytes.saturating_sub(last_read);
        }
        self.traffic.floor(&look);
    }

    /// Notes what a read gave.
    fn read(&self, bytes: usize) {
        self.last_read.store(bytes as u64, Ordering::Relaxed);
        if bytes == 0 {
            self.saw_end.store(true, Ordering::Relaxed);
        }
    }

    /// [`Self::evidence`], with the part that an exchange had of it.
    #[must_use]
    pub fn evidence_of(&self, looks: &Looks) -> SocketEvidence {
        let span = Some(looks.span(|ns| self.witness.wall(ns)));
        SocketEvidence { span, ..self.evidence() }
    }

    /// Notes the target that was taken out of the first request.
    pub fn begins_with(&self, long_target: Option<LongTarget>) {
        *self.long_target.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = long_target;
    }

    /// The target of the first request, once; none for all others.
    #[must_use]
    pub fn take_long_target(&self) -> Option<LongTarget> {
        self.long_target.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// What was counted until now. Other streams of the connection may move meanwhile, so the counts are
    /// taken at a quiet moment where there is one. Where a system call stays under way (its thread may
    /// wait for a processor), what the kernel is ahead in that direction is that call's, and the kernel's
    /// count stands for both. When the connection closes nothing is under way and everything is compared.
    #[must_use]
    pub fn evidence(&self) -> SocketEvidence {
        const TRIES: usize = 16;
        let Some(socket) = self.socket.upgrade() else {
            return self.last.get().cloned().unwrap_or_else(|| self.counted());
        };
        for _ in 0..TRIES {
            let (evidence, quiet) = self.compared(&socket);
            if quiet == (true, true) {
                return evidence;
            }
            std::thread::yield_now();
        }
        let (mut evidence, quiet) = self.compared(&socket);
        let ahead = |ours: u64, kernel: Option<u64>| kernel.map_or(ours, |kernel| kernel.max(ours));
        if !quiet.0 {
            evidence.gateway_in_bytes = ahead(evidence.gateway_in_bytes, evidence.kernel_in_bytes);
        }
        if !quiet.1 {
            evidence.gateway_out_bytes =
                ahead(evidence.gateway_out_bytes, evidence.kernel_out_bytes);
        }
        evidence
    }

    /// Evidence, and whether each direction (in, out) stood still while they were taken.
    fn compared(&self, socket: &TcpStream) -> (SocketEvidence, (bool, bool)) {
        let before = (self.input.quiet(), self.output.quiet());
        let mut evidence = self.counted();
        if let Some(kernel) = self.witness.totals(socket.as_fd()) {
            evidence.kernel_in_bytes = Some(kernel.in_bytes);
            evidence.kernel_out_bytes = Some(kernel.out_bytes);
            evidence.first = kernel.first;
            evidence.last = kernel.last;
            evidence.lost_events = kernel.lost_events;
        }
        let after = (self.input.quiet(), self.output.quiet());
        let stood = |before: Option<u64>, after| before.is_some() && before == after;
        (evidence, (stood(before.0, after.0), stood(before.1, after.1)))
    }

    fn counted(&self) -> SocketEvidence {
        SocketEvidence {
            cookie: self.cookie(),
            gateway_in_bytes: self.input.bytes.load(Ordering::SeqCst),
            gateway_out_bytes: self.output.bytes.load(Ordering::SeqCst),
            plain_in_bytes: self.plain_in.load(Ordering::SeqCst),
            plain_out_bytes: self.plain_out.load(Ordering::SeqCst),
            ..SocketEvidence::default()
        }
    }

    /// The last look before the socket is closed, which TCP's own counters are part of.
    fn last_evidence(&self, look: Sample) -> SocketEvidence {
        let none = Sample::default();
        let from = Sample { kernel: look.kernel.map(|_| Default::default()), ..none };
        let all = Looks { from, head: from, to: look, interleaved: false };
        let mut evidence = self.evidence_of(&all);
        let socket = self.socket.upgrade();
        let saw_end = self.saw_end.load(Ordering::Relaxed);
        let tcp = socket.and_then(|socket| self.witness.tcp_totals(socket.as_fd(), saw_end));
        if let Some(tcp) = tcp {
            let ours = evidence.gateway_in_bytes;
            let hooks = evidence.kernel_in_bytes.unwrap_or(ours);
            evidence.tcp_in_bytes = Some(tcp.in_bytes_beside([ours, hooks]));
            evidence.tcp_out_bytes = Some(tcp.out_bytes);
            evidence.unread_bytes = Some(tcp.unread_bytes);
        }
        evidence
    }

    fn closed(&self, witness: &Witness) -> ConnectionClosed {
        let look = self.look();
        let evidence = self.last.get_or_init(|| self.last_evidence(look)).clone();
        let happened = witness.sight().since(self.adopted);
        let view = View {
            capability: witness.capability(),
            disturbed: happened.disturbed,
            blind: happened.blind.as_deref(),
        };
        let account = witness::compare_socket(self.role, &evidence, view);
        let carried = self.carried.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ConnectionClosed {
            time: Timestamp::now(),
            role: self.role.as_str().to_owned(),
            peer: self.peer.to_string(),
            evidence,
            account,
            exchanges: self.exchanges.load(Ordering::Relaxed),
            sessions: carried.sessions.clone(),
            ends: carried.beginnings.ends(&look, |ns| self.witness.wall(ns)),
        }
    }
}

//! The witness in two processes: the *probe* has the rights that eBPF takes and no network service, the
//! *gateway* parses what strangers send and has no rights. They speak over a Unix socket (docs/witness.md,
//! "The probe's socket").
//!
//! The probe loads and attaches the programs, gives its rights up, and listens. A gateway that connects gets
//! the descriptor of the table of totals, which it maps: totals cost it no call, and bpf(2) it never calls.
//! What the programs choose sockets by it asks the probe to set. Notices come as a stream, in batches that
//! the gateway acknowledges: what was not acknowledged is told to the next one.
//!
//! Both ends check whom they talk to (`SO_PEERCRED`). What a gateway is (thread group, cgroup, network
//! namespace) it cannot claim: it passes the two ends of a loopback connection and sends known bytes through
//! it, and the programs tell who did. The same bytes are the self-test of the way through the table.

mod channel;
mod link;
mod mailbox;
mod message;
mod server;
mod session;

use std::time::Duration;

pub(super) use link::Link;
pub use server::{ProbeSocket, ServeOptions, ServeProbeError};
pub use session::ConnectProbeError;
pub(super) use session::Session;

/// Where the probe listens unless it is told otherwise.
pub const SOCKET: &str = "/run/decklog/probe.sock";

/// Raised when a message changes its meaning. Ends of different versions do not talk.
const PROTOCOL_VERSION: u32 = 1;

/// How often the probe tells of itself: silence means that it is gone.
const PULSE: Duration = Duration::from_millis(200);

/// A probe that told nothing for so long is lost, though its socket is there.
const SILENCE_MAX: Duration = Duration::from_millis(800);

/// How long either end waits for an answer, or for room to write.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Sizes that pass through the loopback connection, in each direction.
const TEST_BYTES: [u64; 2] = [9_013, 4_099];

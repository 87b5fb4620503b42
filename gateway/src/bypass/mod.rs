//! What goes round the gateway on its node, and who its clients there are.
//!
//! A task takes what the kernel tells, finds out who is behind it, and puts it on record. It is on nobody's way: the
//! data path only hands over which session came through which connection, and never waits. How a record comes about
//! is `recorder_user::witness::bypass`; here are names, clocks, files and the store.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use recorder_user::{
    model::SessionId,
    store::Recorder,
    witness::{
        Witness,
        bypass::{BypassCounts, Use},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{bounds::CLIENTS_QUEUE, config::Config, late::LateOutcomes, sessions::Sessions};

mod endpoints;
mod listing;
mod watch;

use endpoints::{Endpoints, Places};

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct BypassStats {
    /// What went round the gateway.
    pub bypass: BypassCounts,
    /// Records of it that the store did not take at once.
    pub unrecorded: u64,
    /// Sessions that were not told of their client: too many at once.
    pub clients_dropped: u64,
    /// Looks at the kernel's list of sockets that failed.
    pub lists_failed: u64,
}

/// The data path's end.
#[derive(Clone)]
pub struct Bypass {
    uses: mpsc::Sender<Use>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    counts: Mutex<BypassCounts>,
    unrecorded: AtomicU64,
    clients_dropped: AtomicU64,
    lists_failed: AtomicU64,
}

/// What the task needs.
pub struct Needs<'n> {
    /// The configuration.
    pub config: &'n Config,
    /// The kernel's witness.
    pub witness: &'n Witness,
    /// Where records go.
    pub recorder: &'n Recorder,
    /// Where those go that the store does not take.
    pub late: &'n Arc<LateOutcomes>,
    /// The sessions that are open.
    pub sessions: &'n Arc<Sessions>,
}

/// The task, ready to be spawned.
pub struct Watching(watch::Watch, mpsc::Receiver<Use>);

/// Makes both ends.
#[must_use]
pub fn prepare(needs: &Needs<'_>) -> (Bypass, Watching) {
    let (uses, receiver) = mpsc::channel(CLIENTS_QUEUE);
    let shared = Arc::new(Shared::default());
    let places = Places::new(needs.config, |name| std::env::var(name).ok());
    let watch = watch::Watch::new(needs, places, Arc::clone(&shared));
    (Bypass { uses, shared }, Watching(watch, receiver))
}

impl Watching {
    /// Begins to look: what connects after this is seen.
    pub async fn begin(&mut self) {
        self.0.begin().await;
    }

    /// Works until `stop`, then puts on record what is open.
    pub async fn run(self, stop: CancellationToken) {
        let Self(watch, uses) = self;
        watch.run(uses, stop).await;
    }
}

impl Bypass {
    /// A session came through a connection from this address. Never waits.
    pub fn used(&self, session: SessionId, peer: SocketAddr) {
        if self.uses.try_send(Use { session, peer }).is_err() {
            self.shared.clients_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> BypassStats {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        BypassStats {
            bypass: *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner),
            unrecorded: load(&self.shared.unrecorded),
            clients_dropped: load(&self.shared.clients_dropped),
            lists_failed: load(&self.shared.lists_failed),
        }
    }
}

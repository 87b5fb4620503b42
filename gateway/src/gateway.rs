//! What every request needs: the parts of a running gateway.

use std::{collections::HashMap, sync::Arc};

use recorder_user::{
    model::{ConnectionClosed, Ending, SessionId},
    redact::RedactKey,
    store::{LiveRows, Recorder, Retention},
    witness::Witness,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::Accesses,
    archiving::Archiving,
    bypass::Bypass,
    identify::Identifier,
    late::LateOutcomes,
    live::LiveStreams,
    metrics::Metrics,
    policy::PolicyStore,
    refusals::Refusals,
    sessions::{KillOrder, Sessions},
    unrecorded::Unrecorded,
    upgrade::Upgrades,
    upstream::Upstream,
};

/// Called with the final account of each connection.
pub type OnClose = Arc<dyn Fn(&ConnectionClosed) + Send + Sync>;

/// Called with the role of each new connection.
pub type OnOpen = Arc<dyn Fn(&str) + Send + Sync>;

/// What connections on both sides are made with.
#[derive(Clone)]
pub struct Wiring {
    /// The kernel's witness.
    pub witness: Witness,
    /// Where accounts go.
    pub recorder: Recorder,
    /// Counts what connections' accounts say.
    pub on_close: OnClose,
    /// Counts connections.
    pub on_open: OnOpen,
    /// Where the tasks of upstream connections belong: they end last.
    pub connections: TaskTracker,
}

/// One cluster.
pub struct Cluster {
    /// Its name in the configuration.
    pub name: String,
    /// Its API server.
    pub upstream: Upstream,
}

/// A running gateway.
pub struct Gateway {
    /// The store's id, which the API server's audit log names too.
    pub id: String,
    /// By name.
    pub clusters: HashMap<String, Arc<Cluster>>,
    /// Serves paths without a `/clusters` prefix.
    pub default_cluster: Option<Arc<Cluster>>,
    /// Token to principal.
    pub identifier: Arc<Identifier>,
    /// What may pass.
    pub policies: Arc<PolicyStore>,
    /// The store's writing end.
    pub recorder: Recorder,
    /// The rows of what it holds.
    pub rows: LiveRows,
    /// Who may read them.
    pub accesses: Accesses,
    /// The kernel's witness.
    pub witness: Witness,
    /// What goes round the gateway, and who its clients are.
    pub bypass: Bypass,
    /// Open sessions.
    pub sessions: Arc<Sessions>,
    /// Upgraded connections.
    pub upgrades: Upgrades,
    /// Open watches, followed logs and upgraded connections.
    pub live: Arc<LiveStreams>,
    /// Outcomes that the store did not take.
    pub late: Arc<LateOutcomes>,
    /// Deletes what need not be kept, and keeps legal holds.
    pub retention: Arc<Retention>,
    /// Digests what is redacted.
    pub redact_key: Arc<RedactKey>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Limits the record of refusals without an identity.
    pub refusals: Refusals,
    /// Reads that policy let pass while the store did not work.
    pub unrecorded: Arc<Unrecorded>,
    /// Copies the store away, if configured.
    pub archiving: Archiving,
    /// Where tasks belong.
    pub tasks: TaskTracker,
    /// Fires when the gateway stops: live streams end.
    pub stop: CancellationToken,
}

impl Gateway {
    /// Ends a session and its live streams; gives the number of the streams, none when no such session is open.
    #[must_use]
    pub fn kill(&self, session: SessionId, order: &KillOrder) -> Option<usize> {
        // In this order, a stream that opens meanwhile sees the session killed or is ended here.
        let session = self.sessions.kill(session, order)?;
        Some(self.live.end_session(session.id(), Ending::Killed))
    }

    /// The cluster that a request names, or the default one.
    #[must_use]
    pub fn cluster(&self, name: Option<&str>) -> Option<&Arc<Cluster>> {
        match name {
            Some(name) => self.clusters.get(name),
            None => self.default_cluster.as_ref(),
        }
    }
}

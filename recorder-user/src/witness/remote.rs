//! The witness by another process's programs: what this process knows of them.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use recorder_ebpf::RingRecord;
use tokio::sync::mpsc;

use super::{Means, Witness, health, notices, split};

/// The programs of another process, and what they tell.
pub(super) struct Remote {
    pub(super) link: Arc<split::Link>,
    pub(super) correlator: Arc<notices::Correlator>,
    pub(super) hears: Mutex<Option<mpsc::Receiver<RingRecord>>>,
    pub(super) state: Arc<health::State>,
}

impl Witness {
    /// A witness by the programs of another process, the probe that listens on `socket`: this one needs no
    /// right and never calls bpf(2). Sockets that those programs did not choose are unwitnessed. A probe that
    /// does not listen yet is waited for up to `patience`; one that is lost later is a trouble of the witness's
    /// health until one is back.
    ///
    /// # Errors
    /// When there is no probe that serves this process.
    pub fn over_probe(socket: &Path, patience: Duration) -> Result<Self, split::ConnectProbeError> {
        let (correlator, hears) = notices::Correlator::new();
        let (correlator, state) = (Arc::new(correlator), Arc::new(health::State::new()));
        let started =
            split::Link::start(socket, patience, Arc::clone(&correlator), Arc::clone(&state));
        let (link, capability) = started?;
        let hears = Mutex::new(Some(hears));
        let remote = Remote { link: Arc::new(link), correlator, hears, state };
        Ok(Self::with(capability, Means::Probe(Box::new(remote))))
    }

    /// Whether the programs are another process's.
    #[must_use]
    pub fn is_over_probe(&self) -> bool {
        matches!(self.shared.means, Means::Probe(_))
    }

    /// This process is about to connect to an API server there. Waits for the probe, where there is one and the
    /// address is new; a refusal makes the connection unwitnessed.
    pub fn expect(&self, address: SocketAddr) {
        let (Some(selection), Some(identity)) = (self.selection(), self.identity()) else { return };
        if let Err(error) = selection.expect(address, identity.netns_cookie) {
            tracing::warn!(%address, %error, "a connection there will not be witnessed");
        }
    }
}

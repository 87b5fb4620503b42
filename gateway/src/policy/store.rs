//! The set in force, and how another takes its place.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use recorder_user::model::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{LoadPolicyError, PolicySet, PolicySource, load::Files};

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Holds the policy set in force. Readers never wait; a bad set never replaces a good one.
#[derive(Debug)]
pub struct PolicyStore {
    source: PolicySource,
    status: ArcSwap<PolicyStatus>,
    current: ArcSwap<PolicySet>,
    changes: watch::Sender<Arc<PolicySet>>,
    /// One reload at a time, so that an older set cannot replace a newer one.
    reloading: parking::Turn,
}

/// What an operator wants to know about the set in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The hash of the set in force.
    pub hash: String,
    /// Since when.
    pub loaded: Timestamp,
    /// Why the files as they are now were not taken; none when they are in force.
    pub refused: Option<String>,
}

/// What a reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The files are those in force.
    Unchanged,
    /// Another set is in force.
    Swapped,
}

mod parking {
    //! A lock whose poisoning means nothing, because it guards no data.

    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Whose turn it is.
    #[derive(Debug, Default)]
    pub(super) struct Turn(Mutex<()>);

    impl Turn {
        pub(super) fn take(&self) -> MutexGuard<'_, ()> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

impl PolicyStore {
    /// Loads the first set.
    ///
    /// # Errors
    /// When it is not valid: a gateway does not start without policy.
    pub fn open(source: PolicySource) -> Result<Self, LoadPolicyError> {
        let set = Arc::new(PolicySet::load(&source)?);
        let status =
            PolicyStatus { hash: set.hash().to_owned(), loaded: Timestamp::now(), refused: None };
        Ok(Self {
            source,
            status: ArcSwap::from_pointee(status),
            current: ArcSwap::new(Arc::clone(&set)),
            changes: watch::Sender::new(set),
            reloading: parking::Turn::default(),
        })
    }

    /// The set in force.
    #[must_use]
    pub fn current(&self) -> Arc<PolicySet> {
        self.current.load_full()
    }

    /// What is in force, and whether the files say something else.
    #[must_use]
    pub fn status(&self) -> Arc<PolicyStatus> {
        self.status.load_full()
    }

    /// Tells when another set is in force, for what must be judged again while it runs.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<PolicySet>> {
        self.changes.subscribe()
    }

    /// Reads the files; if they changed and are valid, they are in force when this returns.
    /// Blocks on the disk and on Cedar's validator.
    ///
    /// # Errors
    /// When the files are not valid. The set in force stays.
    pub fn reload(&self) -> Result<Reload, LoadPolicyError> {
        let _turn = self.reloading.take();
        match self.read_changed() {
            Ok(set) => {
                self.take(set.as_ref());
                Ok(if set.is_some() { Reload::Swapped } else { Reload::Unchanged })
            }
            Err(error) => {
                let status = self.status();
                let refused = Some(error.to_string());
                self.status.store(Arc::new(PolicyStatus { refused, ..(*status).clone() }));
                Err(error)
            }
        }
    }

    /// Reloads whenever the files change, until cancelled. Problems are logged once for each change.
    pub async fn watch(self: Arc<Self>, cancelled: CancellationToken) {
        loop {
            tokio::select! {
                // cancel-safe: because both arms only wait.
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            let before = self.status();
            let store = Arc::clone(&self);
            // cancel-safe: because a reload that is not awaited still runs to its end.
            match tokio::task::spawn_blocking(move || store.reload()).await {
                Ok(Ok(Reload::Unchanged)) => {}
                Ok(Ok(Reload::Swapped)) => {
                    tracing::info!(policy_set = self.status().hash, "policies reloaded");
                }
                Ok(Err(error)) if before.refused != Some(error.to_string()) => {
                    tracing::warn!(%error, policy_set = before.hash, "policies not reloaded");
                }
                Ok(Err(_)) => {}
                Err(error) => tracing::error!(%error, "policy reload panicked"),
            }
        }
    }

    fn read_changed(&self) -> Result<Option<Arc<PolicySet>>, LoadPolicyError> {
        let files = Files::read(&self.source)?;
        if files.fingerprint() == self.current.load().fingerprint() {
            return Ok(None);
        }
        PolicySet::from_files(&files).map(|set| Some(Arc::new(set)))
    }

    fn take(&self, set: Option<&Arc<PolicySet>>) {
        let before = self.status();
        if let Some(set) = set {
            self.current.store(Arc::clone(set));
            self.changes.send_replace(Arc::clone(set));
            let hash = set.hash().to_owned();
            let status = PolicyStatus { hash, loaded: Timestamp::now(), refused: None };
            self.status.store(Arc::new(status));
        } else if before.refused.is_some() {
            self.status.store(Arc::new(PolicyStatus { refused: None, ..(*before).clone() }));
        }
    }
}

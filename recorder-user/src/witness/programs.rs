//! The programs of this process at work: their probe, the threads that take in what they tell, and the one
//! that looks after them.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use recorder_ebpf::RingRecord;
use tokio::sync::mpsc;

use super::{Identity, Selection, Table, WitnessOptions, drain, health, notices, probe};

/// The programs of this process, and who looks after what they tell.
pub(super) struct Ebpf {
    // Declared first, dropped first: the threads end before the programs are detached.
    monitor: Option<health::Monitor>,
    pub(super) drain: drain::Drain,
    pub(super) probe: Arc<probe::Probe>,
    pub(super) table: Arc<Table>,
    pub(super) selection: Selection,
    pub(super) chooses: bool,
    pub(super) identity: Option<Identity>,
    pub(super) correlator: Arc<notices::Correlator>,
    pub(super) hears: Mutex<Option<mpsc::Receiver<RingRecord>>>,
    pub(super) state: Arc<health::State>,
    pub(super) malformed: Arc<AtomicU64>,
    pulse_ns: Arc<AtomicU64>,
    drain_interval: Duration,
}

impl Ebpf {
    /// Begins to take in what the programs tell.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(loaded: probe::Loaded, options: &WitnessOptions) -> io::Result<Self> {
        let (correlator, hears) = notices::Correlator::new();
        let correlator = Arc::new(correlator);
        let (malformed, pulse_ns) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let source = drain::Source {
            ring: loaded.ring,
            log: loaded.log,
            pulse_ns: Arc::clone(&pulse_ns),
            malformed: Arc::clone(&malformed),
            interval: options.drain_interval,
        };
        let drain = drain::Drain::start(source, Arc::clone(&correlator))?;
        let probe = Arc::new(loaded.probe);
        Ok(Self {
            monitor: None,
            drain,
            selection: Selection::new(Arc::clone(&probe)),
            probe,
            table: Arc::new(loaded.table),
            chooses: probe::chooses(&loaded.hooks),
            identity: None,
            correlator,
            hears: Mutex::new(Some(hears)),
            state: Arc::new(health::State::new()),
            malformed,
            pulse_ns,
            drain_interval: options.drain_interval,
        })
    }

    /// What the programs tell of others, until somebody took it.
    pub(super) fn hears(&self) -> MutexGuard<'_, Option<mpsc::Receiver<RingRecord>>> {
        self.hears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the witness's health is looked after. `beats` where the programs count bytes.
    ///
    /// # Errors
    /// When there is no thread, or no connection for the heartbeat.
    pub(super) fn monitor(&mut self, beats: bool) -> io::Result<()> {
        let watched = health::Watched {
            probe: Arc::clone(&self.probe),
            table: Arc::clone(&self.table),
            correlator: Arc::clone(&self.correlator),
            pulse_ns: Arc::clone(&self.pulse_ns),
            drain_interval: self.drain_interval,
        };
        self.monitor = Some(health::Monitor::start(watched, Arc::clone(&self.state), beats)?);
        Ok(())
    }
}

//! Retention: what is deleted, when, and what says so afterwards.
//!
//! Two things can go: a whole sealed segment, or single records of one, each of which leaves its digest in its
//! place, so that nothing moves and the chain holds. Either way a signed tombstone is durable in the segment
//! that is being written before anything is touched; [`verify`](super::verify()) takes nothing for deleted that
//! no tombstone speaks of. A legal hold beats every rule. What a tombstone or a hold in a deleted segment says
//! is written again first.
//!
//! Never deleted: the segment that is written, signed records, holds, what does not verify, and the beginnings
//! of sessions and exchanges that go on in segments that stay. After a deletion the index is built anew.

mod gone;
mod journal;
mod plan;
mod rules;
mod sift;
mod survey;
mod thin;
mod tombstones;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use self::{
    journal::Journal,
    plan::{Plan, Question, Sifting},
    survey::Survey,
};
use super::{
    Clock, OpenStoreError, Store, StoreOptions, archive,
    disk::Disk,
    index,
    queue::{Shared, lock},
    recorder::{AppendError, Need, Recorder},
    scan::{self, ScanError},
    signing::{self, SigningKeyError, Trust},
    system_clock,
};
use crate::model::{
    HoldChanged, HoldId, HoldOn, HoldReleased, Record, SegmentId, SessionId, Timestamp,
};

pub(super) use gone::{Gone, is_trusted};
pub use journal::FinishError;
pub(super) use journal::finish;
pub use rules::{HeldBack, PruneReport, RetentionRules, Untouched};
pub(super) use thin::Missed;

/// Whether a segment may be deleted: where there is an archive, only what is in it.
pub type MayGo = Arc<dyn Fn(SegmentId) -> bool + Send + Sync>;

/// Nothing, or not all, was deleted.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A segment could not be read or written.
    #[error("go through the segments")]
    Scan(#[from] ScanError),
    /// The public keys could not be read.
    #[error("the signing key")]
    Key(#[from] SigningKeyError),
    /// The tombstone could not be written: nothing was deleted.
    #[error("write the tombstone")]
    Append(#[from] AppendError),
    /// A file could not be deleted or replaced. What the tombstone says is done at the next start.
    #[error("delete")]
    Finish(#[from] FinishError),
    /// There is no such hold in force.
    #[error("there is no hold {0} in force")]
    NoHold(HoldId),
    /// A test stopped it.
    #[cfg(test)]
    #[error("stopped")]
    Stopped,
}

/// What was deleted since the start, and what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionHealth {
    /// Segments that were deleted whole.
    pub segments: u64,
    /// Bytes of the disk that they took, and of the payloads of single records.
    pub bytes: u64,
    /// Single records that were deleted.
    pub records: u64,
    /// Legal holds in force when it was last looked.
    pub holds: u64,
    /// Sessions in the store that they hold.
    pub held_sessions: u64,
}

/// What it works on.
pub(super) struct Parts {
    pub(super) store: PathBuf,
    pub(super) keys: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) may_go: Option<MayGo>,
}

/// Deletes, and keeps holds, for a store that is open. One call works at a time.
pub struct Retention {
    parts: Parts,
    state: Mutex<State>,
    counts: Counts,
    #[cfg(test)]
    pub(super) stop_before: Mutex<Option<Step>>,
}

#[derive(Default)]
struct State {
    survey: Survey,
    sifting: Sifting,
}

#[derive(Default)]
struct Counts {
    segments: AtomicU64,
    bytes: AtomicU64,
    records: AtomicU64,
    holds: AtomicU64,
    held_sessions: AtomicU64,
}

/// The steps of a deletion, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Thinner,
    Journal,
    Tombstone,
    Replace,
    Delete,
    Clear,
}

/// Who asks, and for what.
#[derive(Clone, Debug)]
pub struct PruneOrder {
    /// What is kept.
    pub rules: RetentionRules,
    /// The local user who asks: `uid 0`; none when it is the configuration.
    pub who: Option<String>,
    /// Whether only to say what would go.
    pub dry_run: bool,
}

impl Retention {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            state: Mutex::default(),
            counts: Counts::default(),
            #[cfg(test)]
            stop_before: Mutex::default(),
        }
    }

    /// What was deleted so far.
    #[must_use]
    pub fn health(&self) -> RetentionHealth {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { segments, bytes, records, holds, held_sessions } = &self.counts;
        RetentionHealth {
            segments: of(segments),
            bytes: of(bytes),
            records: of(records),
            holds: of(holds),
            held_sessions: of(held_sessions),
        }
    }

    /// Deletes what the rules do not keep. Blocks, for as long as it takes to read what is new in the store and
    /// to write what stays of single segments: not for a thread of the data path.
    ///
    /// # Errors
    /// When it could not be done, or not wholly: the next start finishes what a tombstone says.
    pub fn prune(&self, order: &PruneOrder) -> Result<PruneReport, PruneError> {
        let mut state = lock(&self.state);
        let State { survey, sifting } = &mut *state;
        let trust = signing::trusted(&self.parts.keys)?;
        if journal::finish(self.disk(), &self.parts.store, &trust)? {
            self.parts.shared.index.renew();
        }
        let live = self.parts.shared.health().segment;
        survey.update(&self.parts.store)?;
        self.count_holds(survey);
        let now = (self.parts.clock)();
        let question = Question {
            rules: order.rules,
            now,
            live: Some(live),
            may_go: self.parts.may_go.as_deref(),
        };
        // Who asks wants to hear of everything that is held.
        let mut anew = Sifting::default();
        let asked = order.who.is_some() || order.dry_run;
        let plan = plan::plan(survey, &question, if asked { &mut anew } else { sifting })?;
        let report = PruneReport { dry_run: order.dry_run, ..plan.report.clone() };
        if !order.dry_run && !report.is_empty() {
            self.carry_out(survey, &plan, &trust, (live, now, order.who.as_deref()))?;
        }
        Ok(report)
    }

    fn carry_out(
        &self,
        survey: &mut Survey,
        plan: &Plan,
        trust: &Trust,
        (live, now, who): (SegmentId, Timestamp, Option<&str>),
    ) -> Result<(), PruneError> {
        let mut missing = BTreeMap::new();
        for (segment, (_, sifted)) in &plan.thin {
            self.step(Step::Thinner)?;
            let path = scan::segment_path(&self.parts.store, *segment);
            missing.insert(*segment, thin::write_thinner(self.disk(), &path, &sifted.offsets)?);
        }
        let gone = Gone::read(&self.parts.store, trust)?;
        let mut records = tombstones::carried_holds(survey, plan);
        records.extend(tombstones::make(survey, plan, &missing, &gone, (now, who)));
        let whole: Vec<_> = plan.whole.keys().copied().collect();
        let thin: Vec<_> = plan.thin.keys().copied().collect();
        let journal = Journal { after: Some(live), whole, thin };
        self.step(Step::Journal)?;
        journal.write(self.disk(), &self.parts.store)?;
        self.step(Step::Tombstone)?;
        if let Err(error) = self.append(records) {
            // It may be there or not. If it is, it says more than is gone, which is no harm.
            Journal::clear(self.disk(), &self.parts.store)?;
            return Err(error.into());
        }
        // The rows must not outlive what they are of, also if this is cut short.
        index::distrust(&self.parts.store);
        let done = self.delete(&journal);
        self.parts.shared.index.renew();
        // Again: where the store is closed meanwhile, the index may be closed as a good one.
        index::distrust(&self.parts.store);
        done?;
        self.count(&plan.report);
        survey.deleted(plan);
        Ok(())
    }

    /// Does what the tombstone says.
    fn delete(&self, journal: &Journal) -> Result<(), PruneError> {
        self.step(Step::Replace)?;
        Journal::replace(self.disk(), &self.parts.store, &journal.thin)?;
        self.step(Step::Delete)?;
        Journal::delete(self.disk(), &self.parts.store, &journal.whole)?;
        self.step(Step::Clear)?;
        Ok(Journal::clear(self.disk(), &self.parts.store)?)
    }

    /// Adds a legal hold; it is durable when this returns. Blocks.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn add_hold(
        &self,
        on: HoldOn,
        reason: String,
        who: String,
    ) -> Result<HoldChanged, PruneError> {
        let _one = lock(&self.state);
        let (hold, time) = (HoldId::new(), (self.parts.clock)());
        let changed = HoldChanged { hold, time, who, on, reason, released: None };
        self.append(vec![Record::HoldChanged(changed.clone())])?;
        Ok(changed)
    }

    /// Ends a legal hold. Blocks.
    ///
    /// # Errors
    /// When there is none of this id in force, or it could not be recorded.
    pub fn release_hold(&self, hold: HoldId, who: String) -> Result<HoldChanged, PruneError> {
        let _one = lock(&self.state);
        let known = holds(&self.parts.store)?.into_iter().find(|known| known.hold == hold);
        let known = known.filter(|known| known.released.is_none());
        let mut changed = known.ok_or(PruneError::NoHold(hold))?;
        changed.released = Some(HoldReleased { time: (self.parts.clock)(), who });
        self.append(vec![Record::HoldChanged(changed.clone())])?;
        Ok(changed)
    }

    /// The holds of the store, released ones too, oldest first. Blocks.
    ///
    /// # Errors
    /// When the segments cannot be read.
    pub fn holds(&self) -> Result<Vec<HoldChanged>, PruneError> {
        Ok(holds(&self.parts.store)?)
    }

    fn disk(&self) -> &dyn Disk {
        &*self.parts.disk
    }

    fn append(&self, records: Vec<Record>) -> Result<(), AppendError> {
        Recorder::new(Arc::clone(&self.parts.shared)).enqueue(records, Need::Durable).wait()
    }

    fn count(&self, report: &PruneReport) {
        let Counts { segments, bytes, records, .. } = &self.counts;
        segments.fetch_add(report.segments.len() as u64, Ordering::Relaxed);
        bytes.fetch_add(report.segment_bytes + report.record_bytes, Ordering::Relaxed);
        records.fetch_add(report.records, Ordering::Relaxed);
    }

    fn count_holds(&self, survey: &Survey) {
        let active = || survey.holds.values().filter(|hold| hold.released.is_none());
        let owners = survey.sessions.values();
        let held = owners.filter(|owner| active().any(|hold| owner.is_held_by(&hold.on))).count();
        self.counts.holds.store(active().count() as u64, Ordering::Relaxed);
        self.counts.held_sessions.store(held as u64, Ordering::Relaxed);
    }

    #[cfg(test)]
    fn step(&self, step: Step) -> Result<(), PruneError> {
        match *lock(&self.stop_before) {
            Some(stop) if stop == step => Err(PruneError::Stopped),
            _ => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests stop here")]
    const fn step(&self, _step: Step) -> Result<(), PruneError> {
        Ok(())
    }
}

/// Says what rules would delete. Needs no lock: also while a gateway writes the store.
///
/// # Errors
/// When the segments cannot be read.
pub fn preview(
    store: &Path,
    rules: RetentionRules,
    now: Timestamp,
    may_go: Option<&MayGo>,
) -> Result<PruneReport, PruneError> {
    let mut survey = Survey::default();
    survey.update(store)?;
    let question = Question { rules, now, live: None, may_go: may_go.map(|may_go| &**may_go) };
    let plan = plan::plan(&survey, &question, &mut Sifting::default())?;
    Ok(PruneReport { dry_run: true, ..plan.report })
}

/// What may be deleted from a store that is, or was, archived: what is in the archive. None if it never was.
#[must_use]
pub fn archived_only(store: &Path) -> Option<MayGo> {
    let store = store.to_owned();
    let archived = archive::ArchiveState::of(&store).is_there();
    archived.then(|| -> MayGo { Arc::new(move |segment| archive::is_archived(&store, segment)) })
}

/// A hold on a session, if there is one in force.
///
/// # Errors
/// When the segments cannot be read.
pub(super) fn hold_on(store: &Path, session: SessionId) -> Result<Option<HoldId>, ScanError> {
    let active = |hold: &HoldChanged| hold.released.is_none();
    if !holds(store)?.iter().any(active) {
        return Ok(None);
    }
    let mut survey = Survey::default();
    survey.update(store)?;
    let owner = survey.session(session);
    let mut holds = survey.holds.values().filter(|hold| active(hold));
    Ok(holds.find(|hold| owner.is_held_by(&hold.on)).map(|hold| hold.hold))
}

/// The store could not be opened to delete, or to keep holds.
#[derive(Debug, thiserror::Error)]
pub enum OpenRetentionError {
    /// Files that we make would be in the gateway's way.
    #[error("the store belongs to another user: do it as the user that the gateway runs as")]
    NotOurs,
    /// The store could not be opened, or a gateway runs.
    #[error(transparent)]
    Open(#[from] OpenStoreError),
}

/// Opens a store that no gateway writes, to delete or to keep holds. Close it in order afterwards.
///
/// # Errors
/// When a gateway runs, or the store cannot be opened.
pub fn open_to_prune(store: &Path) -> Result<(Store, Retention), OpenRetentionError> {
    if !index::is_ours(store) {
        return Err(OpenRetentionError::NotOurs);
    }
    let (opened, _) = Store::open(StoreOptions::new(store.to_owned()), system_clock())?;
    let retention = opened.retention(archived_only(store));
    Ok((opened, retention))
}

/// The holds of a store, released ones too, oldest first. Needs no lock.
///
/// # Errors
/// When the segments cannot be read.
pub fn holds(store: &Path) -> Result<Vec<HoldChanged>, ScanError> {
    gone::holds(store)
}

#[cfg(test)]
mod tests;

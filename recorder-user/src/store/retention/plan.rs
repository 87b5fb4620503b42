//! From rules to what goes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use super::{
    rules::{HeldBack, PruneReport, RetentionRules, Untouched},
    sift::{self, Keep, Sifted, Want},
    survey::{Summary, Survey},
};
use crate::{
    model::{HoldId, HoldOn, SegmentId, SessionId, Timestamp},
    store::{
        format::{DeletionCause, VERSION},
        scan::ScanError,
    },
};

/// What goes.
#[derive(Default)]
pub(super) struct Plan {
    /// Whole segments, and why.
    pub(super) whole: BTreeMap<SegmentId, DeletionCause>,
    /// Records of segments that stay, and why.
    pub(super) thin: BTreeMap<SegmentId, (DeletionCause, Sifted)>,
    pub(super) report: PruneReport,
    /// The sessions that lose records.
    lost: BTreeSet<SessionId>,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) rules: RetentionRules,
    pub(super) now: Timestamp,
    /// Segments from this one on are not touched: it may still be written.
    pub(super) live: Option<SegmentId>,
    pub(super) may_go: Option<&'a (dyn Fn(SegmentId) -> bool + Send + Sync)>,
}

/// What was sifted before, so that a segment is not read again and again for nothing.
#[derive(Default)]
pub(super) struct Sifting(HashMap<SegmentId, Asked>);

#[derive(PartialEq)]
struct Asked {
    want: Want,
    holds: Vec<(HoldId, HoldOn)>,
    /// How many sessions that the segment tells of are needed elsewhere.
    needed: usize,
}

/// Finds out what goes. Reads the segments that lose single records.
pub(super) fn plan(
    survey: &Survey,
    question: &Question<'_>,
    sifting: &mut Sifting,
) -> Result<Plan, ScanError> {
    let planner = Planner::new(survey, question);
    let mut plan = Plan::default();
    plan.report.store_bytes = survey.segments.values().map(|summary| summary.disk_bytes).sum();
    for (segment, summary) in &survey.segments {
        planner.segment(*segment, summary, &mut plan, sifting)?;
    }
    sifting.0.retain(|segment, _| survey.segments.contains_key(segment));
    plan.report.session_count = plan.lost.len() as u64;
    plan.report.sessions = std::mem::take(&mut plan.lost).into_iter().take(SESSIONS_MAX).collect();
    Ok(plan)
}

struct Planner<'a> {
    survey: &'a Survey,
    question: &'a Question<'a>,
    holds: Vec<(HoldId, HoldOn)>,
    condemned: BTreeMap<SegmentId, DeletionCause>,
    /// Sessions that have records in segments that are not condemned, or may get some.
    needed: HashSet<SessionId>,
}

impl<'a> Planner<'a> {
    fn new(survey: &'a Survey, question: &'a Question<'a>) -> Self {
        let active = survey.holds.values().filter(|hold| hold.released.is_none());
        let holds = active.map(|hold| (hold.hold, hold.on.clone())).collect();
        let (condemned, needed) = (BTreeMap::new(), HashSet::new());
        let mut planner = Self { survey, question, holds, condemned, needed };
        planner.condemned = planner.condemn();
        let stays = survey.segments.iter().filter(|(id, _)| !planner.condemned.contains_key(id));
        let owners = stays.flat_map(|(_, summary)| &summary.owners);
        let sessions = owners.filter_map(|owner| owner.session).chain(survey.open_sessions.clone());
        planner.needed = sessions.collect();
        planner
    }

    /// The segments that the rules on age and size are about, held or not.
    fn condemn(&self) -> BTreeMap<SegmentId, DeletionCause> {
        let RetentionRules { age, size, .. } = self.question.rules;
        let mut condemned = BTreeMap::new();
        let total: u64 = self.survey.segments.values().map(|summary| summary.disk_bytes).sum();
        let mut over = size.map_or(0, |size| total.saturating_sub(size));
        for (segment, summary) in &self.survey.segments {
            if !self.may_touch(*segment, summary) {
                continue;
            }
            let old = age.is_some_and(|age| self.is_older(summary, age));
            if old || over > 0 {
                let cause = if old { DeletionCause::Age } else { DeletionCause::Size };
                condemned.insert(*segment, cause);
                // What a hold keeps does not get free.
                if !self.is_held(summary) {
                    over = over.saturating_sub(summary.disk_bytes);
                }
            }
        }
        condemned
    }

    /// Whether the segment can be deleted at all.
    fn may_touch(&self, segment: SegmentId, summary: &Summary) -> bool {
        let last = self.survey.segments.keys().next_back() == Some(&segment);
        let over = self.question.live.is_none_or(|live| segment < live);
        over && (summary.sealed || !last)
    }

    fn is_older(&self, summary: &Summary, age: Duration) -> bool {
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        self.question.now.as_micros().saturating_sub(summary.to.as_micros()) >= age
    }

    fn is_held(&self, summary: &Summary) -> bool {
        let held = |on| summary.owners.iter().any(|owner| owner.is_held_by(on));
        // A record of which nobody can say whose it is may be one that is held.
        self.holds.iter().any(|(_, on)| summary.has_unowned || held(on))
    }

    /// Whether the segment has the beginning of something that goes on in segments that stay.
    fn is_needed(&self, summary: &Summary) -> bool {
        let goes = |segment: SegmentId| self.goes(segment);
        let mut exchanges = summary.goes_on.iter();
        summary.tells_of.iter().any(|session| self.needed.contains(session))
            || exchanges.any(|exchange| sift::is_needed(self.survey, *exchange, &goes))
    }

    fn goes(&self, segment: SegmentId) -> bool {
        self.condemned.contains_key(&segment) || !self.survey.segments.contains_key(&segment)
    }

    fn wanted(&self, segment: SegmentId, summary: &Summary) -> (Want, Option<DeletionCause>) {
        if let Some(cause) = self.condemned.get(&segment) {
            return (Want { all: true, ..Want::default() }, Some(*cause));
        }
        if !self.may_touch(segment, summary) {
            return (Want::default(), None);
        }
        let RetentionRules { reads, bodies_of_reads, .. } = self.question.rules;
        let older = |age: Option<Duration>| age.is_some_and(|age| self.is_older(summary, age));
        let (reads, read_bodies) = (older(reads), older(bodies_of_reads));
        let want = Want { all: false, reads, read_bodies: read_bodies && !reads };
        (want, (want != Want::default()).then_some(DeletionCause::Scope))
    }

    fn segment(
        &self,
        segment: SegmentId,
        summary: &Summary,
        plan: &mut Plan,
        sifting: &mut Sifting,
    ) -> Result<(), ScanError> {
        let (want, Some(cause)) = self.wanted(segment, summary) else { return Ok(()) };
        let whole = want.all && !self.is_held(summary) && !self.is_needed(summary);
        if let Some(why) = self.objection(segment, summary, whole) {
            plan.report.untouched.push(Untouched { segment, why });
            return Ok(());
        }
        if whole {
            plan.report.whole(segment, summary);
            plan.lost.extend(summary.owners.iter().filter_map(|owner| owner.session));
            plan.whole.insert(segment, cause);
            return Ok(());
        }
        let needed =
            summary.tells_of.iter().filter(|session| self.needed.contains(session)).count();
        let asked = Asked { want, holds: self.holds.clone(), needed };
        if sifting.0.get(&segment) == Some(&asked) {
            return Ok(());
        }
        let reads = self.question.rules.reads;
        let aged = |segment: SegmentId| {
            self.goes(segment)
                || self
                    .survey
                    .segments
                    .get(&segment)
                    .is_none_or(|summary| reads.is_some_and(|age| self.is_older(summary, age)))
        };
        let goes = |segment: SegmentId| self.goes(segment);
        let aged: &dyn Fn(SegmentId) -> bool = if want.all { &goes } else { &aged };
        // A rule on reads takes nothing from a session's own account of itself.
        let keep = Keep { holds: &self.holds, sessions: &self.needed, aged };
        let sifted = sift::sift(self.survey, (segment, summary), want, &keep)?;
        plan.report.thinned(segment, &sifted);
        plan.lost.extend(&sifted.sessions);
        if sifted.offsets.is_empty() {
            sifting.0.insert(segment, asked);
        } else {
            plan.thin.insert(segment, (cause, sifted));
        }
        Ok(())
    }

    /// Why a segment is not touched.
    fn objection(&self, segment: SegmentId, summary: &Summary, whole: bool) -> Option<String> {
        if let Some(damage) = &summary.damage {
            return Some(format!("it cannot be read, see recorder verify: {damage}"));
        }
        let damaged = self.survey.segments.iter().find(|(_, summary)| summary.damage.is_some());
        if let Some((damaged, _)) = damaged {
            return Some(format!("segment {damaged} cannot be read, and may tell of a legal hold"));
        }
        let next = self.survey.segments.range(segment..).nth(1);
        let follows = next.and_then(|(_, next)| next.previous);
        if follows.is_some_and(|end| end.segment == segment && end.hash != summary.hash) {
            return Some(
                "it does not end as the segment after it says: see recorder verify".into(),
            );
        }
        if self.question.may_go.is_some_and(|may_go| !may_go(segment)) {
            return Some("it is not in the archive yet".into());
        }
        if !whole && summary.version != VERSION {
            let version = summary.version;
            return Some(format!("single records cannot be deleted from format {version}"));
        }
        None
    }
}

impl PruneReport {
    fn whole(&mut self, segment: SegmentId, summary: &Summary) {
        self.segments.push(segment);
        self.segment_records += summary.records;
        self.segment_bytes += summary.disk_bytes;
    }

    fn thinned(&mut self, segment: SegmentId, sifted: &Sifted) {
        for (hold, records) in &sifted.held {
            let known = self.held.iter_mut().find(|held| held.hold == *hold);
            match known {
                Some(held) => {
                    held.records += records;
                    held.segments += 1;
                }
                None => {
                    self.held.push(HeldBack { hold: *hold, records: *records, segments: 1 });
                }
            }
        }
        if sifted.offsets.is_empty() {
            return;
        }
        self.thinned.push(segment);
        self.records += sifted.offsets.len() as u64;
        self.record_bytes += sifted.bytes;
    }
}

/// More sessions are counted and not listed.
const SESSIONS_MAX: usize = 1000;

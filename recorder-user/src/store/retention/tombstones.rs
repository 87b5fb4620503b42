//! What is written before anything goes.

use std::collections::{BTreeMap, BTreeSet};

use super::{gone::Gone, plan::Plan, survey::Survey, thin::Missing};
use crate::{
    model::{Kind, Record, SegmentId, Timestamp},
    store::format::{DeletedRecords, DeletedSegments, DeletionCause, Tombstone},
};

/// The holds that segments which go tell of, as they are now. One that was released, and of which nothing else
/// is left, has no more to say.
pub(super) fn carried_holds(survey: &Survey, plan: &Plan) -> Vec<Record> {
    let goes = |segment: &SegmentId| plan.whole.contains_key(segment);
    let told = |goes_too: bool| {
        let segments = survey.segments.iter().filter(move |(id, _)| goes(id) == goes_too);
        segments.flat_map(|(_, summary)| summary.holds.iter().copied()).collect::<BTreeSet<_>>()
    };
    let (lost, left) = (told(true), told(false));
    let carried = lost.iter().filter_map(|hold| survey.holds.get(hold));
    let matters = carried.filter(|hold| hold.released.is_none() || left.contains(&hold.hold));
    matters.cloned().map(Record::HoldChanged).collect()
}

/// The tombstones: what goes now, and what those say that go with it.
pub(super) fn make(
    survey: &Survey,
    plan: &Plan,
    missing: &BTreeMap<SegmentId, Missing>,
    gone: &Gone,
    (now, who): (Timestamp, Option<&str>),
) -> Vec<Record> {
    let stamp = Stamp { now, who };
    let mut segments = runs(survey, plan, gone, &stamp);
    let mut records: Vec<_> = missing
        .iter()
        .map(|(segment, missing)| stamp.records(*segment, *missing, plan, gone))
        .collect();
    records.extend(carried_records(survey, plan, gone));
    let mut tombstones = Vec::new();
    while !segments.is_empty() || !records.is_empty() {
        let some_segments = segments.drain(..segments.len().min(ENTRIES_MAX)).collect();
        let some_records = records.drain(..records.len().min(ENTRIES_MAX)).collect();
        let tombstone =
            Tombstone { time: now, key: None, segments: some_segments, records: some_records };
        let payload = serde_json::to_vec(&tombstone).expect("plain data").into();
        tombstones.push(Record::Unknown { kind: Kind::TOMBSTONE, payload });
    }
    tombstones
}

/// The runs that go now, joined with those before and after them, and the runs that only segments which go
/// tell of.
fn runs(survey: &Survey, plan: &Plan, gone: &Gone, stamp: &Stamp<'_>) -> Vec<DeletedSegments> {
    let new = plan.whole.iter().filter_map(|(segment, cause)| {
        survey.segments.get(segment).map(|summary| DeletedSegments {
            first: *segment,
            last: *segment,
            previous: summary.previous,
            hash: summary.hash,
            segments: 1,
            records: summary.records,
            bytes: summary.bytes,
            from: summary.from,
            to: summary.to,
            deleted: stamp.now,
            by: stamp.causes(*cause),
            who: stamp.names(),
        })
    });
    let goes = |segment: SegmentId| plan.whole.contains_key(&segment);
    let lost = gone.tombstones.iter().filter(|found| goes(found.segment));
    let carried: Vec<_> = lost.flat_map(|found| &found.statement.segments).collect();
    let mut all: Vec<_> = gone.segments().cloned().chain(new).collect();
    // The longest first, so that what a longer run holds is passed over.
    all.sort_by_key(|run| (run.first, std::cmp::Reverse(run.last)));
    let mut joined: Vec<DeletedSegments> = Vec::new();
    for run in all {
        let taken =
            joined.last_mut().is_some_and(|before| before.spans(run.last) || before.join(&run));
        if !taken {
            joined.push(run);
        }
    }
    joined.retain(|run| {
        plan.whole.keys().any(|segment| run.spans(*segment))
            || carried.iter().any(|carried| run.spans(carried.first))
    });
    joined
}

/// What segments which go say of records of segments which stay as they are.
fn carried_records(survey: &Survey, plan: &Plan, gone: &Gone) -> Vec<DeletedRecords> {
    let lost = gone.tombstones.iter().filter(|found| plan.whole.contains_key(&found.segment));
    let said = lost.flat_map(|found| &found.statement.records);
    let stays = |segment: &SegmentId| {
        let gone = plan.whole.contains_key(segment) || plan.thin.contains_key(segment);
        !gone && survey.segments.contains_key(segment)
    };
    said.filter(|records| stays(&records.segment)).cloned().collect()
}

struct Stamp<'a> {
    now: Timestamp,
    who: Option<&'a str>,
}

impl Stamp<'_> {
    fn causes(&self, cause: DeletionCause) -> Vec<DeletionCause> {
        vec![if self.who.is_some() { DeletionCause::Request } else { cause }]
    }

    fn names(&self) -> Vec<String> {
        self.who.into_iter().map(Into::into).collect()
    }

    fn records(
        &self,
        segment: SegmentId,
        missing: Missing,
        plan: &Plan,
        gone: &Gone,
    ) -> DeletedRecords {
        let Missing { count, bytes, digest_of } = missing;
        let cause = plan.thin.get(&segment).map_or(DeletionCause::Scope, |(cause, _)| *cause);
        let (by, who) = (self.causes(cause), self.names());
        let mut records =
            DeletedRecords { segment, count, digest_of, bytes, deleted: self.now, by, who };
        if let Some(earlier) = gone.records(segment).last() {
            records.follow(earlier);
        }
        records
    }
}

/// So many runs, and statements on records, are in one tombstone: it stays below 1 MiB.
const ENTRIES_MAX: usize = 500;

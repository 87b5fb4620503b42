//! What `recorder verify` says of a check.

use serde::Serialize;

use super::{
    CliError, Outcome,
    screen::{Ink, Screen},
    text, units,
};
use crate::{
    model::{SessionId, Timestamp},
    store::{DeletedRecords, DeletedSegments, DeletionCause, HeadFound, Position, VerifyReport},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifyLine<'a> {
    ok: bool,
    target: &'a str,
    /// The session of a bundle; null of a store.
    bundle: Option<SessionId>,
    segments: usize,
    records: u64,
    bodies: u64,
    live: bool,
    signatures_checked: bool,
    signatures: u64,
    unsigned_records: u64,
    pruned_records: u64,
    deleted_segments: &'a [DeletedSegments],
    deleted_records: &'a [DeletedRecords],
    partial_bodies: u64,
    absent_links: u64,
    head: &'static str,
    covered_by: Option<Position>,
    erased_records: u64,
    locked_records: u64,
    first_bad: Option<BadLine>,
}

#[derive(Serialize)]
struct BadLine {
    file: String,
    offset: u64,
    why: String,
}

/// Prints what was found.
pub(super) fn tell(
    target: &str,
    report: &VerifyReport,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let first_bad = report.first_bad.as_ref().map(|bad| BadLine {
        file: bad.file.display().to_string(),
        offset: bad.offset,
        why: bad.why.clone(),
    });
    let outcome = if first_bad.is_none() { Outcome::Fine } else { Outcome::DoesNotVerify };
    let (segments, records, bodies) = (report.segments.len(), report.records, report.bodies);
    if screen.json {
        screen.object(&VerifyLine {
            ok: first_bad.is_none(),
            target,
            bundle: report.bundle.as_ref().map(|bundle| bundle.session),
            segments,
            records,
            bodies,
            live: report.live,
            signatures_checked: report.signatures_checked,
            signatures: report.signatures,
            unsigned_records: report.unsigned_records,
            pruned_records: report.pruned_records,
            deleted_segments: &report.deleted_segments,
            deleted_records: &report.deleted_records,
            partial_bodies: report.partial_bodies,
            absent_links: report.absent_links,
            head: match report.head {
                HeadFound::Absent => "absent",
                HeadFound::Reached => "reached",
                HeadFound::Unusable(_) => "unusable",
            },
            covered_by: report.covered_by,
            erased_records: report.erased_records,
            locked_records: report.locked_records,
            first_bad,
        })?;
        return Ok(outcome);
    }
    let live = if report.live { ", a gateway is writing" } else { "" };
    let checked = format!(
        "{}, {}, bodies hashed: {bodies}, {}{}{live}",
        units::count(u64::try_from(segments).unwrap_or(u64::MAX), "segment"),
        units::count(records, "record"),
        signatures(report),
        withheld(report),
    );
    let target = text::short(target, 400);
    match first_bad {
        None => {
            let word = screen.look.paint(Ink::Good, "verified");
            screen.line(&format!("{word}  {target}: {checked}"))?;
            deleted(report, screen)?;
        }
        Some(bad) => {
            let word = screen.look.paint(Ink::Bad, "DOES NOT VERIFY");
            let (file, why) = (text::short(&bad.file, 400), text::short(&bad.why, 400));
            screen.line(&format!("{word}  {target}: {file} at offset {}: {why}", bad.offset))?;
            screen.line(&format!("sound before it: {checked}"))?;
        }
    }
    Ok(outcome)
}

/// What tombstones say is gone, in lines.
fn deleted(report: &VerifyReport, screen: &mut Screen<'_>) -> Result<(), CliError> {
    for run in &report.deleted_segments {
        let (segments, records) =
            (units::count(run.segments, "segment"), units::count(run.records, "record"));
        let (from, to) = (units::short_time(run.from), units::short_time(run.to));
        screen.line(&format!(
            "deleted  {segments} ({records}, {}) of {from} to {to}, {}",
            units::bytes(run.bytes),
            by(&run.by, &run.who, run.deleted),
        ))?;
    }
    for records in &report.deleted_records {
        screen.line(&format!(
            "deleted  {} ({}) of segment {}, {}",
            units::count(records.count, "record"),
            units::bytes(records.bytes),
            records.segment,
            by(&records.by, &records.who, records.deleted),
        ))?;
    }
    if report.partial_bodies > 0 {
        let bodies = if report.partial_bodies == 1 { "body" } else { "bodies" };
        screen.line(&format!("deleted  parts of {} {bodies}", report.partial_bodies))?;
    }
    Ok(())
}

fn by(causes: &[DeletionCause], who: &[String], when: Timestamp) -> String {
    let words: Vec<_> = causes.iter().map(|cause| cause.as_str()).collect();
    let who: Vec<_> = who.iter().map(|who| text::short(who, 40)).collect();
    let who = if who.is_empty() { String::new() } else { format!(" of {}", who.join(", ")) };
    format!("by {}{who}, last on {}", words.join(" and "), units::short_time(when))
}

/// What the signatures say.
fn signatures(report: &VerifyReport) -> String {
    if !report.signatures_checked {
        return "signatures not checked (no public key beside the store: name one with --key)"
            .into();
    }
    let absent = [
        (report.erased_records, "of erased sessions"),
        (report.locked_records, "encrypted, without their key here"),
    ];
    let absent: String = absent
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!(", {} {what}", units::count(*count, "record")))
        .collect();
    let good = units::count(report.signatures, "good signature");
    match report.unsigned_records {
        0 => format!("{good}, up to the end{absent}"),
        rest => format!("{good}, {} after the last{absent}", units::count(rest, "record")),
    }
}

/// What is not there, and what is known of the end.
fn withheld(report: &VerifyReport) -> String {
    let mut text = String::new();
    if let Some(bundle) = &report.bundle {
        let records = units::count(report.pruned_records, "record");
        text += &format!(", bundle of session {}: {records} of others withheld", bundle.session);
    }
    if report.absent_links > 0 {
        let links = units::count(report.absent_links, "link");
        text += &format!(", {links} to segments that are not here");
    }
    if let Some(signature) = report.covered_by {
        text += &format!(", the record is covered by the signature at {signature}");
    }
    if report.head == HeadFound::Reached {
        text += ", not behind its head";
    }
    text
}

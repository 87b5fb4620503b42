//! `recorder prune`: deletes what need not be kept.

use std::io;

use super::{
    Cli, CliError, Outcome, PruneArgs, ScopeWord,
    keeper::Keeper,
    library::failed,
    place::Place,
    screen::{Ink, Screen},
    text, units,
};
use crate::{
    model::Timestamp,
    socket::PruneRequest,
    store::{self, PruneReport, RetentionRules},
};

/// Says what goes, and on a dry run deletes nothing.
pub(super) fn run(
    cli: &Cli,
    args: &PruneArgs,
    now: Timestamp,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let place = Place::named(cli)?;
    let rules = rules(args);
    let report = if args.dry_run {
        let archived = store::archived_only(&place.directory);
        let preview = store::preview(&place.directory, rules, now, archived.as_ref());
        preview.map_err(|error| failed("read", &place.directory, error))?
    } else {
        Keeper::of(&place)?.prune(&place, PruneRequest { rules, dry_run: false })?
    };
    tell(&report, screen)?;
    Ok(Outcome::Fine)
}

fn rules(args: &PruneArgs) -> RetentionRules {
    let mut rules = RetentionRules { size: args.max_size, ..RetentionRules::default() };
    match args.scope {
        None => rules.age = args.older_than,
        Some(ScopeWord::Reads) => rules.reads = args.older_than,
        Some(ScopeWord::ReadBodies) => rules.bodies_of_reads = args.older_than,
    }
    rules
}

fn tell(report: &PruneReport, screen: &mut Screen<'_>) -> io::Result<()> {
    if screen.json {
        return screen.object(report);
    }
    let segments = u64::try_from(report.segments.len()).unwrap_or(u64::MAX);
    let thinned = u64::try_from(report.thinned.len()).unwrap_or(u64::MAX);
    let word = if report.dry_run { "would delete" } else { "deleted" };
    screen.line(&format!(
        "{}  {} whole ({}, {}), and {} ({}) of {}",
        screen.look.paint(Ink::Strong, word),
        units::count(segments, "segment"),
        units::count(report.segment_records, "record"),
        units::bytes(report.segment_bytes),
        units::count(report.records, "record"),
        units::bytes(report.record_bytes),
        units::count(thinned, "other segment"),
    ))?;
    if report.session_count > 0 {
        screen.line(&format!("of {}", units::count(report.session_count, "session")))?;
    }
    for held in &report.held {
        let (records, segments) =
            (units::count(held.records, "record"), units::count(held.segments, "segment"));
        screen.line(&format!("kept by hold {}: {records} in {segments}", held.hold))?;
    }
    for untouched in &report.untouched {
        let why = text::short(&untouched.why, 200);
        screen.line(&format!("not touched: segment {}: {why}", untouched.segment))?;
    }
    Ok(())
}

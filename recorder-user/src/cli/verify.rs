//! `recorder verify`: is the record intact?

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    Cli, CliError, Outcome,
    library::{Found, Library, failed},
    place::{self, Place},
    screen::{Ink, Screen},
    text, units,
};
use crate::{
    model::{AccessScope, SessionId, Through, Timestamp},
    store::{
        self, Check, DeletedRecords, DeletedSegments, DeletionCause, Head, HeadFound, Position,
        ReadHeadError, Scope, VerifyReport,
        signing::{self, Trust},
    },
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

/// What was typed.
pub(super) struct Asked<'a> {
    pub(super) target: Option<&'a str>,
    pub(super) keys: &'a [PathBuf],
    pub(super) head: Option<&'a Path>,
}

/// What is to be checked.
struct Target {
    /// A store, a bundle, or the file of a segment.
    path: PathBuf,
    scope: Scope,
    /// For people.
    name: String,
}

/// Checks what was asked for, by default all of the store that was named.
pub(super) fn run(
    cli: &Cli,
    asked: &Asked<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let Target { path, scope, name } = target(cli, asked.target, screen)?;
    let directory = store_of(&path);
    let head = known_head(&directory, asked.head, screen)?;
    let check = Check { trust: trust(&directory, asked.keys, screen)?, scope, head };
    let report = check.run(&path).map_err(|error| failed("verify", &directory, error))?;
    if report.is_ok() && !report.found {
        let what = match scope {
            Scope::Record(_) => "record",
            Scope::Exchange(_) => "exchange",
            Scope::Session(_) | Scope::Whole => "session",
        };
        return Err(CliError::NotFound { what, id: asked.target.unwrap_or_default().into() });
    }
    if let HeadFound::Unusable(why) = &report.head {
        match asked.head {
            Some(path) => {
                return Err(CliError::BadHead { path: path.into(), why: why.clone() });
            }
            None => writeln!(screen.err, "note: the head beside the keys says nothing: {why}")?,
        }
    }
    tell(&name, &report, screen)
}

/// Prints the head.
pub(super) fn head(store: &Path, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    let file = store::head_file(&signing::keys_directory(store));
    match Head::read(&file) {
        Ok(head) => {
            // It is JSON either way: what is kept elsewhere is what `verify --head` reads.
            screen.object(&head)?;
            Ok(Outcome::Fine)
        }
        Err(error) if is_missing(&error) => {
            Err(CliError::NotFound { what: "head", id: file.display().to_string() })
        }
        Err(error) => Err(failed("read the head of", store, error)),
    }
}

fn target(cli: &Cli, target: Option<&str>, screen: &mut Screen<'_>) -> Result<Target, CliError> {
    let Some(text) = target else {
        return whole(cli.store.clone().ok_or(CliError::NoStore)?, cli, screen);
    };
    if Path::new(text).exists() {
        return whole(text.into(), cli, screen);
    }
    if text.contains(['/', '.']) {
        return Err(CliError::MissingStore(text.into()));
    }
    let place = Place::named(cli)?;
    let scope = scope(&place, text, screen)?;
    let name = match scope {
        Scope::Session(session) => format!("session {session}"),
        Scope::Exchange(exchange) => format!("exchange {exchange}"),
        Scope::Record(position) => format!("record {position}"),
        Scope::Whole => text.to_owned(),
    };
    Ok(Target { path: place.directory, scope, name })
}

fn whole(path: PathBuf, cli: &Cli, screen: &mut Screen<'_>) -> Result<Target, CliError> {
    if !path.exists() {
        return Err(CliError::MissingStore(path));
    }
    // What is no store is for the verifier to say.
    let place = Place::of(store_of(&path), cli)?;
    if let Ok(reader) = place.reader() {
        place.announce(&reader, VERB, AccessScope::default(), screen)?;
    }
    let name = path.display().to_string();
    Ok(Target { path, scope: Scope::Whole, name })
}

fn scope(place: &Place, text: &str, screen: &mut Screen<'_>) -> Result<Scope, CliError> {
    if let Some((segment, offset)) = text.split_once(':') {
        let position = segment.parse().ok().zip(offset.parse().ok());
        let (segment, offset) = position.ok_or_else(|| CliError::BadId { id: text.into() })?;
        place.announce(&place.reader()?, VERB, AccessScope::default(), screen)?;
        return Ok(Scope::Record(Position { segment, offset }));
    }
    let found = match Library::open(place, VERB, Through::Files, screen)?.find(text) {
        Err(CliError::Asked(error)) => {
            place::remark(&*error, screen)?;
            Library::from_files(place, VERB, screen)?.find(text)
        }
        found => found,
    };
    match found {
        Ok(Found::Session(view)) => Ok(Scope::Session(view.session)),
        Ok(Found::Exchange(row)) => Ok(Scope::Exchange(row.exchange)),
        // Damage may have hidden the row of a whole id.
        Err(CliError::NotFound { what, id }) => {
            let Ok(session) = text.parse() else {
                return Err(CliError::NotFound { what, id });
            };
            let sessions = AccessScope { sessions: vec![session], ..AccessScope::default() };
            place.announce(&place.reader()?, VERB, sessions, screen)?;
            Ok(Scope::Session(session))
        }
        Err(error) => Err(error),
    }
}

/// The store that a segment's file is part of.
fn store_of(path: &Path) -> PathBuf {
    if !path.is_file() {
        return path.to_owned();
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let segments = path.parent().unwrap_or(&path);
    segments.parent().unwrap_or(segments).to_owned()
}

/// The keys that were named, else those that lie beside the store, else those in the bundle.
fn trust(directory: &Path, keys: &[PathBuf], screen: &mut Screen<'_>) -> Result<Trust, CliError> {
    let bad = |error| failed("read the public keys of", directory, error);
    if !keys.is_empty() {
        let keys = keys.iter().map(|path| signing::read_public_key(path));
        return keys.collect::<Result<_, _>>().map(Trust::new).map_err(bad);
    }
    let beside = signing::trusted(&signing::keys_directory(directory)).map_err(bad)?;
    if !beside.is_empty() {
        return Ok(beside);
    }
    let inside = signing::public_keys_in(&directory.join(store::KEYS_DIRECTORY)).map_err(bad)?;
    if !inside.is_empty() {
        writeln!(
            screen.err,
            "note: the public keys came with the bundle: name one that you trust with --key"
        )?;
    }
    Ok(Trust::new(inside))
}

/// The head that was named, else the one beside the keys, if it can be read.
fn known_head(
    directory: &Path,
    named: Option<&Path>,
    screen: &mut Screen<'_>,
) -> Result<Option<(Head, PathBuf)>, CliError> {
    if let Some(path) = named {
        let head =
            Head::read(path).map_err(|error| failed("read the head of", directory, error))?;
        return Ok(Some((head, path.to_owned())));
    }
    let path = store::head_file(&signing::keys_directory(directory));
    match Head::read(&path) {
        Ok(head) => Ok(Some((head, path))),
        Err(error) => {
            if !is_missing(&error) {
                writeln!(
                    screen.err,
                    "note: {error}: whether the store was rolled back is unknown"
                )?;
            }
            Ok(None)
        }
    }
}

fn is_missing(error: &ReadHeadError) -> bool {
    matches!(error, ReadHeadError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

const VERB: &str = "verify";

fn tell(target: &str, report: &VerifyReport, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
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

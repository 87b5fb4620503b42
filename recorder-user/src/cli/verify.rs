//! `recorder verify`: is the record intact?

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    Cli, CliError, Outcome,
    library::{Library, failed},
    place::{self, Place},
    screen::{Ink, Screen},
    text, units,
};
use crate::{
    model::{AccessScope, SessionId, Through},
    store::{
        self, VerifyError, VerifyReport,
        signing::{self, Trust},
    },
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifyLine<'a> {
    ok: bool,
    target: &'a str,
    segments: usize,
    records: u64,
    bodies: u64,
    live: bool,
    signatures_checked: bool,
    signatures: u64,
    unsigned_records: u64,
    pruned_records: u64,
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

/// Checks a session, the store at a path, or the store that was named.
pub(super) fn run(
    cli: &Cli,
    target: Option<&str>,
    keys: &[PathBuf],
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let (name, report) = match target {
        None => whole(&Place::named(cli)?, keys, screen)?,
        Some(path) if Path::new(path).exists() => {
            whole(&Place::of(path.into(), cli)?, keys, screen)?
        }
        Some(path) if path.contains(['/', '.']) => return Err(CliError::MissingStore(path.into())),
        Some(id) => {
            let place = Place::named(cli)?;
            // A whole id needs no rows, which damage may have hidden.
            let session = match id.parse() {
                Ok(session) => session,
                Err(_) => session_id(&place, id, screen)?,
            };
            let scope = AccessScope { sessions: vec![session], ..AccessScope::default() };
            place.announce(&place.reader()?, VERB, scope, screen)?;
            let directory = &place.directory;
            let report = store::verify_session(directory, trust(directory, keys)?, session)
                .map_err(|error| match error {
                    VerifyError::NoSession(_) => {
                        CliError::NotFound { what: "session", id: id.into() }
                    }
                    error => failed("verify", directory, error),
                })?;
            (format!("session {session}"), report)
        }
    };
    tell(&name, &report, screen)
}

fn session_id(place: &Place, id: &str, screen: &mut Screen<'_>) -> Result<SessionId, CliError> {
    match Library::open(place, VERB, Through::Files, screen)?.session_id(id) {
        Err(CliError::Asked(error)) => {
            place::remark(&*error, screen)?;
            Library::from_files(place, VERB, screen)?.session_id(id)
        }
        found => found,
    }
}

/// The keys that were named, else those that lie beside the store.
fn trust(directory: &Path, keys: &[PathBuf]) -> Result<Trust, CliError> {
    let bad = |error| failed("read the public keys of", directory, error);
    if keys.is_empty() {
        return signing::trusted(&signing::keys_directory(directory)).map_err(bad);
    }
    let keys = keys.iter().map(|path| signing::read_public_key(path));
    keys.collect::<Result<_, _>>().map(Trust::new).map_err(bad)
}

fn whole(
    place: &Place,
    keys: &[PathBuf],
    screen: &mut Screen<'_>,
) -> Result<(String, VerifyReport), CliError> {
    let directory = &place.directory;
    // What is no store is for the verifier to say.
    if let Ok(reader) = place.reader() {
        place.announce(&reader, VERB, AccessScope::default(), screen)?;
    }
    let report = store::verify(directory, trust(directory, keys)?)
        .map_err(|error| failed("verify", directory, error))?;
    Ok((directory.display().to_string(), report))
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
            segments,
            records,
            bodies,
            live: report.live,
            signatures_checked: report.signatures_checked,
            signatures: report.signatures,
            unsigned_records: report.unsigned_records,
            pruned_records: report.pruned_records,
            erased_records: report.erased_records,
            locked_records: report.locked_records,
            first_bad,
        })?;
        return Ok(outcome);
    }
    let live = if report.live { ", a gateway is writing" } else { "" };
    let checked = format!(
        "{}, {}, bodies hashed: {bodies}, {}{live}",
        units::count(u64::try_from(segments).unwrap_or(u64::MAX), "segment"),
        units::count(records, "record"),
        signatures(report),
    );
    let target = text::short(target, 400);
    match first_bad {
        None => {
            let word = screen.look.paint(Ink::Good, "verified");
            screen.line(&format!("{word}  {target}: {checked}"))?;
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

/// What the signatures say.
fn signatures(report: &VerifyReport) -> String {
    if !report.signatures_checked {
        return "signatures not checked (no public key beside the store: name one with --key)"
            .into();
    }
    let absent = [
        (report.pruned_records, "deleted"),
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

//! `recorder verify`: is the record intact?

use std::path::Path;

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
    store::{self, VerifyError, VerifyReport},
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
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let (name, report) = match target {
        None => whole(&Place::named(cli)?, screen)?,
        Some(path) if Path::new(path).exists() => whole(&Place::of(path.into(), cli)?, screen)?,
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
            let report =
                store::verify_session(directory, session).map_err(|error| match error {
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

fn whole(place: &Place, screen: &mut Screen<'_>) -> Result<(String, VerifyReport), CliError> {
    let directory = &place.directory;
    // What is no store is for the verifier to say.
    if let Ok(reader) = place.reader() {
        place.announce(&reader, VERB, AccessScope::default(), screen)?;
    }
    let report = store::verify(directory).map_err(|error| failed("verify", directory, error))?;
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
        let (ok, live) = (first_bad.is_none(), report.live);
        screen.object(&VerifyLine { ok, target, segments, records, bodies, live, first_bad })?;
        return Ok(outcome);
    }
    let live = if report.live { ", a gateway is writing" } else { "" };
    let checked = format!(
        "{}, {}, bodies hashed: {bodies}{live}",
        units::count(u64::try_from(segments).unwrap_or(u64::MAX), "segment"),
        units::count(records, "record"),
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

//! `recorder accesses`: who read recordings.

use super::{
    AccessesArgs, Cli, CliError, Outcome,
    library::{self, failed},
    place::Place,
    screen::{Ink, Screen},
    text, units,
};
use crate::{
    model::{AccessScope, Kind, LocalUser, Record, RecordingRead, Timestamp},
    store::Query,
};

/// Lists what is on record of it, oldest first.
pub(super) fn run(
    cli: &Cli,
    args: &AccessesArgs,
    now: Timestamp,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let place = Place::named(cli)?;
    let reader = place.reader()?;
    let since = args.since.map(|when| when.resolve(now));
    let scope = match since {
        Some(_) => library::scope(&Query { since, ..Query::default() }),
        None => AccessScope::default(),
    };
    place.announce(&reader, "accesses", scope, screen)?;
    let cannot_read = |error| failed("read", &place.directory, error);
    let begin = match since {
        Some(since) => reader.position_before(since).map_err(cannot_read)?,
        None => None,
    };
    let mut lines = Vec::new();
    for stored in reader.records_of_kind(Kind::RECORDING_READ, begin) {
        let Record::RecordingRead(read) = stored.map_err(cannot_read)?.record else { continue };
        if since.is_some_and(|since| read.time < since) {
            continue;
        }
        if screen.json {
            screen.object(&read)?;
        } else {
            lines.push(cells(&read));
        }
    }
    if !screen.json && lines.is_empty() {
        writeln!(screen.err, "no reading of recordings is on record")?;
    } else if !screen.json {
        screen.table(&["TIME (UTC)", "USER", "VERB", "THROUGH", "WHAT"], lines)?;
    }
    Ok(Outcome::Fine)
}

fn cells(read: &RecordingRead) -> Vec<(String, Ink)> {
    vec![
        (units::short_time(read.time), Ink::Plain),
        (text::short(&user(&read.by), 40), Ink::Strong),
        (text::short(&read.verb, 16), Ink::Plain),
        (read.through.as_str().into(), Ink::Plain),
        (text::short(&what(&read.what), 120), Ink::Plain),
    ]
}

fn user(by: &LocalUser) -> String {
    match &by.user {
        Some(name) => format!("{name} ({})", by.uid),
        None => by.uid.to_string(),
    }
}

fn what(scope: &AccessScope) -> String {
    let sessions = scope.sessions.iter().map(|id| format!("session {id}"));
    let exchanges = scope.exchanges.iter().map(|id| format!("exchange {id}"));
    let mut words: Vec<String> = sessions.chain(exchanges).collect();
    words.extend(scope.query.clone().filter(|query| !query.is_empty()));
    if words.is_empty() { "everything".into() } else { words.join(", ") }
}

//! `recorder hold`: what must not be deleted.

use std::io;

use super::{
    Cli, CliError, HoldVerb, Outcome,
    keeper::Keeper,
    library::{Found, Library, failed},
    place::Place,
    screen::{Ink, Screen},
    text, units,
};
use crate::{
    model::{HoldChanged, HoldId, HoldOn, SessionId, Through},
    socket::HoldRequest,
    store,
};

/// Lists, adds or releases holds.
pub(super) fn run(
    cli: &Cli,
    verb: &HoldVerb,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let place = Place::named(cli)?;
    match verb {
        HoldVerb::Ls => list(&known(&place)?, screen)?,
        HoldVerb::Add { session, task, principal, reason } => {
            let on = match (session, task, principal) {
                (Some(session), ..) => HoldOn::Session(named(&place, session, screen)?),
                (None, Some(task), _) => HoldOn::Task(task.clone()),
                (None, None, principal) => HoldOn::Principal(principal.clone().unwrap_or_default()),
            };
            let request = HoldRequest { on, reason: reason.clone() };
            let hold = Keeper::of(&place)?.hold(&place, request)?;
            tell(&hold, "is in force", screen)?;
        }
        HoldVerb::Release { hold } => {
            let hold = find(&place, hold)?;
            let hold = Keeper::of(&place)?.release(&place, hold)?;
            tell(&hold, "is released", screen)?;
        }
    }
    Ok(Outcome::Fine)
}

/// The session of which this is the id, or part of it. A whole id needs no row: the hold may come first.
fn named(place: &Place, id: &str, screen: &mut Screen<'_>) -> Result<SessionId, CliError> {
    if let Ok(session) = id.parse() {
        return Ok(session);
    }
    match Library::open(std::slice::from_ref(place), "hold", Through::Socket, screen)?.find(id)? {
        Found::Session(whole) => Ok(whole.view.session),
        Found::Exchange(_) => Err(CliError::NotFound { what: "session", id: id.into() }),
    }
}

fn known(place: &Place) -> Result<Vec<HoldChanged>, CliError> {
    let reader = place.reader()?;
    store::holds(reader.directory()).map_err(|error| failed("read", &place.directory, error))
}

/// The hold in force of which this is the id, or its end.
fn find(place: &Place, id: &str) -> Result<HoldId, CliError> {
    let mut active: Vec<_> =
        known(place)?.into_iter().filter(|hold| hold.released.is_none()).collect();
    active.retain(|hold| {
        let whole = hold.hold.to_string();
        whole == id || (id.len() >= ID_PART_MIN && (whole.starts_with(id) || whole.ends_with(id)))
    });
    match &active[..] {
        [hold] => Ok(hold.hold),
        [] => Err(CliError::NotFound { what: "hold in force", id: id.into() }),
        several => {
            let candidates = several.iter().map(|hold| hold.hold.to_string()).collect();
            Err(CliError::Ambiguous { id: id.into(), candidates })
        }
    }
}

fn tell(hold: &HoldChanged, word: &str, screen: &mut Screen<'_>) -> io::Result<()> {
    if screen.json {
        return screen.object(hold);
    }
    screen.line(&format!("hold {} on {} {word}", hold.hold, text::short(&on(&hold.on), 120)))
}

fn list(holds: &[HoldChanged], screen: &mut Screen<'_>) -> io::Result<()> {
    if screen.json {
        return holds.iter().try_for_each(|hold| screen.object(hold));
    }
    if holds.is_empty() {
        writeln!(screen.err, "no legal hold is on record")?;
        return Ok(());
    }
    let rows = holds.iter().map(|hold| {
        let released = hold.released.as_ref().map(|end| units::short_time(end.time));
        vec![
            (hold.hold.to_string(), Ink::Plain),
            (units::short_time(hold.time), Ink::Plain),
            (text::short(&hold.who, 40), Ink::Plain),
            (text::short(&on(&hold.on), 60), Ink::Strong),
            (released.unwrap_or_else(|| "in force".into()), Ink::Plain),
            (text::short(&hold.reason, 80), Ink::Plain),
        ]
    });
    screen.table(&["HOLD", "SINCE (UTC)", "BY", "ON", "RELEASED", "REASON"], rows.collect())
}

fn on(on: &HoldOn) -> String {
    match on {
        HoldOn::Session(session) => format!("session {session}"),
        HoldOn::Task(task) => format!("task {task}"),
        HoldOn::Principal(name) => format!("principal {name}"),
    }
}

/// Shorter parts of ids are refused: they would rarely be unique.
const ID_PART_MIN: usize = 4;

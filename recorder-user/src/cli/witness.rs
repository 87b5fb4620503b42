//! `recorder witness`: what the kernel allowed to be seen, allows here and now, and what that costs.

use std::collections::VecDeque;

use serde::Serialize;

use super::{
    CliError, Outcome, WitnessArgs, library,
    screen::{Ink, Screen},
    text, units,
};
use crate::{
    model::{CapabilityRecord, GatewayStarted, Kind, Record, Timestamp, WitnessChanged},
    store::Reader,
    witness::{self, HookCost, Mode, Runs, Witness, WitnessOptions},
};

/// Prints the capability record of the latest start of a gateway.
pub(super) fn run(reader: &Reader, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    let started = library::gateway_started(reader, None)?.ok_or(CliError::NoGateway)?;
    let changes = changes(reader, started.time)?;
    if screen.json {
        screen.object(&WitnessShown { started, changes })?;
        return Ok(Outcome::Fine);
    }
    let time = format!("{} UTC", units::short_time(started.time));
    let facts = [("gateway", started.gateway.to_string()), ("started", time)];
    capability(&facts, &started.witness, screen)?;
    if changes.is_empty() {
        return Ok(Outcome::Fine);
    }
    screen.line("")?;
    screen.table(
        &["CHANGED (UTC)", "EVENT", "SEES", "DETAIL"],
        changes.iter().map(cells).collect(),
    )?;
    Ok(Outcome::Fine)
}

/// `recorder witness --json`: the start as it is recorded, and what became of the witness since.
#[derive(Serialize)]
struct WitnessShown {
    #[serde(flatten)]
    started: GatewayStarted,
    changes: VecDeque<WitnessChanged>,
}

/// The latest changes of the witness since that time.
fn changes(reader: &Reader, since: Timestamp) -> Result<VecDeque<WitnessChanged>, CliError> {
    let failed = |error| library::failed("read", reader.directory(), error);
    let begin = reader.position_before(since).map_err(failed)?;
    let mut changes = VecDeque::new();
    for stored in reader.records_of_kind(Kind::WITNESS_CHANGED, begin) {
        let Record::WitnessChanged(changed) = stored.map_err(failed)?.record else { continue };
        if changed.time >= since {
            if changes.len() == CHANGES_MAX {
                changes.pop_front();
            }
            changes.push_back(changed);
        }
    }
    Ok(changes)
}

fn cells(changed: &WitnessChanged) -> Vec<(String, Ink)> {
    let (sees, ink) = if changed.blind { ("no", Ink::Bad) } else { ("yes", Ink::Plain) };
    vec![
        (units::short_time(changed.time), Ink::Plain),
        (changed.event.as_str().to_owned(), Ink::Plain),
        (sees.to_owned(), ink),
        (text::short(&changed.detail, 200), Ink::Plain),
    ]
}

/// Of more changes only the latest are shown.
const CHANGES_MAX: usize = 50;

/// Starts a witness here, and prints what it can see.
pub(super) fn here(args: &WitnessArgs, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    let options = WitnessOptions { object: args.object.clone(), ..WitnessOptions::default() };
    // `Auto` never fails: what is not possible is in the record.
    let Ok(witness) = Witness::start(Mode::Auto, &options) else { return Ok(Outcome::Fine) };
    if screen.json {
        screen.object(witness.capability())?;
        return Ok(Outcome::Fine);
    }
    capability(&[], witness.capability(), screen)
}

fn capability(
    facts: &[(&str, String)],
    witness: &CapabilityRecord,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let test = if witness.self_test { "passed" } else { "not passed" };
    let own = [
        ("tier", format!("{:?}", witness.tier)),
        ("kernel", text::short(&witness.kernel, 120)),
        ("self-test", test.into()),
        ("reason", text::short(witness.reason.as_deref().unwrap_or("-"), 400)),
    ];
    for (key, value) in facts.iter().chain(&own) {
        screen.line(&format!("{key:10} {value}"))?;
    }
    if witness.hooks.is_empty() {
        return Ok(Outcome::Fine);
    }
    screen.line("")?;
    let rows = witness.hooks.iter().map(|hook| {
        let (state, ink) = match &hook.error {
            None => ("attached".to_owned(), Ink::Good),
            Some(error) => (text::short(error, 200), Ink::Warn),
        };
        vec![(hook.hook.clone(), Ink::Plain), (state, ink)]
    });
    screen.table(&["HOOK", "STATE"], rows.collect())?;
    Ok(Outcome::Fine)
}

/// Measures what each program costs here.
pub(super) fn cost(args: &WitnessArgs, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    let costs = witness::measure(args.object.as_deref()).map_err(CliError::Cost)?;
    if screen.json {
        for cost in &costs {
            screen.object(cost)?;
        }
        return Ok(Outcome::Fine);
    }
    let header =
        ["HOOK", "INSTRUCTIONS", "BUDGET", "FOREIGN RUNS", "NS/RUN", "CHOSEN RUNS", "NS/RUN"];
    screen.table(&header, costs.iter().map(row).collect())?;
    screen.line("")?;
    screen.line("About 50 ns of each run are the measurement's own.")?;
    Ok(Outcome::Fine)
}

fn row(cost: &HookCost) -> Vec<(String, Ink)> {
    let plain = |text: String| (text, Ink::Plain);
    if let Some(error) = &cost.error {
        let hook = plain(cost.hook.clone());
        return vec![hook, (text::short(error, 200), Ink::Warn)];
    }
    let proved = cost.verified_instructions;
    let ink = if proved > Some(cost.budget_instructions) { Ink::Bad } else { Ink::Plain };
    let runs = |runs: Runs| {
        let time = if runs.runs == 0 { "-".to_owned() } else { runs.ns_per_run.to_string() };
        [plain(runs.runs.to_string()), plain(time)]
    };
    let mut row = vec![
        plain(cost.hook.clone()),
        (proved.map_or_else(|| "-".to_owned(), |count| count.to_string()), ink),
        plain(cost.budget_instructions.to_string()),
    ];
    row.extend(runs(cost.foreign));
    row.extend(runs(cost.chosen));
    row
}

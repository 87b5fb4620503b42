//! `recorder witness`: what the kernel allowed to be seen.

use super::{
    CliError, Outcome, library,
    screen::{Ink, Screen},
    text, units,
};
use crate::store::Reader;

/// Prints the capability record of the latest start of a gateway.
pub(super) fn run(reader: &Reader, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    let started = library::gateway_started(reader, None)?.ok_or(CliError::NoGateway)?;
    if screen.json {
        screen.object(&started)?;
        return Ok(Outcome::Fine);
    }
    let witness = &started.witness;
    let test = if witness.self_test { "passed" } else { "not passed" };
    for (key, value) in [
        ("gateway", started.gateway.to_string()),
        ("started", format!("{} UTC", units::short_time(started.time))),
        ("tier", format!("{:?}", witness.tier)),
        ("kernel", text::short(&witness.kernel, 120)),
        ("self-test", test.into()),
        ("reason", text::short(witness.reason.as_deref().unwrap_or("-"), 400)),
    ] {
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

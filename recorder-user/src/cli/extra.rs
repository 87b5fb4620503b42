//! Verbs that binaries of their own do, since few need them and they cost more to build than all the rest.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::{Command, ExitStatus},
};

use super::{Cli, CliError, Outcome};

/// Runs `recorder-VERB`, which is beside this binary or on the `PATH`, with the same store.
pub(super) fn run(
    cli: &Cli,
    verb: &'static str,
    arguments: &[OsString],
) -> Result<Outcome, CliError> {
    let name = format!("recorder-{verb}");
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(&name));
    let program = beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(&name));
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(store) = &cli.store {
        command.env("DECKLOG_STORE", store);
    }
    if cli.json {
        command.arg("--json");
    }
    match command.status() {
        Ok(status) => outcome(verb, status),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CliError::NoExtra { verb }),
        Err(source) => Err(CliError::Extra { verb, source }),
    }
}

/// What it had to say is said.
fn outcome(verb: &'static str, status: ExitStatus) -> Result<Outcome, CliError> {
    match status.code() {
        Some(0) => Ok(Outcome::Fine),
        Some(1) => Ok(Outcome::DoesNotVerify),
        _ => Err(CliError::ExtraFailed { verb }),
    }
}

//! Verbs that binaries of their own do, since few need them and they cost more to build than all the rest.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use super::{Cli, CliError, Outcome};

/// Runs `recorder-VERB`, which is beside this binary or on the `PATH`, with the same store.
pub(super) fn run(
    cli: &Cli,
    verb: &'static str,
    arguments: &[OsString],
) -> Result<Outcome, CliError> {
    let mut command = Command::new(program(verb));
    command.args(arguments);
    match &cli.store[..] {
        [] => {}
        [store] => drop(command.env("DECKLOG_STORE", store)),
        _ => return Err(CliError::OneStore),
    }
    if cli.json {
        command.arg("--json");
    }
    outcome(verb, command.status().map_err(|error| not_started(verb, error))?)
}

/// What `recorder-VERB` prints; its remarks go where ours do.
pub(super) fn ask(
    verb: &'static str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<String, CliError> {
    let mut command = Command::new(program(verb));
    command.args(arguments).env_remove("DECKLOG_STORE").stderr(Stdio::inherit());
    let output = command.output().map_err(|error| not_started(verb, error))?;
    outcome(verb, output.status)?;
    String::from_utf8(output.stdout).map_err(|_| CliError::ExtraFailed { verb })
}

/// The binary beside this one, else what the `PATH` has.
fn program(verb: &str) -> PathBuf {
    let name = format!("recorder-{verb}");
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(&name));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(&name))
}

fn not_started(verb: &'static str, source: io::Error) -> CliError {
    if source.kind() == io::ErrorKind::NotFound {
        return CliError::NoExtra { verb };
    }
    CliError::Extra { verb, source }
}

/// What it had to say is said.
fn outcome(verb: &'static str, status: ExitStatus) -> Result<Outcome, CliError> {
    match status.code() {
        Some(0) => Ok(Outcome::Fine),
        Some(1) => Ok(Outcome::DoesNotVerify),
        _ => Err(CliError::ExtraFailed { verb }),
    }
}

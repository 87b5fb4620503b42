//! The `recorder` command: reads the record that a gateway wrote.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Error;
use clap::Parser as _;
use recorder_user::cli::{self, Cli, CliError, Look, Screen, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    log(matches!(cli.verb, Verb::Probe(_)));
    let (mut out, mut err) = (io::BufWriter::new(io::stdout().lock()), io::stderr());
    let mut sleep = std::thread::sleep;
    let mut screen = Screen {
        out: &mut out,
        err: &mut err,
        look: Look::of_stdout(),
        json: cli.json,
        sleep: &mut sleep,
        size: cli::terminal_size,
    };
    let result = cli::run(&cli, &mut screen).and_then(|outcome| {
        out.flush()?;
        Ok(outcome)
    });
    match result {
        Ok(outcome) => ExitCode::from(outcome.code()),
        // The reader has what it wanted (`recorder ls | head`).
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => report(error),
    }
}

/// A service tells what it does; all other verbs only what goes wrong.
fn log(service: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env();
    if service {
        let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(io::stderr)
            .with_env_filter(filter)
            .init();
    } else {
        let filter = filter.unwrap_or_else(|_| EnvFilter::new("error"));
        tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).init();
    }
}

fn report(error: CliError) -> ExitCode {
    let (code, hint) = (error.code(), error.hint());
    let text = format!("{:#}", Error::from(error));
    // Standard error may be gone too; there is nobody left to tell.
    let told = writeln!(io::stderr(), "error: {}", cli::escape::line(&text)).is_ok();
    if told && let Some(hint) = hint {
        writeln!(io::stderr(), "hint: {}", cli::escape::line(&hint)).unwrap_or_default();
    }
    ExitCode::from(code)
}

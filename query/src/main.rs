//! `recorder query`: what is in a store and an archive, in SQL.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use archive::ArchiveArguments;
use clap::Parser;
use query::{Form, query};
use recorder_user::cli::escape;

/// Asks in SQL what is in a store, an archive, or both.
#[derive(Parser)]
#[command(
    name = "recorder query",
    version,
    after_help = "\
Tables: sessions, session_changes, exchanges, effects; their columns are in docs/store.md, or:
  recorder query \"DESCRIBE exchanges\"

Examples:
  recorder query \"SELECT username, count(*) FROM effects WHERE change = 'deleted' GROUP BY username\"
  recorder query \"SELECT * FROM exchanges WHERE verdict = 'deny' AND day = '2026-09-01' LIMIT 20\" --json

Exit codes: 0 fine, 2 wrong usage or failure."
)]
struct Arguments {
    /// One statement that reads.
    sql: String,
    /// The store's directory.
    #[arg(long, env = "DECKLOG_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    archive: ArchiveArguments,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", escape::line(&format!("{error:#}")));
            ExitCode::from(2)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run() -> Result<()> {
    let arguments = Arguments::parse();
    let archive = if arguments.archive.is_given() { Some(arguments.archive.open()?) } else { None };
    ensure!(
        archive.is_some() || arguments.store.is_some(),
        "name what to ask: give --store DIR or set DECKLOG_STORE, or give --archive URL"
    );
    let form = if arguments.json { Form::Json } else { Form::Table };
    let text = query(&arguments.sql, arguments.store.as_deref(), archive.as_ref(), form).await?;
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write the output"),
    }
}

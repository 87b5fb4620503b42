//! `recorder archive`: archives a store by hand, shows how far it is, and checks the copies.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use archive::{
    ArchiveArguments, Archiver, ArchiverOptions, Class, Failure, SystemTime, check_copies,
    table_files,
};
use clap::{Parser, Subcommand};
use recorder_user::{
    cli::escape,
    store::{
        self, Reader,
        archive::{ArchiveState, Carried, FinishedSegment},
    },
};
use serde_json::{Value, json};

/// Copies finished segments to an S3-compatible store, with Parquet tables, and checks the copies.
#[derive(Parser)]
#[command(
    name = "recorder archive",
    version,
    after_help = "\
A gateway with `archive` in its configuration does this by itself. Nothing is ever deleted, here or there.

Examples:
  recorder archive status                                      what is archived, and what waits
  recorder archive verify --archive s3://audit/decklog         is every copy what it was?
  recorder archive fetch --archive s3://audit/decklog --into D the segments of all gateways, as stores
  recorder archive tables --into D                             the tables of a store as Parquet files

Exit codes: 0 fine, 1 something is not archived or does not verify, 2 wrong usage or failure."
)]
struct Arguments {
    /// The store's directory.
    #[arg(long, global = true, env = "DECKLOG_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
    /// Print one JSON object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Archives what is finished and is not archived yet.
    Run {
        #[command(flatten)]
        archive: ArchiveArguments,
        /// Go on until stopped, and try again what fails.
        #[arg(long)]
        follow: bool,
    },
    /// Shows which segments are archived, as noted here; asks nobody.
    Status,
    /// Reads every copy back and compares it with the store; without a store, checks the archive's own chains.
    Verify {
        #[command(flatten)]
        archive: ArchiveArguments,
    },
    /// Fetches the segments of all gateways, and names the directories that read as stores.
    Fetch {
        #[command(flatten)]
        archive: ArchiveArguments,
        /// The directory; what it has is not fetched again.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Writes the tables of a store as Parquet files, laid out as in an archive.
    Tables {
        /// The directory.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {}", escape::line(&format!("{error:#}")));
            if let Some(failure) = error.downcast_ref::<Failure>() {
                eprintln!("hint: {}", failure.class.hint());
            }
            ExitCode::from(2)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: &Arguments) -> Result<bool> {
    let store = || {
        let store = arguments.store.clone();
        store.context("no store was named: give --store DIR or set DECKLOG_STORE")
    };
    let out = Out { json: arguments.json };
    match &arguments.verb {
        Verb::Run { archive, follow } => archive_store(store()?, archive, *follow, &out).await,
        Verb::Status => status(&store()?, &out),
        Verb::Verify { archive } => match &arguments.store {
            Some(store) => compare(store, archive, &out).await,
            None => verify_chains(archive, &out).await,
        },
        Verb::Fetch { archive, into } => {
            let fetched = archive.open()?.fetch(into).await?;
            for store in &fetched.stores {
                let path = store.display().to_string();
                out.line(&json!({"store": path}), &path)?;
            }
            Ok(!fetched.stores.is_empty())
        }
        Verb::Tables { into } => write_tables(&store()?, into, &out),
    }
}

async fn archive_store(
    store: PathBuf,
    archive: &ArchiveArguments,
    follow: bool,
    out: &Out,
) -> Result<bool> {
    // An hour, as the gateway's default; by hand there is nobody to hear the alarm but the log.
    let (interval, alarm_after) = (Duration::from_secs(10), Duration::from_secs(3600));
    let options = ArchiverOptions { store, interval, alarm_after };
    let mut archiver = Archiver::new(options, archive.open()?, Arc::new(SystemTime))?;
    if follow {
        tokio::select! {
            // cancel-safe: an archiver is, and a signal is kept until it is received.
            () = archiver.run() => {}
            signal = tokio::signal::ctrl_c() => signal.context("wait for SIGINT")?,
        }
        return Ok(true);
    }
    let pass = archiver.pass().await?;
    let view = archiver.health().view();
    let failing =
        view.failing.map(|(class, error)| json!({"class": class.as_str(), "error": error}));
    let object = json!({
        "archived": pass.archived, "bytes": view.archived_bytes, "tableFiles": view.table_files,
        "pending": view.pending_segments, "failing": failing,
    });
    let text = format!("{} segments archived, {} wait", pass.archived, view.pending_segments);
    out.line(&object, &text)?;
    Ok(pass.held == 0)
}

fn status(store: &Path, out: &Out) -> Result<bool> {
    let (reader, state) = (Reader::open(store)?, ArchiveState::of(store));
    let noted = state.all()?;
    let mut waiting = 0_u64;
    let finished: Vec<FinishedSegment> = reader.finished_segments()?;
    for FinishedSegment { segment, bytes, .. } in &finished {
        let copied = noted.get(segment).filter(|copied| copied.bytes == *bytes);
        let (object, verified) = (
            copied.map(|copied| copied.object.clone()),
            copied.map(|copied| copied.verified.to_string()),
        );
        waiting += u64::from(copied.is_none());
        let tables = copied.is_some_and(|copied| copied.tables.is_some());
        let text = match (&object, &verified) {
            (Some(object), Some(verified)) => format!("{segment}  {verified}  {object}"),
            _ => format!("{segment}  waits, {bytes} bytes"),
        };
        out.line(
            &json!({
                "segment": segment, "bytes": bytes, "archived": copied.is_some(), "object": object,
                "verified": verified, "tables": tables,
            }),
            &text,
        )?;
    }
    Ok(waiting == 0)
}

async fn compare(store: &Path, archive: &ArchiveArguments, out: &Out) -> Result<bool> {
    let checked = check_copies(&archive.open()?, store).await?;
    let mut sound = true;
    for copy in checked {
        sound &= copy.wrong.is_none();
        let word = copy.wrong.as_deref().map_or("verified", |_| "DOES NOT VERIFY");
        let why = copy.wrong.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let text = format!("{word}  {}{why}", copy.object);
        let object = json!({
            "segment": copy.segment, "object": copy.object, "ok": copy.wrong.is_none(), "wrong": copy.wrong,
        });
        out.line(&object, &text)?;
    }
    Ok(sound)
}

async fn verify_chains(archive: &ArchiveArguments, out: &Out) -> Result<bool> {
    let directory = tempfile::tempdir().context("make a directory for the segments")?;
    let fetched = archive.open()?.fetch(directory.path()).await?;
    let mut sound = true;
    for store in &fetched.stores {
        let report = store::verify(store, store::signing::Trust::default())?;
        let gateway = store.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sound &= report.is_ok();
        let wrong = report.first_bad.as_ref().map(|bad| {
            let file = bad.file.file_name().unwrap_or_default().to_string_lossy();
            format!("{file} at offset {}: {}", bad.offset, bad.why)
        });
        let word = wrong.as_deref().map_or("verified", |_| "DOES NOT VERIFY");
        let why = wrong.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let (segments, records) = (report.segments.len(), report.records);
        let text =
            format!("{word}  gateway {gateway}: {segments} segments, {records} records{why}");
        let object = json!({
            "gateway": gateway, "ok": report.is_ok(), "segments": segments, "records": records,
            "wrong": wrong,
        });
        out.line(&object, &text)?;
    }
    Ok(sound)
}

fn write_tables(store: &Path, into: &Path, out: &Out) -> Result<bool> {
    let reader = Reader::open(store)?;
    let (mut carried, mut files) = (Carried::default(), 0_u64);
    for info in reader.segments()? {
        let gateway = info.header.gateway;
        for file in table_files(&reader, gateway, info.segment, &mut carried)? {
            let path = into.join(file.partition.path(gateway, info.segment));
            let directory = path.parent().unwrap_or(into);
            std::fs::create_dir_all(directory)
                .and_then(|()| std::fs::write(&path, &file.bytes))
                .map_err(|error| anyhow::Error::from(error).context(Class::Local.hint()))
                .with_context(|| format!("write {}", path.display()))?;
            files += 1;
        }
    }
    out.line(&json!({"files": files}), &format!("{files} files in {}", into.display()))?;
    Ok(true)
}

struct Out {
    json: bool,
}

impl Out {
    fn line(&self, object: &Value, text: &str) -> Result<()> {
        let line = if self.json { object.to_string() } else { escape::line(text).into_owned() };
        match writeln!(io::stdout(), "{line}") {
            // The reader has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            written => written.context("write the output"),
        }
    }
}

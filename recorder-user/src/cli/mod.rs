//! The verbs of the `recorder` command.
//!
//! Each verb asks the library (`library.rs`) for rows and recordings, and writes to a [`Screen`]:
//! data to its output, remarks to its error stream. Nothing here knows the format of a segment or
//! of the index.
//!
//! **Everything that comes from a record is escaped before it is printed** ([`escape`]): whoever
//! was recorded chose those bytes, and the reader may be the one who judges them.

mod args;
mod error;
pub mod escape;
mod export;
mod extra;
mod follow;
mod frame_json;
mod json;
mod library;
mod ls;
mod outlet;
mod reindex;
mod replay;
mod replay_json;
mod screen;
mod search;
mod session_follow;
mod show;
mod show_json;
mod show_stream;
mod stream;
mod stream_views;
mod text;
pub mod units;
mod verify;
mod watch;
mod witness;

use std::path::PathBuf;

pub use args::{
    ChannelWord, Cli, EffectWord, ExportArgs, FollowArgs, FormatWord, ReplayArgs, SearchArgs, Verb,
    VerdictWord,
};
pub use error::{CliError, Outcome};
pub use screen::{Ink, Look, Screen, terminal_size};

use crate::model::Timestamp;
use library::Library;

/// Runs one verb.
///
/// # Errors
/// When what was asked for is not there (exit code 1), or on wrong usage and failures (2).
pub fn run(cli: &Cli, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    match &cli.verb {
        Verb::Ls => ls::run(open(cli, screen)?, screen),
        Verb::Show { id } => show::run(open(cli, screen)?, id, screen),
        Verb::Replay(args) => replay::run(open(cli, screen)?, args, screen),
        Verb::Follow(args) => follow::run(open(cli, screen)?, args, screen),
        Verb::Export(args) => export::run(open(cli, screen)?, args, screen),
        Verb::Search(args) => search::run(open(cli, screen)?, args, Timestamp::now(), screen),
        Verb::Verify { target } => verify::run(cli.store.as_deref(), target.as_deref(), screen),
        Verb::Reindex => reindex::run(&directory(cli)?, screen),
        Verb::Archive { arguments } => extra::run(cli, "archive", arguments),
        Verb::Query { arguments } => extra::run(cli, "query", arguments),
        Verb::Witness => witness::run(open(cli, screen)?, screen),
    }
}

/// Opens the store, and warns on the error stream of what cannot be read in it.
fn open(cli: &Cli, screen: &mut Screen<'_>) -> Result<Library, CliError> {
    let library = Library::open(&directory(cli)?)?;
    let damage = library.damage();
    for what in &damage {
        writeln!(screen.err, "warning: {}", escape::line(what))?;
    }
    if !damage.is_empty() {
        writeln!(screen.err, "hint: rows may be missing; see: recorder verify")?;
    }
    Ok(library)
}

fn directory(cli: &Cli) -> Result<PathBuf, CliError> {
    let directory = cli.store.clone().ok_or(CliError::NoStore)?;
    if directory.is_dir() { Ok(directory) } else { Err(CliError::MissingStore(directory)) }
}

//! The verbs of the `recorder` command.
//!
//! Each verb asks the library (`library.rs`) for rows and recordings, and writes to a [`Screen`]:
//! data to its output, remarks to its error stream. Nothing here knows the format of a segment or
//! of the index.
//!
//! **Everything that comes from a record is escaped before it is printed** ([`escape`]): whoever
//! was recorded chose those bytes, and the reader may be the one who judges them.

mod accesses;
mod args;
mod bundle;
mod erase;
mod error;
pub mod escape;
mod export;
mod extra;
mod follow;
mod frame_json;
mod hold;
mod json;
mod keeper;
mod keys;
mod library;
mod ls;
mod outlet;
mod place;
mod places;
mod probe;
mod prune;
mod reindex;
mod replay;
mod replay_json;
mod screen;
mod search;
mod search_bypass;
mod seen;
mod session_follow;
mod show;
mod show_evidence;
mod show_json;
mod show_seen;
mod show_stream;
mod source;
mod stream;
mod stream_views;
mod text;
pub mod units;
mod verb_args;
mod verify;
mod verify_told;
mod watch;
mod witness;

pub use args::{Cli, Verb};
pub use error::{CliError, Outcome};
pub use screen::{Ink, Look, Screen, terminal_size};
pub use verb_args::{
    AccessesArgs, ArchiveArgs, ChannelWord, EffectWord, ExportArgs, FollowArgs, FormatWord,
    HoldVerb, KeysVerb, KindWord, LsArgs, ProbeArgs, PruneArgs, ReplayArgs, ScopeWord, SearchArgs,
    VerdictWord, WitnessArgs,
};

use crate::model::{Through, Timestamp};
use library::Library;
use place::Place;
use places::Places;

/// Runs one verb.
///
/// # Errors
/// When what was asked for is not there (exit code 1), or on wrong usage and failures (2).
pub fn run(cli: &Cli, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    use Through::{Files, Socket};
    match &cli.verb {
        Verb::Ls(args) => {
            let places = Places::named(cli, &args.archive, "ls", screen)?;
            with_rows(&places, "ls", Socket, screen, |library, screen| {
                ls::run(library, args.kind, screen)
            })
        }
        Verb::Show { id, archive } => {
            let places = Places::named(cli, archive, "show", screen)?;
            with_rows(&places, "show", Files, screen, |library, screen| {
                show::run(library, id, screen)
            })
        }
        Verb::Replay(args) => {
            let places = Places::named(cli, &args.archive, "replay", screen)?;
            with_rows(&places, "replay", Files, screen, |library, screen| {
                replay::run(library, args, screen)
            })
        }
        Verb::Follow(args) => {
            with_rows(&Places::one(cli)?, "follow", Files, screen, |library, screen| {
                follow::run(library, args, screen)
            })
        }
        Verb::Export(args) => {
            with_rows(&Places::one(cli)?, "export", Files, screen, |library, screen| {
                export::run(library, args, screen)
            })
        }
        Verb::Search(args) => {
            let places = Places::named(cli, &args.archive, "search", screen)?;
            with_rows(&places, "search", Socket, screen, |library, screen| {
                search::run(library, args, Timestamp::now(), screen)
            })
        }
        Verb::Verify { target, key, head, archive } => {
            let (target, head) = (target.as_deref(), head.as_deref());
            verify::run(cli, &verify::Asked { target, keys: key, head, archive }, screen)
        }
        Verb::Head => verify::head(&Place::named(cli)?.directory, screen),
        Verb::Keys { verb } => keys::run(&Place::named(cli)?.directory, *verb, screen),
        Verb::Accesses(args) => accesses::run(cli, args, Timestamp::now(), screen),
        Verb::Erase { session } => erase::run(cli, session, screen),
        Verb::Prune(args) => prune::run(cli, args, Timestamp::now(), screen),
        Verb::Hold { verb } => hold::run(cli, verb, screen),
        Verb::Reindex => reindex::run(&Place::named(cli)?.directory, screen),
        Verb::Archive { arguments } => extra::run(cli, "archive", arguments),
        Verb::Query { arguments } => extra::run(cli, "query", arguments),
        Verb::Probe(args) => probe::run(args),
        Verb::Witness(args) if args.cost => witness::cost(args, screen),
        Verb::Witness(args) if args.here => witness::here(args, screen),
        Verb::Witness(_) => witness::run(&Place::named(cli)?.reader()?, screen),
    }
}

/// Runs a verb that needs rows. Where a gateway stops answering on the way, it runs again on the files: verbs
/// print nothing before they have all rows.
fn with_rows(
    places: &Places,
    verb: &'static str,
    through: Through,
    screen: &mut Screen<'_>,
    run: impl Fn(Library, &mut Screen<'_>) -> Result<Outcome, CliError>,
) -> Result<Outcome, CliError> {
    match run(Library::open(&places.list, verb, through, screen)?, screen) {
        Err(CliError::Asked(error)) => {
            place::remark(&*error, screen)?;
            run(Library::from_files(&places.list, verb, screen)?, screen)
        }
        done => done,
    }
}

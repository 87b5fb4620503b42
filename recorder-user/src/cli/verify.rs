//! `recorder verify`: is the record intact?

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{
    Cli, CliError, Outcome,
    library::{Found, Library, failed},
    place::{self, Place},
    places,
    screen::Screen,
    verb_args::ArchiveArgs,
    verify_told::tell,
};
use crate::{
    model::{AccessScope, Through},
    store::{
        self, Check, Head, HeadFound, Position, ReadHeadError, Scope,
        signing::{self, Trust},
    },
};

/// What was typed.
pub(super) struct Asked<'a> {
    pub(super) target: Option<&'a str>,
    pub(super) keys: &'a [PathBuf],
    pub(super) head: Option<&'a Path>,
    pub(super) archive: &'a ArchiveArgs,
}

/// What is to be checked.
struct Target {
    /// A store, a bundle, or the file of a segment.
    path: PathBuf,
    scope: Scope,
    /// For people.
    name: String,
}

/// Checks what was asked for, by default all of the stores that were named, and of the archive.
pub(super) fn run(
    cli: &Cli,
    asked: &Asked<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    if let Some(text) = asked.target {
        return check(target(cli, text, screen)?, asked, screen);
    }
    let mut outcome = Outcome::Fine;
    for place in Place::all_named(cli, asked.archive.archive.is_some())? {
        outcome = outcome.and(check(whole(place.directory, cli, screen)?, asked, screen)?);
    }
    let Some(url) = &asked.archive.archive else { return Ok(outcome) };
    let temporary = TempDir::new().map_err(CliError::Temporary)?;
    let stores = places::fetch(url, asked.archive.archive_cache.as_deref(), temporary.path())?;
    if stores.is_empty() {
        return Err(CliError::EmptyArchive { url: url.clone() });
    }
    for path in stores {
        let gateway = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{url} gateway {gateway}");
        outcome = outcome.and(check(Target { path, scope: Scope::Whole, name }, asked, screen)?);
    }
    Ok(outcome)
}

fn check(
    Target { path, scope, name }: Target,
    asked: &Asked<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let directory = store_of(&path);
    let head = known_head(&directory, asked.head, screen)?;
    let check = Check { trust: trust(&directory, asked.keys, screen)?, scope, head };
    let report = check.run(&path).map_err(|error| failed("verify", &directory, error))?;
    if report.is_ok() && !report.found {
        let what = match scope {
            Scope::Record(_) => "record",
            Scope::Exchange(_) => "exchange",
            Scope::Session(_) | Scope::Whole => "session",
        };
        return Err(CliError::NotFound { what, id: asked.target.unwrap_or_default().into() });
    }
    if let HeadFound::Unusable(why) = &report.head {
        match asked.head {
            Some(path) => {
                return Err(CliError::BadHead { path: path.into(), why: why.clone() });
            }
            None => writeln!(screen.err, "note: the head beside the keys says nothing: {why}")?,
        }
    }
    tell(&name, &report, screen)
}

/// Prints the head.
pub(super) fn head(store: &Path, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    let file = store::head_file(&signing::keys_directory(store));
    match Head::read(&file) {
        Ok(head) => {
            // It is JSON either way: what is kept elsewhere is what `verify --head` reads.
            screen.object(&head)?;
            Ok(Outcome::Fine)
        }
        Err(error) if is_missing(&error) => {
            Err(CliError::NotFound { what: "head", id: file.display().to_string() })
        }
        Err(error) => Err(failed("read the head of", store, error)),
    }
}

fn target(cli: &Cli, text: &str, screen: &mut Screen<'_>) -> Result<Target, CliError> {
    if Path::new(text).exists() {
        return whole(text.into(), cli, screen);
    }
    if text.contains(['/', '.']) {
        return Err(CliError::MissingStore(text.into()));
    }
    let place = Place::named(cli)?;
    let scope = scope(&place, text, screen)?;
    let name = match scope {
        Scope::Session(session) => format!("session {session}"),
        Scope::Exchange(exchange) => format!("exchange {exchange}"),
        Scope::Record(position) => format!("record {position}"),
        Scope::Whole => text.to_owned(),
    };
    Ok(Target { path: place.directory, scope, name })
}

fn whole(path: PathBuf, cli: &Cli, screen: &mut Screen<'_>) -> Result<Target, CliError> {
    if !path.exists() {
        return Err(CliError::MissingStore(path));
    }
    // What is no store is for the verifier to say.
    let place = Place::of(store_of(&path), cli)?;
    if let Ok(reader) = place.reader() {
        place.announce(&reader, VERB, AccessScope::default(), screen)?;
    }
    let name = path.display().to_string();
    Ok(Target { path, scope: Scope::Whole, name })
}

fn scope(place: &Place, text: &str, screen: &mut Screen<'_>) -> Result<Scope, CliError> {
    if let Some((segment, offset)) = text.split_once(':') {
        let position = segment.parse().ok().zip(offset.parse().ok());
        let (segment, offset) = position.ok_or_else(|| CliError::BadId { id: text.into() })?;
        place.announce(&place.reader()?, VERB, AccessScope::default(), screen)?;
        return Ok(Scope::Record(Position { segment, offset }));
    }
    let found = match Library::open(std::slice::from_ref(place), VERB, Through::Files, screen)?
        .find(text)
    {
        Err(CliError::Asked(error)) => {
            place::remark(&*error, screen)?;
            Library::from_files(std::slice::from_ref(place), VERB, screen)?.find(text)
        }
        found => found,
    };
    match found {
        Ok(Found::Session(whole)) => Ok(Scope::Session(whole.view.session)),
        Ok(Found::Exchange(row)) => Ok(Scope::Exchange(row.exchange)),
        // Damage may have hidden the row of a whole id.
        Err(CliError::NotFound { what, id }) => {
            let Ok(session) = text.parse() else {
                return Err(CliError::NotFound { what, id });
            };
            let sessions = AccessScope { sessions: vec![session], ..AccessScope::default() };
            place.announce(&place.reader()?, VERB, sessions, screen)?;
            Ok(Scope::Session(session))
        }
        Err(error) => Err(error),
    }
}

/// The store that a segment's file is part of.
fn store_of(path: &Path) -> PathBuf {
    if !path.is_file() {
        return path.to_owned();
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let segments = path.parent().unwrap_or(&path);
    segments.parent().unwrap_or(segments).to_owned()
}

/// The keys that were named, else those that lie beside the store, else those in the bundle.
fn trust(directory: &Path, keys: &[PathBuf], screen: &mut Screen<'_>) -> Result<Trust, CliError> {
    let bad = |error| failed("read the public keys of", directory, error);
    if !keys.is_empty() {
        let keys = keys.iter().map(|path| signing::read_public_key(path));
        return keys.collect::<Result<_, _>>().map(Trust::new).map_err(bad);
    }
    let beside = signing::trusted(&signing::keys_directory(directory)).map_err(bad)?;
    if !beside.is_empty() {
        return Ok(beside);
    }
    let inside = signing::public_keys_in(&directory.join(store::KEYS_DIRECTORY)).map_err(bad)?;
    if !inside.is_empty() {
        writeln!(
            screen.err,
            "note: the public keys came with the bundle: name one that you trust with --key"
        )?;
    }
    Ok(Trust::new(inside))
}

/// The head that was named, else the one beside the keys, if it can be read.
fn known_head(
    directory: &Path,
    named: Option<&Path>,
    screen: &mut Screen<'_>,
) -> Result<Option<(Head, PathBuf)>, CliError> {
    if let Some(path) = named {
        let head =
            Head::read(path).map_err(|error| failed("read the head of", directory, error))?;
        return Ok(Some((head, path.to_owned())));
    }
    let path = store::head_file(&signing::keys_directory(directory));
    match Head::read(&path) {
        Ok(head) => Ok(Some((head, path))),
        Err(error) => {
            if !is_missing(&error) {
                writeln!(
                    screen.err,
                    "note: {error}: whether the store was rolled back is unknown"
                )?;
            }
            Ok(None)
        }
    }
}

fn is_missing(error: &ReadHeadError) -> bool {
    matches!(error, ReadHeadError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

const VERB: &str = "verify";

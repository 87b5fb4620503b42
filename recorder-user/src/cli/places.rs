//! The stores that a verb reads as one: those that were named, and what an archive has.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tempfile::TempDir;

use super::{
    Cli, CliError, extra, library::failed, place::Place, screen::Screen, verb_args::ArchiveArgs,
};
use crate::{
    model::{AccessScope, GatewayId},
    store::{self, Reader},
};

/// Stores, and what holds fetched ones as long as they are read.
pub(super) struct Places {
    pub(super) list: Vec<Place>,
    _fetched: Option<TempDir>,
}

impl Places {
    /// The one store that was named.
    pub(super) fn one(cli: &Cli) -> Result<Self, CliError> {
        Ok(Self { list: vec![Place::named(cli)?], _fetched: None })
    }

    /// All stores that were named, and those of the archive's gateways. A gateway that is in both is read as one
    /// store: what the archive has from there, the rest from here.
    pub(super) fn named(
        cli: &Cli,
        archive: &ArchiveArgs,
        verb: &str,
        screen: &mut Screen<'_>,
    ) -> Result<Self, CliError> {
        let mut list = Place::all_named(cli, archive.archive.is_some())?;
        let Some(url) = &archive.archive else {
            distinct(&list)?;
            return Ok(Self { list, _fetched: None });
        };
        let directory = TempDir::new().map_err(CliError::Temporary)?;
        let mut stores = fetch(url, archive.archive_cache.as_deref(), directory.path())?;
        for place in &mut list {
            let reader = place.reader()?;
            let Some(gateway) = written_by(&reader, &place.directory)? else { continue };
            let name = gateway.to_string();
            let Some(at) = stores.iter().position(|store| store.ends_with(&name)) else { continue };
            // Its rows are not asked for, so it would not know that they are read.
            place.announce(&reader, verb, AccessScope::default(), screen)?;
            let joined = directory.path().join("joined").join(&name);
            store::join_copies(&stores.remove(at), &place.directory, &joined)
                .map_err(|error| failed("join with the archive", &place.directory, error))?;
            *place = Place::at(joined);
        }
        list.extend(stores.into_iter().map(Place::at));
        if list.is_empty() {
            return Err(CliError::EmptyArchive { url: url.clone() });
        }
        distinct(&list)?;
        Ok(Self { list, _fetched: Some(directory) })
    }
}

/// Fetches the stores of an archive's gateways with the binary that can: into the cache, which keeps them, or a
/// directory that goes with this process.
pub(super) fn fetch(
    url: &str,
    cache: Option<&Path>,
    temporary: &Path,
) -> Result<Vec<PathBuf>, CliError> {
    #[derive(Deserialize)]
    struct Line {
        store: PathBuf,
    }
    let into = cache.map_or_else(|| temporary.join("fetched"), Path::to_path_buf);
    let arguments = ["--json", "fetch", "--archive", url, "--into"].map(Into::into);
    let told = extra::ask("archive", arguments.into_iter().chain([into.into_os_string()]))?;
    let lines = told.lines().map(serde_json::from_str::<Line>);
    let stores = lines.map(|line| line.map(|line| line.store)).collect::<Result<Vec<_>, _>>();
    stores.map_err(|_| CliError::ExtraFailed { verb: "archive" })
}

/// Whether each gateway is there once: copies of one store would tell everything twice.
fn distinct(places: &[Place]) -> Result<(), CliError> {
    let mut gateways = BTreeSet::new();
    for place in places.iter().filter(|_| places.len() > 1) {
        if let Some(gateway) = written_by(&place.reader()?, &place.directory)?
            && !gateways.insert(gateway)
        {
            return Err(CliError::SameGateway { directory: place.directory.clone(), gateway });
        }
    }
    Ok(())
}

fn written_by(reader: &Reader, directory: &Path) -> Result<Option<GatewayId>, CliError> {
    reader.gateway().map_err(|error| failed("read", directory, error))
}

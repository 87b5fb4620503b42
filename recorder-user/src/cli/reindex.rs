//! `recorder reindex`: the index again, from the segments.

use std::path::Path;

use serde::Serialize;

use super::{CliError, Outcome, library::failed, screen::Screen, units};
use crate::store;

#[derive(Serialize)]
struct ReindexLine {
    sessions: u64,
    exchanges: u64,
}

/// Deletes the index and builds it again.
pub(super) fn run(directory: &Path, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    let built = store::reindex(directory).map_err(|error| failed("reindex", directory, error))?;
    if screen.json {
        screen.object(&ReindexLine { sessions: built.sessions, exchanges: built.exchanges })?;
    } else {
        screen.line(&format!(
            "indexed {}, {}",
            units::count(built.sessions, "session"),
            units::count(built.exchanges, "exchange"),
        ))?;
    }
    Ok(Outcome::Fine)
}

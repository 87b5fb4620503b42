//! `recorder erase`: makes one session unreadable for good.

use std::os::unix::fs::MetadataExt as _;

use serde::Serialize;

use super::{
    Cli, CliError, Outcome,
    library::{Found, Library, failed},
    place::Place,
    screen::Screen,
};
use crate::{
    model::{LocalUser, SessionId, Through},
    store::{encryption::Erased, erase_session},
};

#[derive(Serialize)]
struct EraseLine {
    session: SessionId,
    erased: &'static str,
}

/// Erases a session, if the store was encrypted when it was recorded.
pub(super) fn run(cli: &Cli, id: &str, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    let place = Place::named(cli)?;
    // A whole id needs no row: what is erased has none.
    let session = match id.parse() {
        Ok(session) => session,
        Err(_) => {
            match Library::open(std::slice::from_ref(&place), "erase", Through::Files, screen)?
                .find(id)?
            {
                Found::Session(whole) => whole.view.session,
                Found::Exchange(_) => {
                    return Err(CliError::NotFound { what: "session", id: id.into() });
                }
            }
        }
    };
    let store = &place.directory;
    let uid = std::fs::metadata("/proc/self").map(|metadata| metadata.uid()).unwrap_or_default();
    let by = LocalUser { uid, user: std::env::var("USER").ok(), pid: None };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| failed("erase in", store, error))?;
    let erased = runtime
        .block_on(erase_session(store, session, by))
        .map_err(|error| failed("erase in", store, error))?;
    let (word, text) = match erased {
        Erased::Now => ("now", "is erased: its key is destroyed"),
        Erased::Before => ("before", "was erased before"),
        Erased::NoKey => {
            return Err(CliError::NotFound { what: "key of an encrypted session", id: id.into() });
        }
    };
    if screen.json {
        screen.object(&EraseLine { session, erased: word })?;
    } else {
        screen.line(&format!("session {session} {text}"))?;
    }
    Ok(Outcome::Fine)
}

//! `recorder keys`: what signs the store.

use std::path::Path;

use serde::Serialize;

use super::{
    CliError, Outcome,
    library::failed,
    screen::{Ink, Screen},
    verb_args::KeysVerb,
};
use crate::store::signing::{self, KeyInfo, keys_directory};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewKeyLine {
    key: signing::KeyId,
}

/// Lists, prints or exchanges keys.
pub(super) fn run(
    store: &Path,
    verb: Option<KeysVerb>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let keys = keys_directory(store);
    let bad = |error| failed("use the keys of", store, error);
    match verb {
        None => list(&signing::list(&keys).map_err(bad)?, screen),
        Some(KeysVerb::Export) => {
            let known = signing::list(&keys).map_err(bad)?;
            let Some(current) = known.iter().find(|key| key.current) else {
                return Err(CliError::NotFound { what: "signing key", id: "current".into() });
            };
            let public = signing::read_public_key(&current.public_key_file).map_err(bad)?;
            screen.line(public.to_pem().trim_end())?;
            Ok(Outcome::Fine)
        }
        Some(KeysVerb::Rotate) => {
            let key = signing::rotate(&keys).map_err(bad)?.id();
            if screen.json {
                screen.object(&NewKeyLine { key })?;
            } else {
                screen.line(&format!("key {key} signs from the next segment on"))?;
            }
            Ok(Outcome::Fine)
        }
    }
}

fn list(keys: &[KeyInfo], screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    if screen.json {
        for key in keys {
            screen.object(key)?;
        }
        return Ok(Outcome::Fine);
    }
    let row = |key: &KeyInfo| {
        let by = key.endorsed_by.map_or_else(|| "-".into(), |by| by.to_string());
        let (word, ink) = if key.current { ("signs", Ink::Good) } else { ("former", Ink::Plain) };
        vec![
            (key.key.to_string(), Ink::Plain),
            (word.to_owned(), ink),
            (by, Ink::Plain),
            (key.public_key_file.display().to_string(), Ink::Plain),
        ]
    };
    let header = ["KEY", "STATE", "ENDORSED BY", "PUBLIC KEY"];
    screen.table(&header, keys.iter().map(row).collect())?;
    Ok(Outcome::Fine)
}

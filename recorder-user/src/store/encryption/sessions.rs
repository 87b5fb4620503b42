//! A key per session, so that one session can be erased.
//!
//! `KEYS/sessions/XX/SESSION.key` is the wrapped key, XX the last two digits of the session's id. An erased session
//! has `SESSION.erased` instead, so that a reader can tell it from a key that was lost.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{EncryptionError, Key, SESSION, Vault, failed};
use crate::{model::SessionId, store::disk};

/// What became of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erased {
    /// The key is gone.
    Now,
    /// It was gone before.
    Before,
    /// The session never had a key: it was recorded without encryption.
    NoKey,
}

/// Erases a session: its key is overwritten and removed. What copies of the keys directory hold is not reached.
///
/// # Errors
/// When a file could not be changed; then the key may still be there.
pub fn erase(keys: &Path, session: SessionId) -> Result<Erased, EncryptionError> {
    let (path, erased) = (path(keys, session), path(keys, session).with_extension(ERASED));
    if !path.exists() {
        return Ok(if erased.exists() { Erased::Before } else { Erased::NoKey });
    }
    // The mark first: after a crash in between, the next attempt goes on.
    disk::replace_file(&erased, b"").map_err(failed("write", &erased))?;
    let bytes = fs::metadata(&path).map_err(failed("read", &path))?.len();
    let file = fs::OpenOptions::new().write(true).open(&path).map_err(failed("open", &path))?;
    let zeros = vec![0; usize::try_from(bytes).unwrap_or_default()];
    let done = disk::DiskFile::write_all_at(&file, &zeros, 0).and_then(|()| file.sync_all());
    done.map_err(failed("overwrite", &path))?;
    fs::remove_file(&path).map_err(failed("remove", &path))?;
    let directory = path.parent().unwrap_or(keys);
    disk::sync_directory(directory).map_err(failed("make durable", directory))?;
    Ok(Erased::Now)
}

impl Vault {
    /// A session's key, made if it has none. It is durable when this returns.
    pub(super) fn session_key_or_new(&self, session: SessionId) -> Result<Key, EncryptionError> {
        if let Some(key) = self.session_key(session)? {
            return Ok(key);
        }
        let path = path(&self.keys, session);
        let directory = path.parent().unwrap_or(&self.keys);
        let (key, new) = (Key::random()?, !directory.exists());
        disk::make_directory(directory).map_err(failed("make", directory))?;
        if new {
            let above = directory.parent().unwrap_or(&self.keys);
            disk::sync_directory(above).map_err(failed("make durable", above))?;
        }
        let wrapped = key.wrapped(&self.store_key, SESSION)?;
        disk::replace_file(&path, &wrapped).map_err(failed("write", &path))?;
        Ok(key)
    }

    /// A session's key; none if it has none, or none any more.
    pub(super) fn session_key(&self, session: SessionId) -> Result<Option<Key>, EncryptionError> {
        let path = path(&self.keys, session);
        match fs::read(&path) {
            Ok(wrapped) => Key::unwrap(&wrapped, &self.store_key, SESSION).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Whether a session was erased.
    pub(super) fn is_erased(&self, session: SessionId) -> bool {
        path(&self.keys, session).with_extension(ERASED).exists()
    }
}

fn path(keys: &Path, session: SessionId) -> PathBuf {
    let name = session.to_string();
    let shelf = name.get(name.len().saturating_sub(2)..).unwrap_or_default();
    keys.join("sessions").join(shelf).join(format!("{name}.key"))
}

const ERASED: &str = "erased";

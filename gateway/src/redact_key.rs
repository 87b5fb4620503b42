//! The key of the digests that stand for redacted values: made once, readable by its owner alone, beside
//! the store and never in it, so that a copy of the store cannot be searched for guessed secrets.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use recorder_user::{redact::RedactKey, store::signing::keys_directory};

/// The key of this store, from `DIRECTORY.keys/redact.key`.
///
/// # Errors
/// When it can be neither read nor made, or others can read it.
pub fn load_or_create(store: &Path) -> anyhow::Result<Arc<RedactKey>> {
    let path = path_of(store);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(&path).with_context(|| format!("make the redaction key {}", path.display()))?
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("read the redaction key {}", path.display()));
        }
    };
    let mode = fs::metadata(&path)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{} can be read by others: chmod 0400 {0}", path.display());
    }
    let Ok(key) = <[u8; 32]>::try_from(bytes) else {
        bail!(
            "{} does not hold 32 bytes: restore it, or remove it to have a new one",
            path.display()
        );
    };
    Ok(Arc::new(RedactKey::from_bytes(key)))
}

fn path_of(store: &Path) -> PathBuf {
    keys_directory(store).join("redact.key")
}

fn create(path: &Path) -> io::Result<Vec<u8>> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut key = vec![0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(&key)?;
    file.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_refused_when_others_can_read_it() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = directory.path().join("store");
        load_or_create(&store).expect("made");
        let first = fs::read(path_of(&store)).expect("there");
        load_or_create(&store).expect("read");
        assert_eq!(fs::read(path_of(&store)).expect("there"), first);
        fs::set_permissions(path_of(&store), fs::Permissions::from_mode(0o444)).expect("chmod");
        assert!(load_or_create(&store).is_err());
    }
}

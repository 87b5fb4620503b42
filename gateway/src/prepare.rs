//! `gateway prepare`: gives the store to the user that the gateway will run as. For root, before a gateway that
//! is not: an init container of a pod whose store is a directory of the node.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, lchown},
    path::{Path, PathBuf},
};

use recorder_user::store::signing::keys_directory;

/// The store could not be given away.
#[derive(Debug, thiserror::Error)]
#[error("cannot give {} to user {user}: run this as root, with CAP_CHOWN", path.display())]
pub struct PrepareError {
    path: PathBuf,
    user: u32,
    #[source]
    source: io::Error,
}

/// Makes the store's directory and that of its keys where they are missing, and gives them and all that is in
/// them to this user. What the user has already is left alone.
///
/// # Errors
/// With the path that could not be made or given away.
pub fn prepare(store: &Path, user: u32, group: u32) -> Result<(), PrepareError> {
    for directory in [store.to_owned(), keys_directory(store)] {
        let failed = |path: &Path, source| PrepareError { path: path.to_owned(), user, source };
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(&directory, error));
            }
            _ => {}
        }
        give(&directory, user, group).map_err(|(path, source)| failed(&path, source))?;
    }
    Ok(())
}

/// What is in a directory goes before the directory: without CAP_DAC_OVERRIDE nobody gets in afterwards.
fn give(path: &Path, user: u32, group: u32) -> Result<(), (PathBuf, io::Error)> {
    let here = |error| (path.to_owned(), error);
    let found = fs::symlink_metadata(path).map_err(here)?;
    if found.uid() == user {
        return Ok(());
    }
    if found.is_dir() {
        for entry in fs::read_dir(path).map_err(here)? {
            give(&entry.map_err(here)?.path(), user, group)?;
        }
    }
    lchown(path, Some(user), Some(group)).map_err(here)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_a_user_has_already_needs_no_right() {
        let home = tempfile::tempdir().expect("a directory");
        let own = fs::metadata(home.path()).expect("it is there");
        let store = home.path().join("store");
        prepare(&store, own.uid(), own.gid()).expect("it is ours");
        for directory in [store.clone(), keys_directory(&store)] {
            let mode = fs::metadata(&directory).expect("it was made").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", directory.display());
        }
        prepare(&store, own.uid(), own.gid()).expect("again");
        let error = prepare(&home.path().join("no/store"), own.uid(), own.gid());
        assert!(error.expect_err("no parent").to_string().contains("no/store"));
    }
}

//! Two copies of one store, read as one.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use super::{open::LOCK_FILE, scan, signing};

/// Makes a directory that reads as one store: it has the segments of `archived`, and those of `local` that are not
/// there, as links. Keys and lock are those of `local`, so that what is encrypted can be read, and a segment that is
/// being written is known as such.
///
/// # Errors
/// When a directory cannot be read, or the new one not be made.
pub fn join_copies(archived: &Path, local: &Path, into: &Path) -> io::Result<()> {
    let (archived, local) = (archived.canonicalize()?, local.canonicalize()?);
    fs::create_dir_all(scan::segments_directory(into))?;
    for copy in [&archived, &local] {
        for (segment, path) in scan::list_segments(copy).map_err(io::Error::other)? {
            match symlink(path, scan::segment_path(into, segment)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => linked?,
            }
        }
    }
    symlink(signing::keys_directory(&local), signing::keys_directory(into))?;
    symlink(local.join(LOCK_FILE), into.join(LOCK_FILE))
}

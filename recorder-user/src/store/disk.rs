//! The file operations that durability rests on, behind a trait so that tests can make them fail.
//!
//! Whatever changes a segment, the gateway's id or their directories goes this way, at a start as in
//! operation. Reading does not: what a page cache shows is what any reader sees. The index does not either:
//! it can be deleted at any time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

pub use super::space::Space;
use super::space::{allocate, space};

/// One file that is written.
pub trait DiskFile: Send + Sync {
    /// Writes all bytes at this offset: one `pwrite(2)` when the kernel takes them at once.
    ///
    /// # Errors
    /// When the bytes could not all be written; some may have been.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills the buffer from this offset.
    ///
    /// # Errors
    /// When the file is shorter or cannot be read.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// When it cannot be told.
    fn length(&self) -> io::Result<u64>;

    /// Sets space aside for the file up to this length, which it need not have yet: a write up to there finds
    /// room. What is set aside behind the end is given back by [`DiskFile::set_len`].
    ///
    /// # Errors
    /// When there is not so much room, or, as [`io::ErrorKind::Unsupported`], where the file system has no such
    /// operation.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Cuts the file to this length.
    ///
    /// # Errors
    /// When the file could not be cut.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// `fdatasync(2)`: returns when the bytes and the length are on stable storage, in a file that
    /// somebody can find.
    ///
    /// # Errors
    /// When that is not certain. A second call proves nothing about bytes that the first was about.
    fn sync_data(&self) -> io::Result<()>;
}

/// The operations on directories. What they change may be lost in a power cut until
/// [`Disk::sync_directory`] has returned.
pub trait Disk: Send + Sync {
    /// Makes a directory, and those above it, for its owner alone. It may exist.
    ///
    /// # Errors
    /// When it cannot be made.
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes a file that did not exist, readable and writable by its owner alone.
    ///
    /// # Errors
    /// When it exists or cannot be made.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that exists, to read and write it.
    ///
    /// # Errors
    /// When it does not exist or may not be written.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in the same directory; what had that name is gone.
    ///
    /// # Errors
    /// When the file keeps its name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it is still there, or was not there.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of a directory durable.
    ///
    /// # Errors
    /// When that is not certain.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// How much space there is for an ordinary user; none if it cannot be told.
    fn space(&self, path: &Path) -> Option<Space>;
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl DiskFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        allocate(self, bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Self::set_len(self, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)?;
        // A deleted file takes bytes as before, and they are gone with the process.
        if self.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was deleted"));
        }
        Ok(())
    }
}

impl Disk for SystemDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        make_directory(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(create_new(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        sync_directory(path)
    }

    fn space(&self, path: &Path) -> Option<Space> {
        space(path)
    }
}

/// Makes a directory on the real disk, and those above it, for its owner alone.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a file on the real disk that did not exist, for its owner alone.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the entries of a directory on the real disk durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Renames and makes the new name durable.
pub(super) fn publish(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk.rename(from, to)?;
    to.parent().map_or(Ok(()), |directory| disk.sync_directory(directory))
}

/// Removes a file that may not be there.
pub(super) fn remove_any(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// As [`replace_on`], on the real disk.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_on(&SystemDisk, path, bytes)
}

/// Replaces a small file as a whole: after a power cut either the old or the new text is there.
pub(super) fn replace_on(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    remove_any(disk, &new)?;
    let file = disk.create(&new)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    publish(disk, &new, path)
}

/// Makes sure that a directory and those above it survive a power cut, as far as they may be read: what
/// this user made is readable.
pub(super) fn sync_path(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    for directory in path.ancestors() {
        match disk.sync_directory(directory) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

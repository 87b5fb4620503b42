//! The few file operations that durability rests on, behind a trait so that tests can make them fail.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

/// One segment file that is being written.
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

    /// Cuts the file to this length.
    ///
    /// # Errors
    /// When the file could not be cut.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// `fdatasync(2)`: returns when the bytes and the length are on stable storage.
    ///
    /// # Errors
    /// When that is not certain. A second call proves nothing about bytes that the first was about.
    fn sync_data(&self) -> io::Result<()>;
}

/// The directory operations that the writer needs.
pub trait Disk: Send + Sync {
    /// Makes a file that did not exist, readable and writable by its owner alone.
    ///
    /// # Errors
    /// When it exists or cannot be made.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file its final name and makes the directory's entry durable.
    ///
    /// # Errors
    /// When the name may not survive a power cut.
    fn publish(&self, from: &Path, to: &Path) -> io::Result<()>;
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

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Self::set_len(self, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}

impl Disk for SystemDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(create_new(path)?))
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        publish(from, to)
    }
}

/// Makes a directory, and those above it, for its owner alone.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a file that did not exist, for its owner alone.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the entries of a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Renames and makes the new name durable.
pub(super) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), sync_directory)
}

/// Replaces a small file as a whole: after a power cut either the old or the new text is there.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = create_new(&new)?;
    DiskFile::write_all_at(&file, bytes, 0)?;
    file.sync_all()?;
    publish(&new, path)
}

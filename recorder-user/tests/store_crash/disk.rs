//! A disk whose page cache can be lost.
//!
//! What processes see is a real directory, so that readers, `verify` and recovery's own reading run as
//! they are; whatever changes it goes past here. Beside it stands what is on the platter. A power cut
//! puts the real directory into a state that the platter may have.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use recorder_user::store::{Disk, DiskFile, Space};

use crate::{
    chance::Chance,
    plan::{EIO, End, Fate, Lie, Operation, Plan},
    platter::{Inode, Names, Node},
};

/// The disk; clones are the same one.
#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<World>>);

pub(crate) struct World {
    /// The store's directory, and the one above all of it, which was there before.
    store: PathBuf,
    root: PathBuf,
    inodes: Vec<Inode>,
    names: Names,
    plan: Plan,
    lie: Option<Lie>,
    /// The life has ended: nothing works and nothing changes.
    pub(crate) over: bool,
    /// Whether the store is being opened.
    pub(crate) starting: bool,
    /// Flushes of segments that failed in this life, and segments that got their name durably.
    pub(crate) failed_flushes: u64,
    pub(crate) proven: u64,
    /// What no store may do.
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
}

struct SimulatedFile {
    disk: SimulatedDisk,
    inode: usize,
}

impl SimulatedDisk {
    pub(crate) fn new(root: &Path, store: &Path, plan: Plan, lie: Option<Lie>) -> Self {
        Self(Arc::new(Mutex::new(World {
            store: store.to_owned(),
            root: root.to_owned(),
            inodes: Vec::new(),
            names: Names::default(),
            plan,
            lie,
            over: false,
            starting: false,
            failed_flushes: 0,
            proven: 0,
            violations: Vec::new(),
            trace: Vec::new(),
        })))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile { disk: self.clone(), inode })
    }
}

impl World {
    /// Another process begins, on what the one before has left.
    pub(crate) fn begin(&mut self, plan: Plan) {
        self.plan = plan;
        (self.over, self.failed_flushes) = (false, 0);
    }

    /// How many operations failed in this life.
    pub(crate) fn faults(&self) -> u64 {
        self.plan.failed
    }

    /// The process ends, now or where the plan had it; gives how.
    pub(crate) fn end(&mut self, chance: &mut Chance) -> End {
        self.over = true;
        let end = self.plan.end;
        self.trace.push(format!("{end:?}"));
        if end == End::Power {
            for inode in &mut self.inodes {
                inode.cut(chance);
            }
            self.names.cut(chance);
            self.show();
        }
        end
    }

    /// Makes the real directory what the cache says.
    fn show(&mut self) {
        let made = self.store.ancestors().take_while(|above| *above != self.root);
        for gone in made.filter(|made| !self.names.cached.contains_key(*made)) {
            clear(gone, &|_| false);
            if gone.exists() {
                real(fs::remove_dir(gone));
            }
        }
        clear(&self.store, &|path| LOCAL.iter().any(|local| path.ends_with(local)));
        for (path, node) in &self.names.cached {
            match node {
                Node::Directory => real(fs::create_dir_all(path)),
                Node::File(inode) => real(fs::write(path, &self.inodes[*inode].cached)),
            }
        }
    }

    fn next(&mut self, operation: Operation, what: &str) -> io::Result<(Fate, Chance)> {
        if self.over {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let (fate, chance) = self.plan.next(operation);
        self.over = fate == Fate::Ends;
        self.trace.push(format!("{operation:?} {what}: {fate:?}"));
        Ok((fate, chance))
    }

    /// For operations that happen as a whole or not at all.
    fn whole(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        let (fate, mut chance) = self.next(operation, &name(path))?;
        match fate {
            Fate::Works => Ok(()),
            Fate::Fails(error) => Err(io::Error::from_raw_os_error(error)),
            // Done, but nobody hears of it.
            Fate::Ends if chance.one_in(2) => Ok(()),
            Fate::Ends => Err(io::Error::from_raw_os_error(EIO)),
        }
    }

    fn path_of(&self, inode: usize) -> Option<PathBuf> {
        let mut names = self.names.cached.iter();
        names.find(|(_, node)| **node == Node::File(inode)).map(|(path, _)| path.clone())
    }

    fn inode_of(&self, path: &Path) -> io::Result<usize> {
        match self.names.cached.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Writes what processes see of a file into the real one.
    fn refresh(&self, inode: usize) {
        if let Some(path) = self.path_of(inode) {
            real(fs::write(path, &self.inodes[inode].cached));
        }
    }

    fn violation(&mut self, text: String) {
        self.trace.push(format!("VIOLATION {text}"));
        self.violations.push(text);
    }

    /// What was once written is not overwritten with anything else.
    fn check_write(&mut self, inode: usize, at: usize, bytes: &[u8]) {
        let cached = &self.inodes[inode].cached;
        let there = cached.get(at..).unwrap_or_default();
        if there.iter().zip(bytes).any(|(before, after)| before != after) {
            let path = self.path_of(inode).unwrap_or_default();
            self.violation(format!("{} was overwritten at {at}", name(&path)));
        }
    }

    /// Recovery cuts nothing off a segment that is not kept aside, durably.
    fn check_cut(&mut self, inode: usize, length: usize) {
        let Some(path) = self.path_of(inode) else { return };
        let tail = self.inodes[inode].cached.get(length..).unwrap_or_default();
        let kept = tail.is_empty()
            || self.names.platter.iter().any(|(path, node)| match node {
                Node::File(inode) => is(path, "torn") && self.inodes[*inode].platter == tail,
                Node::Directory => false,
            });
        if self.starting && is(&path, "seg") && !kept {
            self.violation(format!("{} lost its tail at {length}", name(&path)));
        }
    }

    /// Only a segment that holds a header alone may go, and nothing that is kept aside.
    fn check_remove(&mut self, path: &Path) {
        let written = self.inode_of(path).map_or(0, |inode| self.inodes[inode].writes);
        if is(path, "torn") || (is(path, "seg") && written > 1) {
            self.violation(format!("{} was removed", name(path)));
        }
    }
}

impl Disk for SimulatedDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let above: Vec<_> = path.ancestors().take_while(|above| *above != world.root).collect();
        for directory in above.into_iter().rev() {
            if world.names.cached.contains_key(directory) {
                continue;
            }
            world.whole(Operation::MakeDirectory, directory)?;
            real(fs::create_dir(directory));
            world.names.add(directory, Node::Directory);
            if *directory == world.store {
                // No index can be there: it is not what is tested here, and it takes long to make.
                real(fs::write(directory.join("index"), ""));
            }
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        if world.names.cached.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.whole(Operation::Create, path)?;
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.names.add(path, Node::File(inode));
        world.refresh(inode);
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        let inode = world.inode_of(path)?;
        world.whole(Operation::Open, path)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.inode_of(from)?;
        world.whole(Operation::Rename, to)?;
        if world.names.cached.contains_key(to) {
            world.violation(format!("{} was renamed over", name(to)));
        }
        world.names.rename(from, to);
        real(fs::rename(from, to));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.inode_of(path)?;
        world.whole(Operation::Remove, path)?;
        world.check_remove(path);
        world.names.remove(path);
        real(fs::remove_file(path));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        if !path.starts_with(&world.root) {
            return Ok(());
        }
        world.whole(Operation::SyncDirectory, path)?;
        if world.lie != Some(Lie::SyncDirectory) {
            world.names.sync(path);
        }
        world.proven += u64::from(path.ends_with("segments"));
        Ok(())
    }

    fn space(&self, _path: &Path) -> Option<Space> {
        None
    }
}

impl DiskFile for SimulatedFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let at = usize::try_from(offset).expect("small");
        let what = format!("{} {at}+{}", world.file_name(self.inode), bytes.len());
        let (fate, mut chance) = world.next(Operation::Write, &what)?;
        // A write that is cut short has written a part.
        let written = match fate {
            Fate::Works if world.lie == Some(Lie::Write) => return Ok(()),
            Fate::Works => bytes,
            Fate::Fails(_) | Fate::Ends => &bytes[..chance.index(bytes.len() + 1)],
        };
        world.check_write(self.inode, at, written);
        world.inodes[self.inode].write(at, written);
        world.refresh(self.inode);
        match fate {
            Fate::Works => Ok(()),
            Fate::Fails(error) => Err(io::Error::from_raw_os_error(error)),
            Fate::Ends => Err(io::Error::from_raw_os_error(EIO)),
        }
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let path = world.path_of(self.inode).unwrap_or_default();
        world.whole(Operation::Read, &path)?;
        let at = usize::try_from(offset).expect("small");
        let cached = &world.inodes[self.inode].cached;
        let found = cached.get(at..at + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let world = self.disk.world();
        Ok(world.inodes[self.inode].cached.len() as u64)
    }

    /// Changes nothing that anybody reads, now or after a power cut.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let what = format!("{} {bytes}", world.file_name(self.inode));
        match world.next(Operation::Allocate, &what)?.0 {
            Fate::Works => Ok(()),
            Fate::Fails(error) => Err(io::Error::from_raw_os_error(error)),
            Fate::Ends => Err(io::Error::from_raw_os_error(EIO)),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let path = world.path_of(self.inode).unwrap_or_default();
        world.whole(Operation::Cut, &path)?;
        let length = usize::try_from(bytes).expect("small");
        world.check_cut(self.inode, length);
        world.inodes[self.inode].set_len(length);
        world.refresh(self.inode);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let what = world.file_name(self.inode);
        let (fate, mut chance) = world.next(Operation::Sync, &what)?;
        let evict = chance.one_in(2);
        match fate {
            Fate::Works => {
                if world.lie != Some(Lie::Sync) {
                    world.inodes[self.inode].sync();
                }
                Ok(())
            }
            Fate::Fails(error) => {
                world.inodes[self.inode].fail_to_sync(&mut chance, evict);
                world.refresh(self.inode);
                world.failed_flushes += 1;
                Err(io::Error::from_raw_os_error(error))
            }
            Fate::Ends => {
                if chance.one_in(2) {
                    world.inodes[self.inode].sync();
                }
                Err(io::Error::from_raw_os_error(EIO))
            }
        }
    }
}

impl World {
    fn file_name(&self, inode: usize) -> String {
        self.path_of(inode).map_or_else(|| "a removed file".into(), |path| name(&path))
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The real directory is only a picture: it must not fail.
fn real<T>(result: io::Result<T>) -> T {
    result.expect("the real directory works")
}

/// Removes what is in a directory, but for what is to stay.
fn clear(directory: &Path, stays: &dyn Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = real(entry).path();
        if stays(&path) {
            continue;
        }
        if path.is_dir() { real(fs::remove_dir_all(path)) } else { real(fs::remove_file(path)) }
    }
}

/// Files of the store that nothing depends on after a power cut; they are not simulated.
const LOCAL: [&str; 3] = ["lock", "index.lock", "index"];

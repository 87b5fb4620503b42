//! What a start finds and puts in order: a torn tail is kept aside, the last segment is sealed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Clock,
    disk::{self, Disk, DiskFile},
    format::{self, ChainHash, Encoder, Previous, SealedBy, VERSION},
    salvage,
    scan::{self, Scan, ScanError},
    signing::{KeyId, SigningKey},
};
use crate::model::{GatewayId, SegmentId};

/// The segments could not be put in order.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A segment could not be read.
    #[error("read the segments")]
    Scan(#[from] ScanError),
    /// A file operation failed.
    #[error("{step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A tail that was cut off a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub segment: SegmentId,
    /// Where it was cut: the end of its last valid record.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// Where they are kept.
    pub kept: PathBuf,
}

/// The segments in order.
pub(super) struct Found {
    pub(super) segments: usize,
    pub(super) last: Option<Previous>,
    /// Whether the last segment was sealed by an orderly stop.
    pub(super) clean: bool,
    pub(super) torn: Vec<TornTail>,
    /// The gateway that wrote the last segment.
    pub(super) gateway: Option<GatewayId>,
}

/// Puts the segments in order. What was not acknowledged is cut; nothing is deleted.
pub(super) fn recover(
    disk: &dyn Disk,
    store: &Path,
    clock: &Clock,
    key: &Arc<SigningKey>,
) -> Result<Found, RecoverError> {
    // A name that is seen need not be durable, and the next segment's may become so before it.
    let directory = scan::segments_directory(store);
    disk.sync_directory(&directory).map_err(failed("flush", &directory))?;
    let mut segments = scan::list_segments(store)?;
    let mut torn = Vec::new();
    let last = loop {
        let Some((id, path)) = segments.last() else { break None };
        match Scan::open(path) {
            Ok((scan, header)) => break Some((*id, scan, header)),
            Err(error @ ScanError::Io { .. }) => return Err(error.into()),
            // Not even a header: no record in it can be read. It is kept under a name that is passed over.
            Err(_) => torn.push(set_aside(disk, *id, path)?),
        }
        segments.pop();
    };
    for pair in segments.windows(2) {
        if let [(id, path), (_, next)] = pair {
            torn.extend(mend(disk, *id, path, next)?);
        }
    }
    let Some((id, scan, header)) = last else {
        return Ok(Found { segments: 0, last: None, clean: torn.is_empty(), torn, gateway: None });
    };
    let end = seal_last(disk, id, scan, clock, (key, header.key), &mut torn)?;
    Ok(Found {
        segments: segments.len(),
        last: Some(Previous { segment: id, hash: end.hash }),
        clean: end.by == SealedBy::Close && torn.is_empty(),
        torn,
        gateway: Some(header.gateway),
    })
}

/// After a failed disk a segment may be longer than its successor says; what is beyond was refused.
fn mend(
    disk: &dyn Disk,
    id: SegmentId,
    path: &Path,
    next: &Path,
) -> Result<Option<TornTail>, RecoverError> {
    let Ok((_, header)) = Scan::open(next) else { return Ok(None) };
    let Some(previous) = header.previous.filter(|previous| previous.segment == id) else {
        return Ok(None);
    };
    let file = File::open(path).map_err(failed("open", path))?;
    let bytes = length(&file, path)?;
    if scan::hash_before(&file, bytes).is_ok_and(|hash| hash == previous.hash) {
        return Ok(None);
    }
    // Damage within is not mended: `verify` reports it.
    let Ok((mut scan, _)) = Scan::open(path) else { return Ok(None) };
    loop {
        if scan.mark().hash == previous.hash {
            let offset = scan.mark().offset;
            return if offset < bytes { cut(disk, id, path, offset).map(Some) } else { Ok(None) };
        }
        if !matches!(scan.next(), Ok(Some(_))) {
            return Ok(None);
        }
    }
}

struct End {
    hash: ChainHash,
    by: SealedBy,
}

/// Makes the last segment durable, and seals it if it is not.
///
/// What is read here may be in the page cache alone, and even count as clean: the process before may have
/// died with a flush that failed. The next segment relies on it, so it is written again.
fn seal_last(
    disk: &dyn Disk,
    id: SegmentId,
    mut scan: Scan,
    clock: &Clock,
    (key, begun_with): (&Arc<SigningKey>, Option<KeyId>),
    torn: &mut Vec<TornTail>,
) -> Result<End, RecoverError> {
    let mut by = SealedBy::Recovery;
    let first = scan.mark();
    let mut last = first;
    loop {
        let before = scan.mark();
        match scan.next() {
            Ok(Some(record)) if scan.is_sealed() => {
                last = before;
                let seal = record.payload().ok();
                let seal = seal.and_then(|payload| format::read_seal(scan.version(), &payload));
                by = seal.map_or(by, |read| read.seal.by);
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error @ ScanError::Io { .. }) => return Err(error.into()),
            Err(_) => {
                torn.push(cut(disk, id, scan.path(), scan.mark().offset)?);
                break;
            }
        }
    }
    let path = scan.path();
    let file = open(disk, path)?;
    // Before an orderly end everything but the seal was flushed.
    let from = if by == SealedBy::Close { last } else { first };
    let again = salvage::rewrite(&*file, scan.version(), from, scan.mark().offset);
    let again = again.and_then(|end| {
        let changed = || io::Error::other("it changed while it was read");
        (end == scan.mark()).then_some(()).ok_or_else(changed)?;
        file.sync_data()
    });
    again.map_err(failed("make durable", path))?;
    // A segment of an older version stays without a seal: its successor says where it ends.
    if scan.is_sealed() || scan.version() != VERSION {
        return Ok(End { hash: scan.mark().hash, by });
    }
    let torn_bytes = torn.iter().filter(|tail| tail.segment == id).map(|tail| tail.bytes).sum();
    let from = scan.mark().offset;
    let mut encoder = Encoder::resume(id, scan.mark(), Arc::clone(key));
    let mut seal = Vec::new();
    if begun_with != Some(key.id()) {
        encoder.endorsements(&mut seal);
    }
    encoder.seal(clock(), SealedBy::Recovery, torn_bytes, &mut seal);
    // What the last run set aside goes back first.
    let sealed = file.set_len(from).and_then(|()| file.write_all_at(&seal, from));
    let sealed = sealed.and_then(|()| file.sync_data());
    sealed.map_err(failed("seal", path))?;
    Ok(End { hash: encoder.mark().hash, by: SealedBy::Recovery })
}

/// Keeps the tail in a file of its own, then cuts it off.
fn cut(disk: &dyn Disk, id: SegmentId, path: &Path, offset: u64) -> Result<TornTail, RecoverError> {
    let file = open(disk, path)?;
    let end = length(&*file, path)?;
    let kept = unused(path, offset);
    let copied = disk.create(&kept).and_then(|copy| {
        copy_range(&*file, &*copy, offset, end)?;
        copy.sync_data()?;
        kept.parent().map_or(Ok(()), |directory| disk.sync_directory(directory))
    });
    copied.map_err(failed("keep the torn tail in", &kept))?;
    let done = file.set_len(offset).and_then(|()| file.sync_data());
    done.map_err(failed("cut the torn tail off", path))?;
    Ok(TornTail { segment: id, offset, bytes: end.saturating_sub(offset), kept })
}

fn copy_range(from: &dyn DiskFile, to: &dyn DiskFile, begin: u64, end: u64) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut at = begin;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        bytes.resize(left.min(COPY_BYTES), 0);
        from.read_exact_at(&mut bytes, at)?;
        to.write_all_at(&bytes, at - begin)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

fn set_aside(disk: &dyn Disk, id: SegmentId, path: &Path) -> Result<TornTail, RecoverError> {
    let kept = unused(path, 0);
    let file = open(disk, path)?;
    let bytes = length(&*file, path)?;
    file.sync_data().map_err(failed("flush", path))?;
    disk::publish(disk, path, &kept).map_err(failed("set aside", path))?;
    Ok(TornTail { segment: id, offset: 0, bytes, kept })
}

/// `ID.OFFSET.torn`, with a number if an earlier start kept one of the same place.
fn unused(path: &Path, offset: u64) -> PathBuf {
    let mut kept = path.with_extension(format!("{offset}.{TORN_EXTENSION}"));
    let mut number = 1;
    while kept.exists() {
        kept = path.with_extension(format!("{offset}-{number}.{TORN_EXTENSION}"));
        number += 1;
    }
    kept
}

fn open(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn DiskFile>, RecoverError> {
    disk.open(path).map_err(failed("open", path))
}

fn length(file: &dyn DiskFile, path: &Path) -> Result<u64, RecoverError> {
    file.length().map_err(failed("read the length of", path))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    let path = path.to_owned();
    move |source| RecoverError::Io { step, path, source }
}

/// Whether no start has come as far as to write the gateway's id.
pub(super) fn is_first_start(store: &Path) -> bool {
    !gateway_path(store).exists()
}

/// The gateway's id: made once. A store that lost the file takes it from its segments.
pub(super) fn gateway_id(
    disk: &dyn Disk,
    store: &Path,
    found: Option<GatewayId>,
) -> Result<GatewayId, RecoverError> {
    let path = gateway_path(store);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|error| {
            failed("read the id in", &path)(io::Error::new(io::ErrorKind::InvalidData, error))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = found.unwrap_or_default();
            let written = disk::replace_on(disk, &path, format!("{id}\n").as_bytes());
            written.map_err(failed("write", &path))?;
            Ok(id)
        }
        Err(error) => Err(failed("read", &path)(error)),
    }
}

fn gateway_path(store: &Path) -> PathBuf {
    store.join("gateway")
}

const TORN_EXTENSION: &str = "torn";
/// How much of a tail is copied at once.
const COPY_BYTES: usize = 1 << 20;

//! What a start finds and puts in order: a torn tail is kept aside, the last segment is sealed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Clock, disk,
    format::{self, ChainHash, Encoder, Previous, SealedBy, VERSION},
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
    store: &Path,
    clock: &Clock,
    key: &Arc<SigningKey>,
) -> Result<Found, RecoverError> {
    let mut segments = scan::list_segments(store)?;
    let mut torn = Vec::new();
    let last = loop {
        let Some((id, path)) = segments.last() else { break None };
        match Scan::open(path) {
            Ok((scan, header)) => break Some((*id, scan, header)),
            Err(error @ ScanError::Io { .. }) => return Err(error.into()),
            // Not even a header: no record in it can be read. It is kept under a name that is passed over.
            Err(_) => torn.push(set_aside(*id, path)?),
        }
        segments.pop();
    };
    for pair in segments.windows(2) {
        if let [(id, path), (_, next)] = pair {
            torn.extend(mend(*id, path, next)?);
        }
    }
    let Some((id, scan, header)) = last else {
        return Ok(Found { segments: 0, last: None, clean: torn.is_empty(), torn, gateway: None });
    };
    let end = seal_last(id, scan, clock, (key, header.key), &mut torn)?;
    Ok(Found {
        segments: segments.len(),
        last: Some(Previous { segment: id, hash: end.hash }),
        clean: end.by == SealedBy::Close && torn.is_empty(),
        torn,
        gateway: Some(header.gateway),
    })
}

/// After a failed disk a segment may be longer than its successor says; what is beyond was refused.
fn mend(id: SegmentId, path: &Path, next: &Path) -> Result<Option<TornTail>, RecoverError> {
    let Ok((_, header)) = Scan::open(next) else { return Ok(None) };
    let Some(previous) = header.previous.filter(|previous| previous.segment == id) else {
        return Ok(None);
    };
    let file = open(path)?;
    let bytes = length(&file, path)?;
    if scan::hash_before(&file, bytes).is_ok_and(|hash| hash == previous.hash) {
        return Ok(None);
    }
    // Damage within is not mended: `verify` reports it.
    let Ok((mut scan, _)) = Scan::open(path) else { return Ok(None) };
    loop {
        if scan.mark().hash == previous.hash {
            let offset = scan.mark().offset;
            return if offset < bytes { cut(id, path, offset).map(Some) } else { Ok(None) };
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

fn seal_last(
    id: SegmentId,
    mut scan: Scan,
    clock: &Clock,
    (key, begun_with): (&Arc<SigningKey>, Option<KeyId>),
    torn: &mut Vec<TornTail>,
) -> Result<End, RecoverError> {
    let mut by = SealedBy::Recovery;
    loop {
        match scan.next() {
            Ok(Some(record)) if scan.is_sealed() => {
                let seal = record.payload().ok();
                let seal = seal.and_then(|payload| format::read_seal(scan.version(), &payload));
                by = seal.map_or(by, |read| read.seal.by);
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error @ ScanError::Io { .. }) => return Err(error.into()),
            Err(_) => {
                torn.push(cut(id, scan.path(), scan.mark().offset)?);
                break;
            }
        }
    }
    // A segment of an older version stays without a seal: its successor says where it ends.
    if scan.is_sealed() || scan.version() != VERSION {
        return Ok(End { hash: scan.mark().hash, by });
    }
    let path = scan.path();
    let torn_bytes = torn.iter().filter(|tail| tail.segment == id).map(|tail| tail.bytes).sum();
    let from = scan.mark().offset;
    let mut encoder = Encoder::resume(id, scan.mark(), Arc::clone(key));
    let mut seal = Vec::new();
    if begun_with != Some(key.id()) {
        encoder.endorsements(&mut seal);
    }
    encoder.seal(clock(), SealedBy::Recovery, torn_bytes, &mut seal);
    let file = open(path)?;
    let sealed = file.write_all_at(&seal, from).and_then(|()| file.sync_data());
    sealed.map_err(failed("seal", path))?;
    Ok(End { hash: encoder.mark().hash, by: SealedBy::Recovery })
}

/// Keeps the tail in a file of its own, then cuts it off.
fn cut(id: SegmentId, path: &Path, offset: u64) -> Result<TornTail, RecoverError> {
    let mut file = open(path)?;
    let bytes = length(&file, path)?.saturating_sub(offset);
    let kept = unused(path, offset);
    let copied = (|| {
        let mut copy = disk::create_new(&kept)?;
        file.seek(SeekFrom::Start(offset))?;
        io::copy(&mut (&mut file).take(bytes), &mut copy)?;
        copy.sync_all()?;
        kept.parent().map_or(Ok(()), disk::sync_directory)
    })();
    copied.map_err(failed("keep the torn tail in", &kept))?;
    let done = file.set_len(offset).and_then(|()| file.sync_data());
    done.map_err(failed("cut the torn tail off", path))?;
    Ok(TornTail { segment: id, offset, bytes, kept })
}

fn set_aside(id: SegmentId, path: &Path) -> Result<TornTail, RecoverError> {
    let kept = unused(path, 0);
    let bytes = length(&open(path)?, path)?;
    disk::publish(path, &kept).map_err(failed("set aside", path))?;
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

fn open(path: &Path) -> Result<File, RecoverError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(failed("open", path))
}

fn length(file: &File, path: &Path) -> Result<u64, RecoverError> {
    file.metadata().map(|metadata| metadata.len()).map_err(failed("read the length of", path))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    let path = path.to_owned();
    move |source| RecoverError::Io { step, path, source }
}

/// The gateway's id: made once. A store that lost the file takes it from its segments.
pub(super) fn gateway_id(
    store: &Path,
    found: Option<GatewayId>,
) -> Result<GatewayId, RecoverError> {
    let path = store.join("gateway");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|error| {
            failed("read the id in", &path)(io::Error::new(io::ErrorKind::InvalidData, error))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = found.unwrap_or_default();
            let written = disk::replace_file(&path, format!("{id}\n").as_bytes());
            written.map_err(failed("write", &path))?;
            Ok(id)
        }
        Err(error) => Err(failed("read", &path)(error)),
    }
}

const TORN_EXTENSION: &str = "torn";

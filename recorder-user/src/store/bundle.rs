//! One session's records in a directory of their own, which an auditor can check without us.
//!
//! The segments are copied with every record of others replaced by what is left of a deleted one: its digest.
//! Chain, checkpoints and seals stay what they were, so that a bundle proves of each record in it what the store
//! proves. What it does not prove is that nothing of the session was withheld: whoever made it chose.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    disk::{create_new, make_directory, sync_directory},
    format::{ChainHash, DecodePayloadError, HASH_BYTES, Mark, Previous},
    queue::chain,
    rows::Position,
    scan::{self, RawRecord, Scan, ScanError, segment_path, segments_directory},
    signing::PublicKey,
    stub::{copy_range, write_stub},
};
use crate::model::{ExchangeId, GatewayId, Record, SegmentId, SessionId, Timestamp};

/// What a bundle says of itself, in `bundle.json`. Nobody signs it: it is a list, not a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The session whose records are in it.
    pub session: SessionId,
    /// The gateway that recorded it.
    pub gateway: GatewayId,
    /// When the bundle was made.
    pub made: Timestamp,
    /// The program that made it, with its version.
    pub by: String,
    /// Records in it.
    pub records: u64,
    /// Records of others, of which only the digest is in it.
    pub withheld: u64,
    /// The segments, in order.
    pub segments: Vec<BundledSegment>,
}

/// A segment of a bundle. The order of the first three fields is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundledSegment {
    /// The segment.
    pub segment: SegmentId,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its last hash.
    pub hash: ChainHash,
    /// Records that are there.
    pub records: u64,
    /// Records of which only the digest is there.
    pub withheld: u64,
}

impl Manifest {
    /// Whether it names a segment with this end.
    pub(super) fn names(&self, end: Previous, bytes: u64) -> bool {
        let says = |entry: &BundledSegment| (entry.segment, entry.hash, entry.bytes);
        self.segments.iter().any(|entry| says(entry) == (end.segment, end.hash, bytes))
    }
}

/// A bundle could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The store could not be read, or is damaged.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A record is intact but cannot be understood, so that nobody knows whose it is.
    #[error("the record at {position} cannot be understood: {why}")]
    Record {
        /// Where it begins.
        position: Position,
        /// Why not.
        why: String,
    },
    /// The chain of a segment of version 1 breaks where a record is withheld.
    #[error(
        "segment {0} has version 1 of the format, in which no record can be withheld: hand over the whole store"
    )]
    Version1(SegmentId),
    /// There is something already.
    #[error("{} exists and is not empty", .0.display())]
    Exists(PathBuf),
    /// A file could not be read or written.
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

/// Whose bundle it is to be.
#[derive(Clone, Debug)]
pub struct BundleOf {
    /// The session.
    pub session: SessionId,
    /// Where its first record is: nothing of it comes before.
    pub first: Position,
    /// When the bundle is made.
    pub made: Timestamp,
    /// The program that makes it.
    pub by: String,
    /// The keys to check it with. They prove nothing to whoever has no key of their own.
    pub keys: Vec<PublicKey>,
}

/// Copies a session's records into a new directory. The store is only read, and may be written meanwhile.
///
/// # Errors
/// When the store is damaged, has segments in which nothing can be withheld, or the directory cannot be written.
pub fn export_bundle(store: &Path, of: &BundleOf, to: &Path) -> Result<Manifest, BundleError> {
    let chosen = choose(store, of)?;
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(BundleError::Exists(to.to_owned()));
    }
    let (keys, segments) = (to.join(KEYS_DIRECTORY), segments_directory(to));
    for directory in [to, &keys, &segments] {
        make_directory(directory).map_err(failed("make", directory))?;
    }
    let mut manifest = Manifest {
        session: of.session,
        gateway: chosen.gateway,
        made: of.made,
        by: of.by.clone(),
        records: 0,
        withheld: 0,
        segments: Vec::new(),
    };
    for segment in &chosen.segments {
        let copied = segment.copy(store, to)?;
        manifest.records += copied.records;
        manifest.withheld += copied.withheld;
        manifest.segments.push(copied);
    }
    for key in &of.keys {
        write(&keys.join(format!("{}.pub", key.id())), key.to_pem().as_bytes())?;
    }
    write(&to.join("README.txt"), README.as_bytes())?;
    let json = serde_json::to_vec(&manifest).expect("plain data");
    write(&to.join(MANIFEST_FILE), &json)?;
    for directory in [&segments, &keys, to] {
        sync_directory(directory).map_err(failed("flush", directory))?;
    }
    Ok(manifest)
}

/// What a bundle says of itself; none in a store. The error names the file.
pub(super) fn manifest(directory: &Path) -> Result<Option<Manifest>, (PathBuf, io::Error)> {
    let path = directory.join(MANIFEST_FILE);
    match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|error| (path, error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((path, error)),
    }
}

/// The segments that hold records of the session, and which records of them are kept.
struct Chosen {
    gateway: GatewayId,
    segments: Vec<ChosenSegment>,
}

struct ChosenSegment {
    segment: SegmentId,
    keep: HashSet<u64>,
    end: Mark,
}

fn choose(store: &Path, of: &BundleOf) -> Result<Chosen, BundleError> {
    let mut segments = scan::list_segments(store)?;
    segments.retain(|(segment, _)| *segment >= of.first.segment);
    let last = segments.last().map(|(segment, _)| *segment);
    let mut chosen = Chosen { gateway: GatewayId::from_bytes([0; 16]), segments: Vec::new() };
    let mut exchanges = HashSet::new();
    for (segment, path) in segments {
        let (mut scan, header) = Scan::open(&path)?;
        chosen.gateway = header.gateway;
        let (mut keep, mut is_in, mut all) = (HashSet::new(), false, true);
        loop {
            let raw = match scan.next() {
                Ok(Some(raw)) => raw,
                Ok(None) => break,
                // A gateway is writing it.
                Err(error) if error.is_incomplete() && Some(segment) == last => break,
                Err(error) => return Err(error.into()),
            };
            let (offset, base) = (raw.offset, raw.base());
            let position = Position { segment, offset };
            match whose(raw, of.session, &mut exchanges)
                .map_err(|why| BundleError::Record { position, why })?
            {
                Whose::Session => {
                    is_in = true;
                    keep.extend(base.into_iter().chain([offset]));
                }
                Whose::Everybody => drop(keep.insert(offset)),
                Whose::Others => all = false,
            }
        }
        if is_in {
            if scan.version() == 1 && !all {
                return Err(BundleError::Version1(segment));
            }
            chosen.segments.push(ChosenSegment { segment, keep, end: scan.mark() });
        }
    }
    Ok(chosen)
}

enum Whose {
    Session,
    /// Needed to check anything, or about the gateway alone.
    Everybody,
    Others,
}

/// Whose a record is. What this version does not know may be about others.
fn whose(
    raw: RawRecord,
    session: SessionId,
    exchanges: &mut HashSet<ExchangeId>,
) -> Result<Whose, String> {
    // It already is a stub, it proves what is here, or it is too short to be replaced by its digest.
    let is_signed = raw.kind.is_signed();
    if raw.is_pruned() || is_signed || raw.payload_bytes() < HASH_BYTES {
        return Ok(Whose::Everybody);
    }
    let record = match raw.decode() {
        // Nobody can read it any more: what is left of it stays with the store.
        Err(DecodePayloadError::Erased) => return Ok(Whose::Others),
        record => record.map_err(|error| chain(&error))?,
    };
    let is_its = match &record {
        Record::GatewayStarted(_)
        | Record::GatewayStopped(_)
        | Record::UnrecordedSpan(_)
        | Record::WitnessChanged(_) => return Ok(Whose::Everybody),
        Record::SessionOpened(opened) => opened.session == session,
        Record::SessionChanged(changed) => changed.session == session,
        Record::ConnectionClosed(closed) => closed.sessions.contains(&session),
        Record::ConnectionSeen(seen) => seen.session == session,
        Record::ExchangeOpened(opened) if opened.session == Some(session) => {
            exchanges.insert(opened.exchange)
        }
        other => other.exchange().is_some_and(|exchange| exchanges.contains(&exchange)),
    };
    Ok(if is_its { Whose::Session } else { Whose::Others })
}

impl ChosenSegment {
    fn copy(&self, store: &Path, to: &Path) -> Result<BundledSegment, BundleError> {
        let (from, to) = (segment_path(store, self.segment), segment_path(to, self.segment));
        let (mut scan, _) = Scan::open(&from)?;
        let source = File::open(&from).map_err(failed("read", &from))?;
        let copy = create_new(&to).map_err(failed("make", &to))?;
        let mut copied = BundledSegment {
            segment: self.segment,
            bytes: self.end.offset,
            hash: self.end.hash,
            records: 0,
            withheld: 0,
        };
        let written = failed("write", &to);
        let done = (|| {
            copy_range(&source, &copy, 0, scan.mark().offset)?;
            while scan.mark().offset < self.end.offset {
                let Some(raw) = scan.next().map_err(io::Error::other)? else { break };
                if self.keep.contains(&raw.offset) {
                    copy_range(&source, &copy, raw.offset, raw.end)?;
                    copied.records += u64::from(!raw.is_pruned());
                    copied.withheld += u64::from(raw.is_pruned());
                } else {
                    write_stub(&source, &copy, &raw)?;
                    copied.withheld += 1;
                }
            }
            // Where the file ends in a hole its length has to be said.
            copy.set_len(self.end.offset)?;
            copy.sync_all()
        })();
        done.map_err(written)?;
        Ok(copied)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    let written = create_new(path).and_then(|file| {
        file.write_all_at(bytes, 0)?;
        file.sync_all()
    });
    written.map_err(failed("write", path))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { step, path, source }
}

/// Where a bundle's public keys lie in it.
pub const KEYS_DIRECTORY: &str = "keys";
pub(super) const MANIFEST_FILE: &str = "bundle.json";

const README: &str = "\
This directory holds what a Decklog gateway recorded of one session (see bundle.json).

To check it:

    recorder verify DIRECTORY --key decklog.pub

with a public key that you got from somebody you trust, not from this directory: the keys in keys/ came with the
records. Exit code 0 means that every record in it was written by the gateway that holds the key, in this order, and
unchanged; 1 names the first file and offset where that is not so. recorder-verify.rs, in the sources of Decklog, does the
same in 300 lines, and docs/format.md says how to write your own.

Records of other sessions are withheld: of each only its digest and its length are here, which the chain of hashes needs.
What the bundle cannot prove is that nothing of this session was withheld: for that, ask for the whole store.

To read it:

    recorder --store DIRECTORY ls
    recorder --store DIRECTORY replay SESSION
    recorder --store DIRECTORY search --json
";

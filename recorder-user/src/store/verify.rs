//! Checks a store without trusting it: every byte of every segment, the links between them, the bodies.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    format::{
        self, ChainHash, Checkpoint, DecodePayloadError, DeletedRecords, DeletedSegments, Header, Mark,
        Previous, Signed, Tombstone,
    },
    lock,
    open::LOCK_FILE,
    queue::chain,
    retention::{self, Gone, Missed},
    rows::Position,
    scan::{self, RawRecord, Scan, ScanError},
    signing::{self, Endorsement, KeyId, Signature, Trust},
};
use crate::model::{
    BodyFacts, Chunk, Direction, Ending, ExchangeId, ExchangeSettled, GatewayId, Kind, Record,
    SegmentId, SessionId,
};

/// A store could not be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no store.
    #[error("{} is not a store: it has no directory `segments`", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// There is no such session.
    #[error("there is no session {0} in the store")]
    NoSession(SessionId),
    /// A file could not be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// A segment that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentReport {
    /// Its file.
    pub file: PathBuf,
    /// The segment.
    pub segment: SegmentId,
    /// Good records in it.
    pub records: u64,
    /// Good bytes in it.
    pub bytes: u64,
    /// Whether it was ended in order; the one that a gateway writes is not.
    pub sealed: bool,
    /// The key that signs it; none in segments of version 1.
    pub key: Option<KeyId>,
}

/// The first thing that is not as a writer wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstBad {
    /// The file.
    pub file: PathBuf,
    /// Offset of the record's first byte; 0 for the header.
    pub offset: u64,
    /// What is wrong.
    pub why: String,
}

/// What was checked, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// The segments in order, up to the first bad one.
    pub segments: Vec<SegmentReport>,
    /// Good records.
    pub records: u64,
    /// Whether signatures were checked: a public key was at hand.
    pub signatures_checked: bool,
    /// Good signatures of checkpoints and seals.
    pub signatures: u64,
    /// Good records after the last good signature: whoever can write the store could have put others there.
    pub unsigned_records: u64,
    /// Records of which only the digest is left, as tombstones say.
    pub pruned_records: u64,
    /// Runs of segments that are gone, as tombstones say.
    pub deleted_segments: Vec<DeletedSegments>,
    /// What tombstones say of the deleted records, by segment.
    pub deleted_records: Vec<DeletedRecords>,
    /// Bodies that could not be compared, since some of it was deleted.
    pub partial_bodies: u64,
    /// Records of sessions that were erased: their key is gone.
    pub erased_records: u64,
    /// Encrypted records whose key is not here: their chain was checked, their bodies were not.
    pub locked_records: u64,
    /// Bodies whose stored bytes were compared with the hash in their outcome.
    pub bodies: u64,
    /// Whether a gateway was writing meanwhile.
    pub live: bool,
    /// None if everything is as it was written.
    pub first_bad: Option<FirstBad>,
}

impl VerifyReport {
    /// Whether the store verifies.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.first_bad.is_none()
    }
}

/// Checks a whole store. Signatures are checked if there is a key to trust.
///
/// # Errors
/// When it cannot be read. What is wrong with it is in the report.
pub fn verify(store: &Path, trust: Trust) -> Result<VerifyReport, VerifyError> {
    check(store, &trust, None)
}

/// Checks the chain that holds a session, which is the store's, and the bodies of its exchanges.
///
/// # Errors
/// When the store cannot be read or has no such session.
pub fn verify_session(
    store: &Path,
    trust: Trust,
    session: SessionId,
) -> Result<VerifyReport, VerifyError> {
    let report = check(store, &trust, Some(session))?;
    if report.is_ok() && !has_session(store, session) {
        return Err(VerifyError::NoSession(session));
    }
    Ok(report)
}

/// A gateway may delete while its store is checked: what is missing then, was said so after the tombstones were
/// read.
fn check(
    store: &Path,
    trust: &Trust,
    session: Option<SessionId>,
) -> Result<VerifyReport, VerifyError> {
    let mut tombstones = None;
    loop {
        let verifier = Verifier::new(store, trust.clone(), session)?;
        let known = verifier.gone.tombstones.len();
        let report = verifier.run();
        let sound = report.as_ref().is_ok_and(|report| report.is_ok() || !report.live);
        if sound || tombstones.replace(known) == Some(known) {
            return report;
        }
    }
}

fn has_session(store: &Path, session: SessionId) -> bool {
    super::Reader::on(store).records().flatten().any(|stored| match stored.record {
        Record::SessionOpened(opened) => opened.session == session,
        _ => false,
    })
}

struct Verifier {
    store: PathBuf,
    session: Option<SessionId>,
    trust: Trust,
    report: VerifyReport,
    gateway: Option<GatewayId>,
    before: Option<(Previous, PathBuf, u64)>,
    gone: Gone,
    /// What is missing in the segment that is read, and where the first of it is.
    missed: Missed,
    first_missed: Option<u64>,
    bodies: Bodies,
}

/// Why the check ended early.
enum Stop {
    Bad(FirstBad),
    Error(VerifyError),
}

impl Verifier {
    fn new(store: &Path, trust: Trust, session: Option<SessionId>) -> Result<Self, VerifyError> {
        if !scan::segments_directory(store).is_dir() {
            return Err(VerifyError::NotAStore { path: store.to_owned() });
        }
        let live = lock::is_held(&store.join(LOCK_FILE));
        Ok(Self {
            store: store.to_owned(),
            session,
            report: VerifyReport {
                live,
                signatures_checked: !trust.is_empty(),
                ..VerifyReport::default()
            },
            gone: Gone::read(store, &trust)?,
            trust,
            gateway: None,
            before: None,
            missed: Missed::default(),
            first_missed: None,
            bodies: Bodies::default(),
        })
    }

    fn run(mut self) -> Result<VerifyReport, VerifyError> {
        let segments = scan::list_segments(&self.store)?;
        for (i, (segment, path)) in segments.iter().enumerate() {
            match self.segment(*segment, path, i + 1 == segments.len()) {
                Ok(()) => {}
                Err(Stop::Bad(bad)) => {
                    self.report.first_bad = Some(bad);
                    break;
                }
                Err(Stop::Error(error)) => return Err(error),
            }
        }
        (self.report.bodies, self.report.partial_bodies) =
            (self.bodies.checked, self.bodies.partial);
        Ok(self.report)
    }

    fn segment(&mut self, segment: SegmentId, path: &Path, is_last: bool) -> Result<(), Stop> {
        let (mut scan, header) = Scan::open(path).map_err(stop)?;
        self.linked(segment, path, &header)?;
        let key = header.key;
        let result = self.records(segment, &mut scan, is_last);
        let result = result.and_then(|()| self.deleted_records(segment, path));
        let mark = scan.mark();
        self.report.records += mark.records;
        self.report.segments.push(SegmentReport {
            file: path.to_owned(),
            segment,
            records: mark.records,
            bytes: mark.offset,
            sealed: scan.is_sealed(),
            key,
        });
        self.before = Some((Previous { segment, hash: mark.hash }, path.to_owned(), mark.offset));
        result
    }

    /// Whether the segment is the one that follows.
    fn linked(&mut self, segment: SegmentId, path: &Path, header: &Header) -> Result<(), Stop> {
        let bad = |why: String| Err(Stop::Bad(FirstBad { file: path.to_owned(), offset: 0, why }));
        if header.segment != segment {
            return bad(format!("the file's name is not its segment's id {}", header.segment));
        }
        if *self.gateway.get_or_insert(header.gateway) != header.gateway {
            return bad(format!("it was written by another gateway, {}", header.gateway));
        }
        let before = self.before.as_ref().map(|(before, ..)| *before);
        let Some(previous) = header.previous else {
            return match before {
                None => Ok(()),
                Some(before) => bad(format!(
                    "it says it is the first, but {} comes before it",
                    before.segment
                )),
            };
        };
        if let Some((before, file, offset)) = &self.before
            && before.segment == previous.segment
            && before.hash != previous.hash
        {
            let why = format!("it does not end as segment {segment} says that it does");
            return Err(Stop::Bad(FirstBad { file: file.clone(), offset: *offset, why }));
        }
        let Some(deleted) = self.gone.bridge(previous, before) else {
            return bad(format!("the segment before it, {}, is missing", previous.segment));
        };
        self.bodies.holes += deleted.len() as u64;
        self.report.deleted_segments.extend(deleted);
        Ok(())
    }

    /// Whether a tombstone says exactly what is missing in a segment.
    fn deleted_records(&mut self, segment: SegmentId, path: &Path) -> Result<(), Stop> {
        let missed = std::mem::take(&mut self.missed);
        let first = self.first_missed.take();
        let (Some(missing), Some(offset)) = (missed.sum(), first) else { return Ok(()) };
        let Some(said) = self.gone.says(segment, missing) else {
            let why = "records were deleted, and no tombstone says just that".into();
            return Err(Stop::Bad(FirstBad { file: path.to_owned(), offset, why }));
        };
        self.report.pruned_records += missing.count;
        self.report.deleted_records.push(said.clone());
        Ok(())
    }

    fn records(&mut self, segment: SegmentId, scan: &mut Scan, is_last: bool) -> Result<(), Stop> {
        let mut give_up = None;
        loop {
            let before = scan.mark();
            match scan.next() {
                Ok(None) => return Ok(()),
                Ok(Some(raw)) => {
                    give_up = None;
                    let at = Position { segment, offset: raw.offset };
                    if let Err(why) = self.record(at, raw, before, scan.version()) {
                        let file = scan.path().to_owned();
                        return Err(Stop::Bad(FirstBad { file, offset: at.offset, why }));
                    }
                }
                // A gateway may be in the middle of a write, but not for long.
                Err(error) if error.is_incomplete() && is_last && self.report.live => {
                    let give_up = *give_up.get_or_insert(Instant::now() + WRITE_PATIENCE);
                    if Instant::now() >= give_up {
                        return Err(stop(error));
                    }
                    thread::sleep(WRITE_RETRY);
                }
                Err(error) => return Err(stop(error)),
            }
        }
    }

    fn record(
        &mut self,
        at: Position,
        raw: RawRecord,
        before: Mark,
        version: u16,
    ) -> Result<(), String> {
        self.report.unsigned_records += 1;
        if let Some(digest) = raw.digest_left() {
            self.first_missed.get_or_insert(at.offset);
            self.missed.add(&digest, raw.stored_bytes());
            self.bodies.holes += 1;
            return Ok(());
        }
        match raw.kind {
            Kind::TOMBSTONE => return self.tombstone(&raw),
            Kind::SEAL => return self.seal(at, &raw, before, version),
            Kind::CHECKPOINT => return self.checkpoint(at, &raw, before),
            Kind::KEY => return self.key(&raw),
            _ => {}
        }
        let record = match raw.decode() {
            Ok(record) => record,
            Err(DecodePayloadError::Erased) => {
                self.report.erased_records += 1;
                return Ok(());
            }
            Err(DecodePayloadError::Decryption) => {
                self.report.locked_records += 1;
                return Ok(());
            }
            Err(error) => return Err(chain(&error)),
        };
        match record {
            // What an earlier run left open gets no more bytes.
            Record::GatewayStarted(_) => self.bodies.clear(),
            Record::ExchangeOpened(opened) => {
                let asked = self.session.is_none() || opened.session == self.session;
                self.bodies.opened(opened.exchange, asked);
            }
            Record::Chunk(chunk) => self.bodies.chunk(&chunk),
            Record::ExchangeSettled(settled) => return self.bodies.settled(&settled),
            _ => {}
        }
        Ok(())
    }

    fn seal(&mut self, at: Position, raw: &RawRecord, before: Mark, v: u16) -> Result<(), String> {
        let payload = raw.payload().map_err(|error| chain(&error))?;
        let read = format::read_seal(v, &payload).ok_or("the seal is not of the expected form")?;
        let seal = read.seal;
        if (seal.segment, seal.records, seal.bytes, seal.hash) != says(at, before) {
            return Err("the seal's totals are wrong".into());
        }
        match (read.signed, seal.key) {
            (Some((json, signature)), Some(key)) => {
                self.signature(key, signing::SEAL, &json, &signature)
            }
            (None, _) => Ok(()),
            (Some(_), None) => Err("the seal does not say which key signs it".into()),
        }
    }

    fn checkpoint(&mut self, at: Position, raw: &RawRecord, before: Mark) -> Result<(), String> {
        let payload = raw.payload().map_err(|error| chain(&error))?;
        let signed = Signed::<Checkpoint>::read(&payload);
        let signed = signed.ok_or("the checkpoint is not of the expected form")?;
        let says_so = &signed.statement;
        let totals = (says_so.segment, says_so.records, says_so.bytes, says_so.hash);
        if totals != says(at, before) {
            return Err("the checkpoint's totals are wrong".into());
        }
        self.signature(says_so.key, signing::CHECKPOINT, &signed.json, &signed.signature)
    }

    fn tombstone(&mut self, raw: &RawRecord) -> Result<(), String> {
        let payload = raw.payload().map_err(|error| chain(&error))?;
        let signed = Signed::<Tombstone>::read(&payload);
        let signed = signed.ok_or("the tombstone is not of the expected form")?;
        let key = signed.statement.key.ok_or("the tombstone does not say which key signs it")?;
        if !self.report.signatures_checked {
            return Ok(());
        }
        if self.trust.key(key).is_none() {
            return Err(format!("it is signed by key {key}, which is not trusted"));
        }
        if !retention::is_trusted(&self.trust, &signed) {
            return Err(format!("the signature is not that of key {key}"));
        }
        Ok(())
    }

    fn key(&mut self, raw: &RawRecord) -> Result<(), String> {
        let payload = raw.payload().map_err(|error| chain(&error))?;
        let endorsement = Endorsement::read(&payload);
        let endorsement = endorsement.ok_or("the key's endorsement is not of the expected form")?;
        if self.trust.endorse(&endorsement) {
            Ok(())
        } else {
            let (id, by) = (endorsement.public.id(), endorsement.by);
            Err(format!("key {by} did not sign the endorsement of key {id}"))
        }
    }

    fn signature(
        &mut self,
        key: KeyId,
        domain: &str,
        statement: &[u8],
        signature: &Signature,
    ) -> Result<(), String> {
        if !self.report.signatures_checked {
            return Ok(());
        }
        let Some(public) = self.trust.key(key) else {
            return Err(format!("it is signed by key {key}, which is not trusted"));
        };
        if !public.verifies(domain, statement, signature) {
            return Err(format!("the signature is not that of key {key}"));
        }
        self.report.signatures += 1;
        self.report.unsigned_records = 0;
        Ok(())
    }
}

/// What a signed statement that begins at `at` must say of what comes before it.
const fn says(at: Position, before: Mark) -> (SegmentId, u64, u64, ChainHash) {
    (at.segment, before.records, before.offset, before.hash)
}

/// The bodies that are under way.
#[derive(Default)]
struct Bodies {
    open: HashMap<(ExchangeId, Direction), Body>,
    exchanges: HashMap<ExchangeId, Intent>,
    /// How many deletions were passed: records, and runs of segments.
    holes: u64,
    checked: u64,
    partial: u64,
}

/// An exchange that is under way.
#[derive(Clone, Copy)]
struct Intent {
    /// Whether it is of the session that is asked for.
    asked: bool,
    /// How many deletions had been passed before it.
    holes: u64,
}

#[derive(Default)]
struct Body {
    hasher: Box<blake3::Hasher>,
    bytes: u64,
    /// Where the last chunk ended.
    end: u64,
    is_contiguous: bool,
    is_ordered: bool,
}

impl Bodies {
    fn clear(&mut self) {
        self.open.clear();
        self.exchanges.clear();
    }

    fn opened(&mut self, exchange: ExchangeId, asked: bool) {
        self.exchanges.insert(exchange, Intent { asked, holes: self.holes });
    }

    fn chunk(&mut self, chunk: &Chunk) {
        if self.exchanges.get(&chunk.exchange).is_some_and(|intent| !intent.asked) {
            return;
        }
        let key = (chunk.exchange, chunk.direction);
        let body = self.open.entry(key).or_insert_with(Body::new);
        body.is_contiguous &= chunk.offset == body.bytes;
        body.is_ordered &= chunk.offset >= body.end;
        body.bytes += chunk.data.len() as u64;
        body.end = chunk.offset.saturating_add(chunk.data.len() as u64);
        body.hasher.update(&chunk.data);
    }

    fn settled(&mut self, settled: &ExchangeSettled) -> Result<(), String> {
        let intent = self.exchanges.remove(&settled.exchange);
        if intent.is_some_and(|intent| !intent.asked) {
            return Ok(());
        }
        // Where records were deleted since it began, some of them may have been of this body.
        let may_lack = self.holes > intent.map_or(0, |intent| intent.holes);
        for (direction, facts) in
            [(Direction::Request, &settled.request), (Direction::Response, &settled.response)]
        {
            let body = self.open.remove(&(settled.exchange, direction)).unwrap_or_else(Body::new);
            // A store that failed meanwhile lost chunks, and the outcome says so.
            if settled.ending == Ending::RecorderFailed || settled.unrecorded {
                continue;
            }
            if body.is(facts) {
                self.checked += 1;
            } else if may_lack && body.may_be_part_of(facts) {
                self.partial += 1;
            } else {
                return Err(format!(
                    "the stored {direction:?} body of exchange {} is not the one that this outcome describes",
                    settled.exchange
                ));
            }
        }
        Ok(())
    }
}

impl Body {
    fn new() -> Self {
        Self { is_contiguous: true, is_ordered: true, ..Self::default() }
    }

    /// Whether what is there can be what deletion left.
    fn may_be_part_of(&self, facts: &BodyFacts) -> bool {
        self.is_ordered && self.end <= facts.stored_bytes && self.bytes < facts.stored_bytes
    }

    fn is(&self, facts: &BodyFacts) -> bool {
        self.is_contiguous
            && self.bytes == facts.stored_bytes
            && (facts.hash.is_empty() || self.hasher.finalize().to_hex().as_str() == facts.hash)
    }
}

fn stop(error: ScanError) -> Stop {
    match error {
        ScanError::Io { .. } => Stop::Error(error.into()),
        ScanError::Header { path, source } => {
            Stop::Bad(FirstBad { file: path, offset: 0, why: format!("bad header: {source}") })
        }
        ScanError::Record { path, offset, source } => {
            Stop::Bad(FirstBad { file: path, offset, why: source.to_string() })
        }
    }
}

/// How long a record of a live store may stay half-written before it is called bad.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);
const WRITE_RETRY: Duration = Duration::from_millis(20);

//! Checks a store without trusting it: every byte of every segment, the links between them, the bodies.

mod bodies;
mod heads;
mod report;
mod statements;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use self::bodies::{Bodies, Whose};
pub use self::report::{FirstBad, HeadFound, SegmentReport, VerifyError, VerifyReport};
use super::{
    bundle::{self, Manifest},
    format::{DecodePayloadError, Header, Mark, Previous},
    head::Head,
    lock,
    open::LOCK_FILE,
    queue::chain,
    retention::{Gone, Missed},
    rows::Position,
    scan::{self, RawRecord, Scan, ScanError},
    signing::Trust,
};
use crate::model::{ExchangeId, GatewayId, Kind, Record, SegmentId, SessionId};

/// Checks a whole store. Signatures are checked if there is a key to trust.
///
/// # Errors
/// When it cannot be read. What is wrong with it is in the report.
pub fn verify(store: &Path, trust: Trust) -> Result<VerifyReport, VerifyError> {
    Check { trust, ..Check::default() }.run(store)
}

/// What is asked for besides the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    #[default]
    Whole,
    /// The bodies of one session.
    Session(SessionId),
    /// The bodies of one exchange.
    Exchange(ExchangeId),
    /// That a record is there, and which signature covers it.
    Record(Position),
}

/// How to check.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// Whose signatures count; without a key none is checked.
    pub trust: Trust,
    /// The chain is always checked from end to end: nothing less proves any of it.
    pub scope: Scope,
    /// The newest signed state that is known from outside, and the file that says so.
    pub head: Option<(Head, PathBuf)>,
}

impl Check {
    /// Checks a store, a bundle, or the file of one segment.
    ///
    /// # Errors
    /// When it cannot be read. What is wrong with it is in the report.
    pub fn run(self, target: &Path) -> Result<VerifyReport, VerifyError> {
        if target.is_file() {
            // What says which records of it were to be deleted is in others.
            return Verifier::new(self, None, true).run(vec![target.to_owned()], false);
        }
        if !scan::segments_directory(target).is_dir() {
            return Err(VerifyError::NotAStore { path: target.to_owned() });
        }
        let manifest = bundle::manifest(target)
            .map_err(|(path, source)| VerifyError::NotABundle { path, source })?;
        // A gateway may delete while its store is checked: what is missing then, it said after its tombstones
        // were read here.
        let mut known = None;
        loop {
            let gone = Gone::read(target, &self.trust)?;
            let tombstones = gone.tombstones.len();
            let report = self.clone().run_on(target, manifest.clone(), gone)?;
            let may_be_late = report.live && report.first_bad.is_some();
            if !may_be_late || known.replace(tombstones) == Some(tombstones) {
                return Ok(report);
            }
        }
    }

    fn run_on(
        self,
        target: &Path,
        manifest: Option<Manifest>,
        gone: Gone,
    ) -> Result<VerifyReport, VerifyError> {
        let live = lock::is_held(&target.join(LOCK_FILE));
        let segments = scan::list_segments(target)?;
        let named = manifest.as_ref().map(|manifest| manifest.segments.len());
        let is_partial = manifest.is_some();
        let mut verifier = Verifier { gone, ..Verifier::new(self, manifest, is_partial) };
        if let Some(named) = named.filter(|named| *named != segments.len()) {
            let why = format!("it names {named} segments, and there are {}", segments.len());
            let file = target.join(bundle::MANIFEST_FILE);
            verifier.report.first_bad = Some(FirstBad { file, offset: 0, why });
            return Ok(verifier.report);
        }
        verifier.run(segments.into_iter().map(|(_, path)| path).collect(), live)
    }
}

struct Verifier {
    scope: Scope,
    trust: Trust,
    head: Option<(Head, PathBuf)>,
    report: VerifyReport,
    /// Segments may be missing: in a bundle, or where one is checked alone.
    is_partial: bool,
    gateway: Option<GatewayId>,
    before: Option<Before>,
    /// What tombstones say is gone.
    gone: Gone,
    /// What is missing in the segment that is read, and where the first of it is.
    missed: Missed,
    first_missed: Option<u64>,
    bodies: Bodies,
}

/// The segment before.
struct Before {
    end: Previous,
    file: PathBuf,
    bytes: u64,
    version: u16,
}

/// Why the check ended early.
enum Stop {
    Bad(FirstBad),
    Error(VerifyError),
}

impl Verifier {
    fn new(check: Check, bundle: Option<Manifest>, is_partial: bool) -> Self {
        let whose = match check.scope {
            Scope::Session(session) => Whose::Session(session),
            Scope::Exchange(exchange) => Whose::Exchange(exchange),
            _ if is_partial && bundle.is_none() => Whose::Begun,
            _ => Whose::All,
        };
        let report = VerifyReport {
            signatures_checked: !check.trust.is_empty(),
            found: check.scope == Scope::Whole,
            bundle,
            ..VerifyReport::default()
        };
        Self {
            scope: check.scope,
            trust: check.trust,
            head: check.head,
            report,
            is_partial,
            gateway: None,
            before: None,
            gone: Gone::default(),
            missed: Missed::default(),
            first_missed: None,
            bodies: Bodies::of(whose),
        }
    }

    fn run(mut self, segments: Vec<PathBuf>, live: bool) -> Result<VerifyReport, VerifyError> {
        self.report.live = live;
        for (i, path) in segments.iter().enumerate() {
            match self.segment(path, i + 1 == segments.len()) {
                Ok(()) => {}
                Err(Stop::Bad(bad)) => {
                    self.report.first_bad = Some(bad);
                    break;
                }
                Err(Stop::Error(error)) => return Err(error),
            }
        }
        self.reaches_head();
        (self.report.bodies, self.report.partial_bodies) =
            (self.bodies.checked, self.bodies.partial);
        Ok(self.report)
    }

    fn segment(&mut self, path: &Path, is_last: bool) -> Result<(), Stop> {
        let (mut scan, header) = Scan::open(path).map_err(stop)?;
        self.linked(path, scan.version(), &header)?;
        let (segment, key) = (header.segment, header.key);
        let result = self.records(segment, &mut scan, is_last);
        let result = result.and_then(|()| self.deleted_records(segment, path));
        let (mark, file) = (scan.mark(), path.to_owned());
        self.report.records += mark.records;
        let (records, bytes, sealed) = (mark.records, mark.offset, scan.is_sealed());
        self.report.segments.push(SegmentReport {
            file: file.clone(),
            segment,
            records,
            bytes,
            sealed,
            key,
        });
        let end = Previous { segment, hash: mark.hash };
        self.before = Some(Before { end, file, bytes, version: scan.version() });
        result?;
        let listed = self.report.bundle.as_ref().is_none_or(|bundle| bundle.names(end, bytes));
        let why = || "it does not end as bundle.json says".to_owned();
        if listed { Ok(()) } else { Err(bad(path, bytes, why())) }
    }

    /// Whether the segment is the one that follows.
    fn linked(&mut self, path: &Path, version: u16, header: &Header) -> Result<(), Stop> {
        let no = |why: String| Err(bad(path, 0, why));
        let named = path.file_stem().and_then(|stem| stem.to_str());
        if named.and_then(|name| name.parse().ok()) != Some(header.segment) {
            return no(format!("the file's name is not its segment's id {}", header.segment));
        }
        if *self.gateway.get_or_insert(header.gateway) != header.gateway {
            return no(format!("it was written by another gateway, {}", header.gateway));
        }
        // Else whoever has no key could write the end of a store anew, as if nothing had ever been signed.
        if self.before.as_ref().is_some_and(|before| version < before.version) {
            return no(format!("version {version} of the format follows a later one"));
        }
        match (&self.before, &header.previous) {
            (None, None) => Ok(()),
            (Some(before), Some(previous)) if before.end.segment == previous.segment => {
                if before.end.hash == previous.hash {
                    return Ok(());
                }
                let why =
                    format!("it does not end as segment {} says that it does", header.segment);
                Err(bad(&before.file, before.bytes, why))
            }
            (_, Some(_)) if self.is_partial => {
                self.report.absent_links += 1;
                Ok(())
            }
            (before, Some(previous)) => {
                let end = before.as_ref().map(|before| before.end);
                let Some(deleted) = self.gone.bridge(*previous, end) else {
                    return no(format!("the segment before it, {}, is missing", previous.segment));
                };
                self.bodies.holes += deleted.len() as u64;
                self.report.deleted_segments.extend(deleted);
                Ok(())
            }
            (Some(before), None) => {
                no(format!("it says it is the first, but {} comes before it", before.end.segment))
            }
        }
    }

    /// Whether a tombstone says exactly what is missing in a segment.
    fn deleted_records(&mut self, segment: SegmentId, path: &Path) -> Result<(), Stop> {
        let missed = std::mem::take(&mut self.missed);
        let (Some(missing), Some(offset)) = (missed.sum(), self.first_missed.take()) else {
            return Ok(());
        };
        if self.report.bundle.is_some() {
            return Ok(());
        }
        let Some(said) = self.gone.says(segment, missing) else {
            let why = "records were taken out, and no tombstone says that just these were to be";
            return Err(bad(path, offset, why.into()));
        };
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
                    let checked = self.record(at, raw, before, scan.version());
                    let checked = checked.and_then(|()| self.at_head(segment, scan.mark()));
                    checked.map_err(|why| bad(scan.path(), at.offset, why))?;
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
        self.report.found |= self.scope == Scope::Record(at);
        if raw.kind.is_signed() && raw.flags != 0 {
            return Err(format!("a signed statement does not have the flags {:#06x}", raw.flags));
        }
        if let Some(digest) = raw.digest_left() {
            self.report.pruned_records += 1;
            self.first_missed.get_or_insert(at.offset);
            self.missed.add(&digest, raw.payload_bytes());
            self.bodies.holes += 1;
            return stub(&raw, version);
        }
        match raw.kind {
            Kind::SEAL => return self.seal(at, &raw, before, version),
            Kind::CHECKPOINT => return self.checkpoint(at, &raw, before),
            Kind::KEY => return self.key(&raw),
            Kind::TOMBSTONE => return self.tombstone(&raw),
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
            Record::GatewayStarted(_) => self.bodies.run_ended(),
            Record::SessionOpened(opened) => {
                self.report.found |= self.scope == Scope::Session(opened.session);
            }
            Record::ExchangeOpened(opened) => {
                let is_it = self.scope == Scope::Exchange(opened.exchange);
                self.report.found |= is_it;
                self.bodies.opened(&opened);
            }
            Record::Chunk(chunk) => self.bodies.chunk(&chunk),
            Record::ExchangeSettled(settled) => return self.bodies.settled(&settled),
            _ => {}
        }
        Ok(())
    }
}

/// A record of which only the digest is left. Whether it was to be taken out is asked when all of its segment
/// that are missing are known.
fn stub(raw: &RawRecord, version: u16) -> Result<(), String> {
    if version == 1 || !raw.is_stub() {
        return Err("what is left of the record is not a digest and zeros".into());
    }
    Ok(())
}

fn bad(file: &Path, offset: u64, why: String) -> Stop {
    Stop::Bad(FirstBad { file: file.to_owned(), offset, why })
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

//! Reads a store, also while a gateway writes it: needs no lock and takes a growing end for the end.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use super::{
    catalog::{Catalog, CatalogError},
    format::{DecodePayloadError, Header},
    lock,
    open::LOCK_FILE,
    records_of::RecordsOf,
    rows::{ExchangeRow, Position},
    scan::{self, Scan, ScanError},
};
use crate::model::{
    Chunk, ExchangeId, ExchangeOpened, ExchangeSettled, GatewayId, Kind, Record, RequestEnded,
    ResponseStarted, SegmentId, Timestamp,
};

/// A store could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no store.
    #[error("{} is not a store: it has no directory `segments`", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// A segment could not be read, or is damaged.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A record is intact but cannot be understood.
    #[error("record at {position} cannot be understood")]
    Payload {
        /// Where it begins.
        position: Position,
        /// Why.
        #[source]
        source: DecodePayloadError,
    },
}

/// A record and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    /// Where it begins.
    pub position: Position,
    /// The record.
    pub record: Record,
}

/// A segment file.
#[derive(Clone, Debug)]
pub struct SegmentInfo {
    /// The segment.
    pub segment: SegmentId,
    /// Its file.
    pub path: PathBuf,
    /// The file's length when it was looked at.
    pub bytes: u64,
    /// What it says of itself.
    pub header: Header,
}

/// All records of one exchange.
#[derive(Clone, Debug)]
pub struct ExchangeRecords {
    /// The intent.
    pub opened: ExchangeOpened,
    /// Bytes of both bodies in the order in which they passed.
    pub chunks: Vec<Chunk>,
    /// The end of the request's body.
    pub request_ended: Option<RequestEnded>,
    /// The response's head.
    pub response_started: Option<ResponseStarted>,
    /// The outcome.
    pub settled: Option<ExchangeSettled>,
    /// Whether chunks were left out: more than [`EXCHANGE_BYTES_MAX`], or not asked for.
    pub truncated: bool,
}

/// Intent and outcome of one exchange.
#[derive(Clone, Debug)]
pub struct ExchangeEnds {
    /// The intent.
    pub opened: Box<ExchangeOpened>,
    /// The outcome.
    pub settled: Option<Box<ExchangeSettled>>,
}

/// Reads a store.
#[derive(Clone, Debug)]
pub struct Reader {
    store: PathBuf,
}

impl Reader {
    /// Opens a store to read it.
    ///
    /// # Errors
    /// When the directory is not a store.
    pub fn open(directory: &Path) -> Result<Self, ReadError> {
        if !scan::segments_directory(directory).is_dir() {
            return Err(ReadError::NotAStore { path: directory.to_owned() });
        }
        Ok(Self::on(directory))
    }

    pub(super) fn on(directory: &Path) -> Self {
        Self { store: directory.to_owned() }
    }

    /// The store's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.store
    }

    /// The segments in the order in which they were written.
    ///
    /// # Errors
    /// When the directory or a header cannot be read.
    pub fn segments(&self) -> Result<Vec<SegmentInfo>, ReadError> {
        let mut segments = Vec::new();
        for (segment, path) in scan::list_segments(&self.store)? {
            let (scan, header) = match Scan::open(&path) {
                Err(error) if error.is_gone() => continue,
                opened => opened?,
            };
            segments.push(SegmentInfo { segment, bytes: scan.file_bytes()?, path, header });
        }
        Ok(segments)
    }

    /// The gateway that wrote the store; none if there is no segment.
    ///
    /// # Errors
    /// When the directory or the first header cannot be read.
    pub fn gateway(&self) -> Result<Option<GatewayId>, ReadError> {
        for (_, path) in scan::list_segments(&self.store)? {
            match Scan::open(&path) {
                Err(error) if error.is_gone() => {}
                opened => return Ok(Some(opened?.1.gateway)),
            }
        }
        Ok(None)
    }

    /// Whether the segment is here.
    #[must_use]
    pub fn has(&self, segment: SegmentId) -> bool {
        scan::segment_path(&self.store, segment).exists()
    }

    /// All records. At the end of a live store the iterator gives none, and more when asked again later.
    #[must_use]
    pub fn records(&self) -> Records {
        Records {
            store: self.store.clone(),
            last: None,
            ahead: VecDeque::new(),
            scan: None,
            begin: None,
            end: None,
            only: None,
            drained: false,
        }
    }

    /// The records of one segment: what is wrong with others is not seen.
    #[must_use]
    pub fn records_in(&self, segment: SegmentId) -> Records {
        let begin = Some(Position { segment, offset: 0 });
        Records { begin, end: Some(segment), ..self.records() }
    }

    /// The records of this kind alone, from the start or from this position on; the others are not decoded.
    #[must_use]
    pub fn records_of_kind(&self, kind: Kind, begin: Option<Position>) -> Records {
        Records { only: Some(kind), begin, ..self.records() }
    }

    /// As [`Reader::records_of_kind`] from this position to the end of the `segments`-th segment after its own: a
    /// look ahead that a large store does not make long.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn records_of_kind_ahead(
        &self,
        kind: Kind,
        begin: Position,
        segments: usize,
    ) -> Result<Records, ReadError> {
        let all = scan::list_segments(&self.store)?;
        let own = all.partition_point(|(segment, _)| *segment < begin.segment);
        let end = all.get(own.saturating_add(segments)).or(all.last()).map(|(segment, _)| *segment);
        Ok(Records { end, ..self.records_of_kind(kind, Some(begin)) })
    }

    /// Where to begin so as to see all records that were made at this time or later, as far as segments'
    /// ids tell: in the last segment that was begun before, or one earlier if the clock was set.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn position_before(&self, time: Timestamp) -> Result<Option<Position>, ReadError> {
        let millis = u64::try_from(time.as_micros() / 1000).unwrap_or(0).to_be_bytes();
        let segments = scan::list_segments(&self.store)?;
        let after = segments.partition_point(|(segment, _)| segment.as_bytes()[..6] <= millis[2..]);
        let begin = after.checked_sub(2).and_then(|place| segments.get(place));
        Ok(begin.map(|(segment, _)| Position { segment: *segment, offset: 0 }))
    }

    /// Whether a gateway has the store at this moment.
    #[must_use]
    pub fn is_written(&self) -> bool {
        lock::is_held(&self.store.join(LOCK_FILE))
    }

    /// The records from this one on. What comes before it is not read, so that its chain is not checked.
    #[must_use]
    pub fn records_from(&self, position: Position) -> Records {
        Records { begin: Some(position), ..self.records() }
    }

    /// The rows: from the index when no gateway runs and it is complete, else from the segments.
    ///
    /// # Errors
    /// When the segments cannot be read. Damage is not an error: see [`Catalog::damage`].
    pub fn catalog(&self) -> Result<Catalog, CatalogError> {
        Catalog::load(self)
    }

    /// All records of an exchange; none if it is not in the store.
    ///
    /// # Errors
    /// When the segments cannot be read.
    pub fn exchange(&self, id: ExchangeId) -> Result<Option<ExchangeRecords>, ReadError> {
        // Ids begin with their time: it is in the last segment that was begun before, or one beside it if
        // the clock was set.
        let segments = scan::list_segments(&self.store)?;
        let time = &id.as_bytes()[..6];
        let after = segments.partition_point(|(segment, _)| &segment.as_bytes()[..6] <= time);
        if let Some((segment, _)) = segments.get(after.saturating_sub(2)) {
            let begin = Position { segment: *segment, offset: 0 };
            if let Some(found) = collect(self.records_from(begin), id, EXCHANGE_BYTES_MAX)? {
                return Ok(Some(found));
            }
        }
        collect(self.records(), id, EXCHANGE_BYTES_MAX)
    }

    /// All records of an exchange whose row is known: reads only where they are.
    ///
    /// # Errors
    /// When the segments cannot be read.
    pub fn exchange_at(&self, row: &ExchangeRow) -> Result<Option<ExchangeRecords>, ReadError> {
        collect(self.records_from(row.first), row.exchange, EXCHANGE_BYTES_MAX)
    }

    /// As [`Reader::exchange_at`] without the bytes of the bodies, however many there are.
    ///
    /// # Errors
    /// When the segments cannot be read.
    pub fn heads_at(&self, row: &ExchangeRow) -> Result<Option<ExchangeRecords>, ReadError> {
        collect(self.records_from(row.first), row.exchange, 0)
    }

    /// Intent and outcome of an exchange, read where they are, whatever lies between.
    ///
    /// # Errors
    /// When the segments cannot be read.
    pub fn ends_at(&self, row: &ExchangeRow) -> Result<Option<ExchangeEnds>, ReadError> {
        let opened = match self.records_from(row.first).next().transpose()? {
            Some(StoredRecord { record: Record::ExchangeOpened(opened), .. }) => opened,
            _ => return Ok(None),
        };
        let settled = match row.last.map(|last| self.records_from(last).next()) {
            Some(Some(stored)) => match stored?.record {
                Record::ExchangeSettled(settled) if settled.exchange == row.exchange => {
                    Some(settled)
                }
                _ => None,
            },
            _ => None,
        };
        Ok(Some(ExchangeEnds { opened, settled }))
    }

    /// The records of an exchange one by one, so that its size does not matter. On a live store more may
    /// come when asked again after the end.
    #[must_use]
    pub fn records_of(&self, row: &ExchangeRow) -> RecordsOf {
        RecordsOf::new(self.records_from(row.first), row.exchange)
    }
}

fn collect(
    records: Records,
    id: ExchangeId,
    bytes_max: usize,
) -> Result<Option<ExchangeRecords>, ReadError> {
    let mut found: Option<ExchangeRecords> = None;
    let mut bytes = 0;
    for stored in records {
        let stored = match stored {
            Ok(stored) if stored.record.exchange() == Some(id) => stored,
            // Damage elsewhere does not hide what is still there.
            Ok(_) | Err(ReadError::Scan(ScanError::Record { .. } | ScanError::Header { .. })) => {
                continue;
            }
            Err(ReadError::Payload { .. }) => continue,
            Err(error) => return Err(error),
        };
        if let Record::ExchangeOpened(opened) = stored.record {
            found.get_or_insert_with(|| ExchangeRecords {
                opened: *opened,
                chunks: Vec::new(),
                request_ended: None,
                response_started: None,
                settled: None,
                truncated: false,
            });
            continue;
        }
        let Some(found) = &mut found else { continue };
        match stored.record {
            Record::Chunk(chunk) => {
                bytes += chunk.data.len();
                if bytes <= bytes_max {
                    found.chunks.push(chunk);
                } else {
                    found.truncated = true;
                }
            }
            Record::RequestEnded(ended) => found.request_ended = Some(ended),
            Record::ResponseStarted(started) => found.response_started = Some(started),
            Record::ExchangeSettled(settled) => {
                found.settled = Some(*settled);
                break;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Goes through the records of a store.
pub struct Records {
    store: PathBuf,
    /// The segment that `scan` reads, or the last one that was read.
    last: Option<SegmentId>,
    ahead: VecDeque<(SegmentId, PathBuf)>,
    scan: Option<Scan>,
    begin: Option<Position>,
    /// The last segment that is read; all without one.
    end: Option<SegmentId>,
    only: Option<Kind>,
    /// The segment's end was seen after its successor was: nothing more comes in it.
    drained: bool,
}

impl Iterator for Records {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (Some(scan), Some(segment)) = (&mut self.scan, self.last) else {
                match self.advance() {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error.into())),
                }
            };
            let failed = match scan.next() {
                // What was taken out is no damage: `verify` says whether it was to be.
                Ok(Some(raw)) if raw.is_pruned() => continue,
                Ok(Some(raw)) if self.only.is_some_and(|only| only != raw.kind) => continue,
                Ok(Some(raw)) => {
                    let position = Position { segment, offset: raw.offset };
                    let record = raw.decode();
                    return Some(match record {
                        Ok(record) => Ok(StoredRecord { position, record }),
                        Err(source) => Err(ReadError::Payload { position, source }),
                    });
                }
                Ok(None) => None,
                Err(error) if error.is_incomplete() => Some(error),
                Err(error) => {
                    // After damage nothing in this segment can be trusted.
                    self.scan = None;
                    return Some(Err(error.into()));
                }
            };
            // The end so far. Only if there is a next segment is it the end for good, and only after
            // looking once more: the writer may have gone on before it made the next one.
            match self.look_ahead() {
                Ok(()) if self.ahead.is_empty() => return None,
                Ok(()) if !self.drained => self.drained = true,
                Ok(()) => {
                    self.scan = None;
                    if let Some(error) = failed {
                        return Some(Err(error.into()));
                    }
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

impl Records {
    fn look_ahead(&mut self) -> Result<(), ScanError> {
        if self.ahead.is_empty() {
            let mut segments = scan::list_segments(&self.store)?;
            segments.retain(|(id, _)| self.last.is_none_or(|last| *id > last));
            self.ahead = segments.into();
        }
        Ok(())
    }

    /// Begins the next segment; false if there is none.
    fn advance(&mut self) -> Result<bool, ScanError> {
        self.look_ahead()?;
        while let Some((segment, path)) = self.ahead.pop_front() {
            if self.end.is_some_and(|end| segment > end) {
                return Ok(false);
            }
            self.last = Some(segment);
            self.drained = false;
            let offset = match self.begin {
                Some(begin) if segment < begin.segment => continue,
                Some(begin) if segment == begin.segment => begin.offset,
                _ => 0,
            };
            match Scan::open_at(&path, offset) {
                Ok(scan) => self.scan = Some(scan),
                // Deleted since the directory was read.
                Err(error) if error.is_gone() => continue,
                Err(error) => return Err(error),
            }
            return Ok(true);
        }
        Ok(false)
    }
}

/// More bytes of one exchange than this are not collected: [`Reader::records_from`] streams them.
pub const EXCHANGE_BYTES_MAX: usize = 256 << 20;

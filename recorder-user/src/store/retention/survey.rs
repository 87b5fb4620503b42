//! What is in the segments: whose records, from when to when.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::plan::Plan;
use crate::{
    model::{
        Effect, ExchangeId, HoldChanged, HoldId, HoldOn, Kind, Principal, Record, SegmentId,
        SessionId, Timestamp,
    },
    store::{
        format::{self, ChainHash, DecodePayloadError, Header, Previous},
        queue::chain,
        scan::{self, RawRecord, Scan, ScanError},
    },
};

/// Whose a record is: as much as a hold can be on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) session: Option<SessionId>,
    pub(super) subject: String,
    pub(super) username: String,
    pub(super) task: Option<String>,
}

impl Owner {
    /// Whether a hold is on it.
    pub(super) fn is_held_by(&self, on: &HoldOn) -> bool {
        match on {
            HoldOn::Session(session) => self.session == Some(*session),
            HoldOn::Task(task) => self.task.as_ref() == Some(task),
            HoldOn::Principal(name) => *name == self.username || *name == self.subject,
        }
    }
}

/// An exchange, as far as deletion asks.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) owner: Arc<Owner>,
    /// None until there is an outcome.
    pub(super) effect: Option<Effect>,
    /// The last segment that has records of it.
    pub(super) last: SegmentId,
    /// Whether more records may come.
    pub(super) open: bool,
}

/// One segment.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) path: PathBuf,
    pub(super) version: u16,
    pub(super) previous: Option<Previous>,
    pub(super) hash: ChainHash,
    pub(super) sealed: bool,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// How much of the disk the file takes.
    pub(super) disk_bytes: u64,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) owners: HashSet<Arc<Owner>>,
    /// Whether it has records of exchanges whose intent is nowhere.
    pub(super) has_unowned: bool,
    /// The sessions of whose beginning or state it has a record.
    pub(super) tells_of: HashSet<SessionId>,
    /// The exchanges that begin in it and go on after it.
    pub(super) goes_on: Vec<ExchangeId>,
    /// The holds of which it has a record.
    pub(super) holds: HashSet<HoldId>,
    /// Where it is not as a writer wrote it: nothing in it is deleted.
    pub(super) damage: Option<String>,
}

/// The store, as far as deletion asks. It is kept up to date by reading what is new.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) segments: BTreeMap<SegmentId, Summary>,
    /// The exchanges that have records in more than one segment, or may get them.
    pub(super) crossing: HashMap<ExchangeId, Facts>,
    pub(super) sessions: HashMap<SessionId, Arc<Owner>>,
    /// The sessions that may go on.
    pub(super) open_sessions: HashSet<SessionId>,
    pub(super) holds: BTreeMap<HoldId, HoldChanged>,
}

impl Survey {
    /// Reads what was not read yet. The last segment is read again each time: it may have grown.
    pub(super) fn update(&mut self, store: &Path) -> Result<(), ScanError> {
        let found = scan::list_segments(store)?;
        let there: HashSet<_> = found.iter().map(|(segment, _)| *segment).collect();
        self.segments.retain(|segment, _| there.contains(segment));
        let last = found.last().map(|(segment, _)| *segment);
        for (segment, path) in found {
            let known = self.segments.get(&segment).is_some_and(|summary| summary.sealed);
            if known && Some(segment) != last {
                continue;
            }
            match self.read(segment, &path) {
                Ok(summary) => drop(self.segments.insert(segment, summary)),
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        self.forget();
        Ok(())
    }

    /// Takes out what was deleted.
    pub(super) fn deleted(&mut self, plan: &Plan) {
        self.segments.retain(|segment, _| !plan.whole.contains_key(segment));
        for (segment, (_, sifted)) in &plan.thin {
            if let Some(summary) = self.segments.get_mut(segment) {
                let left = |session| sifted.left.iter().any(|owner| owner.session == Some(session));
                summary.tells_of.retain(|session| left(*session));
                summary.owners.clone_from(&sifted.left);
                let blocks = std::fs::metadata(&summary.path).map(|file| file.blocks());
                summary.disk_bytes = blocks.map_or(summary.disk_bytes, |blocks| blocks * 512);
            }
        }
        self.forget();
    }

    /// What is only in segments that are gone is of no more use.
    fn forget(&mut self) {
        let first = self.segments.keys().next().copied();
        self.crossing.retain(|_, facts| first.is_some_and(|first| facts.last >= first));
        let alive: HashSet<_> =
            self.segments.values().flat_map(|summary| &summary.owners).cloned().collect();
        self.sessions.retain(|_, owner| alive.contains(owner));
        self.open_sessions.retain(|session| self.sessions.contains_key(session));
    }

    fn read(&mut self, segment: SegmentId, path: &Path) -> Result<Summary, ScanError> {
        let (mut scan, header) = match Scan::open(path) {
            Err(error @ (ScanError::Header { .. } | ScanError::Record { .. })) => {
                return Ok(unreadable(path, &error));
            }
            opened => opened?,
        };
        let mut summary = begin(path, &scan, &header)?;
        let mut local = Local::default();
        loop {
            match scan.next() {
                Ok(None) => break,
                Ok(Some(raw)) => self.record(segment, raw, &scan, &mut local, &mut summary),
                Err(error @ ScanError::Io { .. }) => return Err(error),
                // The writer may be in the middle of it.
                Err(error) if error.is_incomplete() => break,
                Err(error) => {
                    summary.damage = Some(chain(&error));
                    break;
                }
            }
        }
        for (exchange, facts) in local.exchanges.into_iter().filter(|(_, facts)| facts.open) {
            summary.goes_on.push(exchange);
            self.crossing.insert(exchange, facts);
        }
        (summary.hash, summary.records) = (scan.mark().hash, scan.mark().records);
        summary.sealed = scan.is_sealed();
        Ok(summary)
    }

    fn record(
        &mut self,
        segment: SegmentId,
        raw: RawRecord,
        scan: &Scan,
        local: &mut Local,
        summary: &mut Summary,
    ) {
        if raw.is_pruned() {
            return;
        }
        if matches!(raw.kind, Kind::SEAL | Kind::CHECKPOINT) {
            let time = raw.payload().ok().and_then(|payload| signed_time(scan, raw.kind, &payload));
            summary.to = summary.to.max(time.unwrap_or(summary.to));
            return;
        }
        let locked_for = raw.locked_for();
        let record = match raw.decode() {
            Ok(record) => record,
            Err(DecodePayloadError::Erased) => {
                summary.owners.extend(locked_for.map(|session| self.session(session)));
                return;
            }
            // Whose it is cannot be told, and so not whether it is held.
            Err(error) => {
                let why = || format!("a record in it cannot be read: {}", chain(&error));
                summary.damage.get_or_insert_with(why);
                return;
            }
        };
        summary.to = summary.to.max(time_of(&record).unwrap_or(summary.to));
        match &record {
            Record::HoldChanged(changed) => {
                summary.holds.insert(changed.hold);
                self.holds.insert(changed.hold, changed.clone());
            }
            Record::SessionOpened(opened) => drop(summary.tells_of.insert(opened.session)),
            Record::SessionChanged(changed) => drop(summary.tells_of.insert(changed.session)),
            // Exchanges of an earlier run get no more records.
            Record::GatewayStarted(_) => {
                self.crossing.values_mut().for_each(|facts| facts.open = false);
                local.exchanges.values_mut().for_each(|facts| facts.open = false);
            }
            _ => {}
        }
        self.learn(segment, &record, local);
        let owners = self.owners(&record, local);
        summary.has_unowned |= owners.is_empty() && record.exchange().is_some();
        summary.owners.extend(owners);
    }

    /// Takes in what a record says of sessions and exchanges.
    fn learn(&mut self, segment: SegmentId, record: &Record, local: &mut Local) {
        let crossing = record.exchange().and_then(|exchange| self.crossing.get_mut(&exchange));
        if let Some(facts) = crossing {
            facts.last = facts.last.max(segment);
            if let Record::ExchangeSettled(settled) = record {
                (facts.effect, facts.open) = (Some(settled.effect), false);
            }
        }
        match record {
            Record::SessionOpened(opened) => {
                let task = opened.key.task.as_ref();
                let owner = owner(Some(opened.session), Some(&opened.principal), task);
                self.sessions.insert(opened.session, owner.into());
                self.open_sessions.insert(opened.session);
            }
            Record::SessionChanged(changed) if changed.ended.is_some() => {
                self.open_sessions.remove(&changed.session);
            }
            Record::SessionChanged(changed) => {
                self.open_sessions.insert(changed.session);
            }
            Record::ExchangeOpened(opened) => {
                if let Some(session) = opened.session {
                    let owner =
                        || owner(opened.session, opened.principal.as_deref(), opened.task.as_ref());
                    self.sessions.entry(session).or_insert_with(|| owner().into());
                }
            }
            _ => {}
        }
        self.learn_local(segment, record, local);
    }

    /// Takes in what a record says of exchanges that begin in its segment.
    pub(super) fn learn_local(&self, segment: SegmentId, record: &Record, local: &mut Local) {
        match record {
            Record::ExchangeOpened(opened) => {
                let known = opened.session.and_then(|session| self.sessions.get(&session));
                let (principal, task) = (opened.principal.as_deref(), opened.task.as_ref());
                let unknown = || owner(opened.session, principal, task).into();
                let owner = known.cloned().unwrap_or_else(unknown);
                // A refusal has no further records, except for the outcome of a body that was read before.
                let open = opened.refusal.is_none();
                let facts = Facts { owner, effect: None, last: segment, open };
                local.exchanges.insert(opened.exchange, facts);
            }
            Record::ExchangeSettled(settled) => {
                if let Some(facts) = local.exchanges.get_mut(&settled.exchange) {
                    (facts.effect, facts.open) = (Some(settled.effect), false);
                }
            }
            _ => {}
        }
    }

    /// Whose a record is: nobody's, one's, or of a connection many's.
    pub(super) fn owners(&self, record: &Record, local: &Local) -> Vec<Arc<Owner>> {
        let session = |id: &SessionId| self.session(*id);
        match record {
            Record::SessionOpened(opened) => vec![session(&opened.session)],
            Record::SessionChanged(changed) => vec![session(&changed.session)],
            Record::ConnectionClosed(closed) => closed.sessions.iter().map(session).collect(),
            Record::ConnectionSeen(seen) => vec![session(&seen.session)],
            Record::ExchangeSettled(settled) => {
                let known = self.facts(settled.exchange, local).map(|facts| &facts.owner);
                let of_session = || settled.session.as_ref().map(session);
                known.cloned().or_else(of_session).into_iter().collect()
            }
            record => {
                let facts = record.exchange().and_then(|exchange| self.facts(exchange, local));
                facts.map(|facts| Arc::clone(&facts.owner)).into_iter().collect()
            }
        }
    }

    pub(super) fn session(&self, id: SessionId) -> Arc<Owner> {
        let unknown = || Owner { session: Some(id), ..Owner::default() }.into();
        self.sessions.get(&id).cloned().unwrap_or_else(unknown)
    }

    pub(super) fn facts<'a>(&'a self, id: ExchangeId, local: &'a Local) -> Option<&'a Facts> {
        self.crossing.get(&id).or_else(|| local.exchanges.get(&id))
    }
}

/// The exchanges that began in the segment that is read.
#[derive(Default)]
pub(super) struct Local {
    exchanges: HashMap<ExchangeId, Facts>,
}

fn owner(
    session: Option<SessionId>,
    principal: Option<&Principal>,
    task: Option<&String>,
) -> Owner {
    let text =
        |of: fn(&Principal) -> &String| principal.map_or_else(String::new, |p| of(p).clone());
    let (subject, username) = (text(|p| &p.subject), text(|p| &p.username));
    Owner { session, subject, username, task: task.cloned() }
}

fn begin(path: &Path, scan: &Scan, header: &Header) -> Result<Summary, ScanError> {
    Ok(Summary {
        path: path.to_owned(),
        version: scan.version(),
        previous: header.previous,
        hash: scan.mark().hash,
        sealed: false,
        records: 0,
        bytes: scan.file_bytes()?,
        disk_bytes: scan.disk_bytes()?,
        from: header.created,
        to: header.created,
        owners: HashSet::new(),
        has_unowned: false,
        tells_of: HashSet::new(),
        goes_on: Vec::new(),
        holds: HashSet::new(),
        damage: None,
    })
}

fn unreadable(path: &Path, error: &ScanError) -> Summary {
    Summary {
        path: path.to_owned(),
        version: 0,
        previous: None,
        hash: ChainHash([0; format::HASH_BYTES]),
        sealed: true,
        records: 0,
        bytes: 0,
        disk_bytes: 0,
        from: Timestamp::from_micros(i64::MAX),
        to: Timestamp::from_micros(i64::MAX),
        owners: HashSet::new(),
        has_unowned: false,
        tells_of: HashSet::new(),
        goes_on: Vec::new(),
        holds: HashSet::new(),
        damage: Some(chain(error)),
    }
}

fn signed_time(scan: &Scan, kind: Kind, payload: &Bytes) -> Option<Timestamp> {
    match kind {
        Kind::SEAL => format::read_seal(scan.version(), payload).map(|read| read.seal.time),
        _ => format::Signed::<format::Checkpoint>::read(payload).map(|read| read.statement.time),
    }
}

fn time_of(record: &Record) -> Option<Timestamp> {
    Some(match record {
        Record::GatewayStarted(record) => record.time,
        Record::GatewayStopped(record) => record.time,
        Record::SessionOpened(record) => record.time,
        Record::SessionChanged(record) => record.time,
        Record::ExchangeOpened(record) => record.time,
        Record::ExchangeSettled(record) => record.time,
        Record::ConnectionClosed(record) => record.time,
        Record::ConnectionSeen(record) => record.time,
        Record::UnrecordedSpan(record) => record.to,
        Record::WitnessChanged(record) => record.time,
        _ => return None,
    })
}

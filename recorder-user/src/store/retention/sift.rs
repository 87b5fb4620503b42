//! Which records of a segment go, and which stay.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::survey::{Local, Owner, Summary, Survey};
use crate::{
    model::{Effect, ExchangeId, HoldId, HoldOn, Kind, Record, SegmentId, SessionId},
    store::{
        format::{DecodePayloadError, HASH_BYTES},
        scan::{Scan, ScanError},
    },
};

/// What of a segment is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    /// Everything that nothing speaks for.
    pub(super) all: bool,
    /// Exchanges that only read.
    pub(super) reads: bool,
    /// Bodies of exchanges that only read.
    pub(super) read_bodies: bool,
}

/// What speaks for a record.
pub(super) struct Keep<'a> {
    pub(super) holds: &'a [(HoldId, HoldOn)],
    /// Sessions that have records in segments that stay, or may get some.
    pub(super) sessions: &'a HashSet<SessionId>,
    /// The segments that go, or may lose all reads: what reaches beyond them is not over.
    pub(super) aged: &'a dyn Fn(SegmentId) -> bool,
}

/// What was found out.
#[derive(Default)]
pub(super) struct Sifted {
    /// The offsets of the records that go, in order.
    pub(super) offsets: Vec<u64>,
    /// Bytes of their payloads.
    pub(super) bytes: u64,
    /// Whose they are.
    pub(super) sessions: HashSet<SessionId>,
    /// How many records each hold kept.
    pub(super) held: HashMap<HoldId, u64>,
    /// Whose records stay.
    pub(super) left: HashSet<Arc<Owner>>,
}

struct Candidate {
    offset: u64,
    bytes: u64,
    owners: Vec<Arc<Owner>>,
}

/// Goes through a segment twice: outcomes come after what they are about.
pub(super) fn sift(
    survey: &Survey,
    (segment, summary): (SegmentId, &Summary),
    want: Want,
    keep: &Keep<'_>,
) -> Result<Sifted, ScanError> {
    let mut local = Local::default();
    let (mut scan, _) = Scan::open(&summary.path)?;
    while let Some(raw) = scan.next()? {
        if raw.kind != Kind::CHUNK
            && let Ok(record) = raw.decode()
        {
            survey.learn_local(segment, &record, &mut local);
        }
    }
    let (mut sifted, mut candidates, mut bases) = (Sifted::default(), Vec::new(), HashSet::new());
    let (mut scan, _) = Scan::open(&summary.path)?;
    while let Some(raw) = scan.next()? {
        let (offset, bytes, base) = (raw.offset, raw.payload_bytes(), raw.base());
        let fixed = raw.is_pruned() || raw.kind.is_signed() || raw.kind == Kind::HOLD_CHANGED;
        if fixed {
            continue;
        }
        let case = Case { survey, local: &local, want, keep };
        let locked_for = raw.locked_for();
        let (owners, goes) = match raw.decode() {
            Ok(record) => {
                let owners = survey.owners(&record, &local);
                // An exchange whose intent is nowhere is somebody's: nobody can say whose.
                let unowned = owners.is_empty() && record.exchange().is_some();
                let wanted = !unowned && case.is_wanted(&record);
                let goes =
                    wanted && !case.is_held(&owners, &mut sifted) && !case.is_needed(&record);
                (owners, goes)
            }
            Err(DecodePayloadError::Erased) => {
                let owners: Vec<_> = locked_for.map(|id| survey.session(id)).into_iter().collect();
                let goes = want.all && !case.is_held(&owners, &mut sifted);
                (owners, goes)
            }
            Err(_) => continue,
        };
        let goes = goes && bytes >= HASH_BYTES;
        if goes {
            candidates.push(Candidate { offset, bytes: bytes as u64, owners });
        } else {
            sifted.left.extend(owners);
            bases.extend(base);
        }
    }
    for Candidate { offset, bytes, owners } in candidates {
        if bases.contains(&offset) {
            sifted.left.extend(owners);
        } else {
            sifted.offsets.push(offset);
            sifted.bytes += bytes;
            sifted.sessions.extend(owners.iter().filter_map(|owner| owner.session));
        }
    }
    Ok(sifted)
}

struct Case<'a> {
    survey: &'a Survey,
    local: &'a Local,
    want: Want,
    keep: &'a Keep<'a>,
}

impl Case<'_> {
    fn is_wanted(&self, record: &Record) -> bool {
        let Want { all, reads, read_bodies } = self.want;
        match record {
            // They say which run the rest belongs to and how far it can be believed, and are short.
            Record::GatewayStarted(_)
            | Record::GatewayStopped(_)
            | Record::UnrecordedSpan(_)
            | Record::WitnessChanged(_) => false,
            // Who read recordings is evidence of its own.
            Record::RecordingRead(_) => false,
            // Nobody can say whose it is.
            Record::HoldChanged(_) | Record::Unknown { .. } => false,
            _ if all => true,
            Record::Chunk(chunk) if read_bodies && self.is_read(chunk.exchange) => true,
            record => reads && record.exchange().is_some_and(|id| self.is_read_and_over(id)),
        }
    }

    fn is_read(&self, exchange: ExchangeId) -> bool {
        let facts = self.survey.facts(exchange, self.local);
        facts.is_some_and(|facts| facts.effect == Some(Effect::Read))
    }

    fn is_read_and_over(&self, exchange: ExchangeId) -> bool {
        let facts = self.survey.facts(exchange, self.local);
        self.is_read(exchange) && facts.is_some_and(|facts| (self.keep.aged)(facts.last))
    }

    /// Beginnings of what goes on elsewhere stay: without them the rest would tell nothing.
    fn is_needed(&self, record: &Record) -> bool {
        match record {
            Record::SessionOpened(opened) => self.keep.sessions.contains(&opened.session),
            Record::SessionChanged(changed) => self.keep.sessions.contains(&changed.session),
            Record::ExchangeOpened(opened) => {
                is_needed(self.survey, opened.exchange, self.keep.aged)
            }
            _ => false,
        }
    }

    fn is_held(&self, owners: &[Arc<Owner>], sifted: &mut Sifted) -> bool {
        let mut held = false;
        for (hold, on) in self.keep.holds {
            if owners.iter().any(|owner| owner.is_held_by(on)) {
                *sifted.held.entry(*hold).or_default() += 1;
                held = true;
            }
        }
        held
    }
}

/// Whether an exchange has records in segments that stay, or may get some.
pub(super) fn is_needed(
    survey: &Survey,
    exchange: ExchangeId,
    goes: &dyn Fn(SegmentId) -> bool,
) -> bool {
    survey.crossing.get(&exchange).is_some_and(|facts| facts.open || !goes(facts.last))
}

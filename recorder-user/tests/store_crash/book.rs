//! What was appended, and what the store has promised of it.

use std::path::Path;

use bytes::Bytes;
use recorder_user::{
    model::{
        Chunk, Direction, ExchangeId, IncompleteReason, Principal, Record, SessionId, SessionKey,
        SessionOpened, SessionState, Timestamp,
    },
    store::{Need, Reader},
};

use crate::chance::Chance;

/// How sure it is that a record is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    None,
    Written,
    Durable,
}

/// Everything that was ever appended to one store, in order: the nth record carries n in its ids.
#[derive(Default)]
pub(crate) struct Book {
    entries: Vec<Entry>,
    /// Where this life begins.
    life: usize,
}

struct Entry {
    record: Record,
    promise: Promise,
    /// The store's count of failures when it was appended; none if the append failed.
    epoch: Option<u64>,
    /// It was not even queued.
    refused: bool,
}

/// The records of one append.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    begin: usize,
    end: usize,
}

impl Book {
    /// Makes records to append.
    pub(crate) fn group(&mut self, chance: &mut Chance, epoch: u64) -> (Group, Vec<Record>) {
        let begin = self.entries.len();
        for _ in 0..=chance.below(4) {
            let record = record(self.entries.len() as u64, chance);
            self.entries.push(Entry {
                record,
                promise: Promise::None,
                epoch: Some(epoch),
                refused: false,
            });
        }
        let end = self.entries.len();
        let records = self.entries[begin..].iter().map(|entry| entry.record.clone()).collect();
        (Group { begin, end }, records)
    }

    /// The store has acknowledged a group. What was appended before it, and since the last failure, is
    /// in the file before it.
    pub(crate) fn acknowledged(&mut self, group: Group, need: Need, epoch: u64) {
        let promise = match need {
            Need::Queued => return,
            Need::Written => Promise::Written,
            Need::Durable => Promise::Durable,
        };
        for (n, entry) in self.entries[..group.end].iter_mut().enumerate().skip(self.life) {
            if n >= group.begin || entry.epoch == Some(epoch) {
                entry.promise = entry.promise.max(promise);
            }
        }
    }

    /// The store has failed a group: it is not certain that it is there. If it was only to be queued, it
    /// was not.
    pub(crate) fn failed(&mut self, group: Group, need: Need) {
        for entry in &mut self.entries[group.begin..group.end] {
            (entry.epoch, entry.refused) = (None, need == Need::Queued);
        }
    }

    /// The store was closed in order, and every flush in this life worked.
    pub(crate) fn closed(&mut self, epoch: u64) {
        let all = Group { begin: self.entries.len(), end: self.entries.len() };
        self.acknowledged(all, Need::Durable, epoch);
        for entry in &mut self.entries {
            if entry.promise == Promise::Written {
                entry.promise = Promise::Durable;
            }
        }
    }

    /// What was only written may be gone: the power was cut, or a flush failed.
    pub(crate) fn forget_written(&mut self) {
        for entry in &mut self.entries {
            if entry.promise == Promise::Written {
                entry.promise = Promise::None;
            }
        }
    }

    /// Compares what is in the store with what was appended and promised.
    pub(crate) fn check(&self, found: &[u64]) -> Result<(), String> {
        let mut last = None;
        for n in found {
            if last.is_some_and(|last| last >= *n) {
                return Err(format!("record {n} comes after {last:?}"));
            }
            last = Some(*n);
        }
        for (n, entry) in self.entries.iter().enumerate() {
            let found = found.binary_search(&(n as u64)).is_ok();
            if found && entry.refused {
                return Err(format!("record {n} was refused and is there"));
            }
            if entry.promise > Promise::None && !found {
                return Err(format!("record {n} was promised ({:?}) and is lost", entry.promise));
            }
        }
        Ok(())
    }

    /// A start has shown these, so that they stay; and a new life begins.
    pub(crate) fn shown(&mut self, found: &[u64]) {
        for n in found {
            if let Some(entry) = usize::try_from(*n).ok().and_then(|n| self.entries.get_mut(n)) {
                entry.promise = Promise::Durable;
            }
        }
        self.life = self.entries.len();
    }

    /// The numbers of the records in a store. Each must be what was appended, but for what the store
    /// itself adds. `torn` allows for ends that the next start will put in order.
    pub(crate) fn read(&self, store: &Path, torn: bool) -> Result<Vec<u64>, String> {
        let reader = Reader::open(store).map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        for stored in reader.records() {
            let record = match stored {
                Ok(stored) => stored.record,
                Err(_) if torn => continue,
                Err(error) => return Err(format!("unreadable: {error}")),
            };
            let n = match &record {
                Record::Chunk(chunk) => number(chunk.exchange.as_bytes()),
                Record::SessionOpened(opened) => number(opened.session.as_bytes()),
                Record::SessionChanged(changed)
                    if changed.state == SessionState::Incomplete(IncompleteReason::GatewayLost) =>
                {
                    continue;
                }
                // The store's own: checkpoints, seals.
                Record::Unknown { kind, .. } if kind.0 >= 64 => continue,
                other => return Err(format!("nobody appended {other:?}")),
            };
            let entry = usize::try_from(n).ok().and_then(|n| self.entries.get(n));
            if entry.is_none_or(|entry| entry.record != record) {
                return Err(format!("nobody appended record {n} as it is"));
            }
            found.push(n);
        }
        Ok(found)
    }
}

fn record(n: u64, chance: &mut Chance) -> Record {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    if chance.one_in(12) {
        return Record::SessionOpened(SessionOpened {
            session: SessionId::from_bytes(id),
            time: Timestamp::from_micros(1),
            key: SessionKey {
                issuer: "https://idp.example".into(),
                subject: format!("subject-{n}"),
                cluster: "prod".into(),
                task: None,
            },
            principal: Principal::default(),
            kind: recorder_user::model::SessionKind::Api,
        });
    }
    let length = if chance.one_in(4) { chance.index(3000) } else { chance.index(200) };
    let data: Vec<u8> = (0..length).map(|_| chance.draw().to_le_bytes()[0]).collect();
    Record::Chunk(Chunk {
        exchange: ExchangeId::from_bytes(id),
        direction: Direction::Request,
        at_us: 1,
        offset: 0,
        data: Bytes::from(data),
    })
}

fn number(id: &[u8; 16]) -> u64 {
    id.last_chunk().map_or(u64::MAX, |eight| u64::from_be_bytes(*eight))
}

#[test]
fn the_book_notices_what_is_lost_doubled_moved_or_made_up() {
    let mut book = Book::default();
    let chance = &mut Chance::of(&[1]);
    let (first, _) = book.group(chance, 0);
    while book.entries.len() < 6 {
        let (group, _) = book.group(chance, 0);
        book.acknowledged(group, Need::Written, 1);
    }
    book.acknowledged(first, Need::Durable, 1);
    let all: Vec<u64> = (0..book.entries.len() as u64).collect();
    assert_eq!(book.check(&all), Ok(()));
    assert!(book.check(&all[1..]).is_err(), "lost");
    assert!(book.check(&[&all[..], &[2]].concat()).is_err(), "moved or doubled");
    book.forget_written();
    assert_eq!(book.check(&all[..first.end]), Ok(()), "only written, and the power was cut");
    book.shown(&all);
    assert!(book.check(&all[..first.end]).is_err(), "a start has shown it");
}

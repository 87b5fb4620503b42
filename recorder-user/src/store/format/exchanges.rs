//! The exchanges that are under way: whose they are, and what they ask.

use std::collections::HashMap;

use crate::model::{ExchangeId, ExchangeOpened, Record, SessionId};

/// What makes two requests the same one asked again: session, method and target.
pub(super) type Topic = [u8; 16];

struct Open {
    session: SessionId,
    topic: Option<Topic>,
}

/// Follows exchanges from their intent to their outcome.
#[derive(Default)]
pub(in crate::store) struct Exchanges(HashMap<ExchangeId, Open>);

impl Exchanges {
    /// Takes notice of a record that is about to be written.
    pub(super) fn see(&mut self, record: &Record) {
        if let Record::ExchangeOpened(opened) = record
            && let Some(session) = opened.session
            && opened.refusal.is_none()
            && self.0.len() < EXCHANGES_MAX
        {
            self.0.insert(opened.exchange, Open { session, topic: topic(session, opened) });
        }
    }

    /// The session that a record is of. An outcome is the last word on its exchange.
    pub(super) fn session(&mut self, record: &Record) -> Option<SessionId> {
        match record {
            Record::SessionOpened(opened) => Some(opened.session),
            Record::SessionChanged(changed) => Some(changed.session),
            Record::ConnectionSeen(seen) => Some(seen.session),
            Record::ExchangeOpened(opened) => opened.session,
            Record::ExchangeSettled(settled) => {
                self.0.remove(&settled.exchange).map(|open| open.session)
            }
            other => self.0.get(&other.exchange()?).map(|open| open.session),
        }
    }

    pub(super) fn topic(&self, exchange: ExchangeId) -> Option<Topic> {
        self.0.get(&exchange)?.topic
    }
}

/// A client must not be able to find two requests that are taken for one: it would see from sizes what another
/// session read.
fn topic(session: SessionId, opened: &ExchangeOpened) -> Option<Topic> {
    let head = opened.head.as_ref()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(session.as_bytes());
    hasher.update(head.method.as_bytes());
    hasher.update(b" ");
    hasher.update(head.target.as_bytes());
    hasher.finalize().as_bytes().first_chunk().copied()
}

/// So many at once are followed, which is more than a gateway carries. What is beyond is stored whole, and
/// encrypted with the segment's key.
const EXCHANGES_MAX: usize = 1 << 17;

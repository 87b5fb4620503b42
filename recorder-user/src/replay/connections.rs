//! The connections that the witness recorded with a session.

use std::collections::HashMap;

use crate::{
    model::{ConnectionSeen, Kind, Record, Relation},
    store::{ReadError, Reader, SessionView},
};

/// A session shows at most so many connections; [`Connections::left_out`] counts the others.
pub const CONNECTIONS_MAX: usize = 4096;

/// The connections of one session, in the order in which they came on record, each as last recorded.
#[derive(Debug, Default)]
pub struct Connections {
    /// The connections.
    pub seen: Vec<ConnectionSeen>,
    /// How many more there are.
    pub left_out: u64,
    places: HashMap<(Relation, u64, u64), usize>,
}

impl Connections {
    fn add(&mut self, record: ConnectionSeen) {
        // What stands for several has no cookie, and there is one of a cgroup.
        let cgroup = if record.cookie == 0 { record.origin.cgroup_id } else { 0 };
        let key = (record.relation, record.cookie, cgroup);
        if let Some(place) = self.places.get(&key).copied() {
            if let Some(seen) = self.seen.get_mut(place) {
                // Counted together: each record that does not say `again` counts further ones.
                let before = if record.cookie == 0 && !record.again { seen.connections } else { 0 };
                *seen = record;
                seen.connections += before;
            }
        } else if self.seen.len() < CONNECTIONS_MAX {
            self.places.insert(key, self.seen.len());
            self.seen.push(record);
        } else {
            self.left_out += u64::from(!record.again);
        }
    }
}

/// Adds what the witness recorded with a session of one gateway. Sessions without any cost nothing.
///
/// # Errors
/// When the segments cannot be read.
pub fn connections(
    reader: &Reader,
    view: &SessionView,
    found: &mut Connections,
) -> Result<(), ReadError> {
    let Some(last) = view.seen_last else { return Ok(()) };
    for stored in reader.records_of_kind(Kind::CONNECTION_SEEN, Some(view.first)) {
        let stored = match stored {
            Ok(stored) => stored,
            // Deleted on purpose: `verify` says so.
            Err(ReadError::Payload { source, .. }) if source.is_deletion() => continue,
            Err(error) => return Err(error),
        };
        if stored.position > last {
            break;
        }
        if let Record::ConnectionSeen(seen) = stored.record
            && seen.session == view.session
        {
            found.add(*seen);
        }
        if stored.position == last {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(cookie: u64, sent: u64) -> ConnectionSeen {
        ConnectionSeen { cookie, sent_bytes: Some(sent), connections: 1, ..Default::default() }
    }

    #[test]
    fn later_records_of_a_connection_take_the_place_of_earlier_ones() {
        let mut found = Connections::default();
        for record in [seen(7, 1), seen(8, 2), ConnectionSeen { again: true, ..seen(7, 3) }] {
            found.add(record);
        }
        let sent: Vec<_> = found.seen.iter().map(|seen| seen.sent_bytes).collect();
        assert_eq!(sent, [Some(3), Some(2)]);
    }

    #[test]
    fn counts_of_many_add_up() {
        let mut found = Connections::default();
        for (connections, again) in [(3, false), (2, false), (7, true)] {
            found.add(ConnectionSeen { connections, again, ..seen(0, 0) });
        }
        assert_eq!(found.seen[0].connections, 7);
        found.add(ConnectionSeen { connections: 1, ..seen(0, 0) });
        assert_eq!((found.seen.len(), found.seen[0].connections), (1, 8));
    }

    #[test]
    fn what_is_over_the_bound_is_counted_once() {
        let mut found = Connections::default();
        for cookie in 1..=CONNECTIONS_MAX as u64 + 2 {
            found.add(seen(cookie, 0));
            found.add(ConnectionSeen { again: true, ..seen(cookie, 1) });
        }
        assert_eq!((found.seen.len(), found.left_out), (CONNECTIONS_MAX, 2));
        assert!(found.seen.iter().all(|seen| seen.sent_bytes == Some(1)));
    }
}

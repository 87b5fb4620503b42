//! A session as a sequence of events in time, and what came of it in all.

use std::collections::{BTreeMap, HashMap};

use super::{Frame, Frames, Timed, Track, WholeSession};
use crate::{
    model::{
        CapabilityRecord, Change, Decision, Ending, ExchangeId, Gap, GatewayId, ObjectChange,
        StreamFacts, StreamRequest, Timestamp,
    },
    store::{ExchangeRow, SessionView},
};

/// What a row does not hold of one exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// Watch events in order, with their times.
    pub frames: Frames,
    /// Where the account has gaps.
    pub gaps: Vec<Gap>,
    /// All objects, where the row holds only some.
    pub objects: Option<Vec<ObjectChange>>,
    /// When the outcome was recorded.
    pub settled: Option<Timestamp>,
    /// What an upgraded connection was asked for.
    pub stream: Option<StreamRequest>,
    /// What was seen of it.
    pub stream_facts: Option<StreamFacts>,
}

/// One invocation of a client: kubectl says which requests belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandView {
    /// kubectl's id of the invocation; none when the client does not send one, and then every
    /// exchange is a command of its own.
    pub id: Option<String>,
    /// kubectl's word for it, or the first word of the user agent.
    pub label: String,
    /// Its exchanges, by index.
    pub exchanges: Vec<usize>,
}

/// What happens at an instant of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The exchange of this index was received.
    Exchange(usize),
    /// The exchange of this index became a stream.
    Stream(usize),
    /// A frame of this exchange was delivered.
    Frame(usize, usize),
    /// A stream, or an exchange that did not finish, came to its end.
    Ended(usize),
    /// The session ended.
    SessionEnded,
}

/// One event of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// What.
    pub what: What,
}

impl Timed for Event {
    fn time(&self) -> Timestamp {
        self.time
    }
}

impl Timed for &Event {
    fn time(&self) -> Timestamp {
        self.time
    }
}

/// A session, ready to be replayed.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The session, all tracks in one.
    pub session: SessionView,
    /// Its tracks.
    pub tracks: Vec<Track>,
    /// What the witness of the gateway's run could see.
    pub witness: Option<CapabilityRecord>,
    /// Its exchanges in the order in which they were received.
    pub exchanges: Vec<ExchangeRow>,
    /// What the rows do not hold.
    pub details: HashMap<ExchangeId, Detail>,
    /// Its commands in the order of their first exchange.
    pub commands: Vec<CommandView>,
    /// Everything in order.
    pub events: Vec<Event>,
    /// Whether the session has more exchanges than a timeline takes.
    pub is_cut: bool,
}

/// An object that a session changed, with all that happened to it in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHistory {
    /// The object; its `change` is the last one.
    pub object: ObjectChange,
    /// The changes, each once if it repeats directly.
    pub changes: Vec<Change>,
}

/// What came of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Every object that was changed, in the order of the first change.
    pub objects: Vec<ObjectHistory>,
    /// Exchanges that changed more objects than are named.
    pub objects_unnamed: u64,
    /// Exchanges that were refused, by index.
    pub denied: Vec<usize>,
    /// Exchanges without a recorded outcome, by index.
    pub unknown: Vec<usize>,
    /// Exchanges whose account has a gap, by index.
    pub gaps: Vec<usize>,
    /// Bytes missing on connections, beyond those of single exchanges.
    pub connection_gap_bytes: u64,
}

impl Timeline {
    /// Builds the sequence of events. `exchanges` come in the order of their ids, which is that of
    /// time.
    #[must_use]
    pub fn new(
        session: WholeSession,
        witness: Option<CapabilityRecord>,
        exchanges: Vec<ExchangeRow>,
        details: HashMap<ExchangeId, Detail>,
    ) -> Self {
        let WholeSession { view: session, tracks } = session;
        let commands = commands(&exchanges);
        let mut events = Vec::with_capacity(exchanges.len() + 1);
        for (index, row) in exchanges.iter().enumerate() {
            events.push(Event { time: row.time, what: What::Exchange(index) });
            let Some(detail) = details.get(&row.exchange) else { continue };
            if detail.stream.is_some() {
                events.push(Event { time: row.time, what: What::Stream(index) });
            }
            for (number, frame) in detail.frames.frames.iter().enumerate() {
                let time = row.time.plus_micros(i64::try_from(frame.at_us).unwrap_or(i64::MAX));
                events.push(Event { time, what: What::Frame(index, number) });
            }
            if let Some(time) = detail.settled
                && (is_stream(row) || detail.stream.is_some() || was_cut(row))
            {
                events.push(Event { time, what: What::Ended(index) });
            }
        }
        if let Some(time) = session.ended {
            events.push(Event { time, what: What::SessionEnded });
        }
        // Stable: what has the same time stays in the order in which it was recorded.
        events.sort_by_key(|event| event.time);
        Self { session, tracks, witness, exchanges, details, commands, events, is_cut: false }
    }

    /// The gateway that wrote an exchange, where the session has tracks of several.
    #[must_use]
    pub fn gateway_of(&self, row: &ExchangeRow) -> Option<GatewayId> {
        let is_its = |track: &&Track| Some(track.view.session) == row.session;
        let track = self.tracks.iter().filter(|_| self.tracks.len() > 1).find(is_its);
        track.and_then(|track| track.gateway)
    }

    /// For each exchange the index of its command.
    #[must_use]
    pub fn command_indices(&self) -> Vec<usize> {
        let mut indices = vec![0; self.exchanges.len()];
        for (number, command) in self.commands.iter().enumerate() {
            for &exchange in &command.exchanges {
                indices[exchange] = number;
            }
        }
        indices
    }

    /// A frame of an exchange.
    #[must_use]
    pub fn frame(&self, exchange: usize, number: usize) -> Option<&Frame> {
        let row = self.exchanges.get(exchange)?;
        self.details.get(&row.exchange)?.frames.frames.get(number)
    }

    /// The objects that an exchange changed: all of them where they were loaded.
    #[must_use]
    pub fn objects_of(&self, row: &ExchangeRow) -> Vec<ObjectChange> {
        let loaded = self.details.get(&row.exchange).and_then(|detail| detail.objects.clone());
        loaded.unwrap_or_else(|| row.objects.clone())
    }

    /// What came of the session.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        let mut places = BTreeMap::<(String, String, String, String), usize>::new();
        let mut gap_bytes = 0_u64;
        for (index, row) in self.exchanges.iter().enumerate() {
            let objects = self.objects_of(row);
            let named = u64::try_from(objects.len()).unwrap_or(u64::MAX);
            let known = u64::try_from(row.objects.len()).unwrap_or(u64::MAX);
            summary.objects_unnamed +=
                known.saturating_add(row.objects_omitted).saturating_sub(named);
            for object in objects {
                note(&mut summary.objects, &mut places, object);
            }
            if is_refused(row) {
                summary.denied.push(index);
            } else if row.status.is_none() {
                summary.unknown.push(index);
            }
            if row.account.gap_bytes > 0 {
                summary.gaps.push(index);
                gap_bytes = gap_bytes.saturating_add(row.account.gap_bytes);
            }
        }
        summary.connection_gap_bytes = self.session.account.gap_bytes.saturating_sub(gap_bytes);
        summary
    }
}

/// Whether the gateway answered itself, or policy said no.
#[must_use]
pub fn is_refused(row: &ExchangeRow) -> bool {
    row.verdict == Some(Decision::Deny) || row.refusal.is_some()
}

/// Whether the exchange delivers events while it lasts, so that its end is an event too.
#[must_use]
pub fn is_stream(row: &ExchangeRow) -> bool {
    row.verb == "watch"
}

/// Whether the exchange ended otherwise than by itself.
#[must_use]
pub fn was_cut(row: &ExchangeRow) -> bool {
    row.ending.is_some_and(|ending| ending != Ending::Finished)
}

/// kubectl's word for the invocation, or the first word of the user agent.
#[must_use]
pub fn command_label(row: &ExchangeRow) -> String {
    let agent = || row.user_agent.split_whitespace().next().unwrap_or_default().to_owned();
    row.command_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(agent)
}

fn commands(exchanges: &[ExchangeRow]) -> Vec<CommandView> {
    let mut commands = Vec::<CommandView>::new();
    let mut by_id = HashMap::<&str, usize>::new();
    for (index, row) in exchanges.iter().enumerate() {
        let id = row.command.as_deref().filter(|id| !id.is_empty());
        if let Some(&number) = id.and_then(|id| by_id.get(id)) {
            commands[number].exchanges.push(index);
            continue;
        }
        if let Some(id) = id {
            by_id.insert(id, commands.len());
        }
        commands.push(CommandView {
            id: id.map(Into::into),
            label: command_label(row),
            exchanges: vec![index],
        });
    }
    commands
}

fn note(
    histories: &mut Vec<ObjectHistory>,
    places: &mut BTreeMap<(String, String, String, String), usize>,
    object: ObjectChange,
) {
    // A deleted object that is made again has another uid: two objects. Without a uid the name
    // counts.
    let key =
        (object.kind.clone(), object.namespace.clone(), object.name.clone(), object.uid.clone());
    let change = object.change;
    let place = *places.entry(key).or_insert_with(|| {
        histories.push(ObjectHistory { object: object.clone(), changes: Vec::new() });
        histories.len() - 1
    });
    let history = &mut histories[place];
    if history.changes.last() != Some(&change) {
        history.changes.push(change);
    }
    history.object.change = change;
}

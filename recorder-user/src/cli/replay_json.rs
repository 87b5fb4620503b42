//! `recorder replay --json`: the same events, one object a line.

use serde::Serialize;

use super::{
    CliError,
    json::{ExchangeLine, SessionLine},
    screen::Screen,
};
use crate::{
    model::{
        CapabilityRecord, Ending, ExchangeId, Gap, ObjectChange, StreamFacts, StreamRequest,
        Timestamp,
    },
    replay::{Frame, Pace, Player, Timeline, What},
};

/// One line of `recorder replay --json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum EventLine<'a> {
    /// The first line.
    Session {
        #[serde(flatten)]
        session: SessionLine<'a>,
        witness: Option<&'a CapabilityRecord>,
    },
    /// A request was received; what came of it is told here too.
    #[serde(rename_all = "camelCase")]
    Exchange {
        at_us: i64,
        command_name: &'a str,
        #[serde(flatten)]
        exchange: Box<ExchangeLine<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        stream: Option<&'a StreamRequest>,
        #[serde(skip_serializing_if = "<[Gap]>::is_empty")]
        gaps: &'a [Gap],
    },
    /// A frame was delivered.
    #[serde(rename_all = "camelCase")]
    Frame { at_us: i64, time: Timestamp, exchange: ExchangeId, frame: &'a Frame },
    /// A stream, or an exchange that did not finish, ended.
    #[serde(rename_all = "camelCase")]
    Ended {
        at_us: i64,
        time: Timestamp,
        exchange: ExchangeId,
        ending: Option<Ending>,
        #[serde(skip_serializing_if = "Option::is_none")]
        stream_facts: Option<&'a StreamFacts>,
    },
    /// The session ended.
    #[serde(rename_all = "camelCase")]
    End { at_us: i64, time: Timestamp },
    /// The last line.
    #[serde(rename_all = "camelCase")]
    Summary {
        commands: usize,
        objects: Vec<&'a ObjectChange>,
        objects_unnamed: u64,
        denied: usize,
        unknown: usize,
        gaps: usize,
        connection_gap_bytes: u64,
        is_cut: bool,
    },
}

/// Plays a timeline as one JSON object a line.
pub(super) fn play(
    timeline: &Timeline,
    pace: Pace,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let session = SessionLine::new(&timeline.session, &timeline.tracks);
    screen.object(&EventLine::Session { session, witness: timeline.witness.as_ref() })?;
    let commands = timeline.command_indices();
    for (wait, event) in Player::new(timeline.events.iter(), pace) {
        if !wait.is_zero() {
            screen.out.flush()?;
            (screen.sleep)(wait);
        }
        let (time, at_us) = (event.time, event.time.micros_since(timeline.session.started));
        let line = match event.what {
            What::Exchange(index) => {
                let row = &timeline.exchanges[index];
                let detail = timeline.details.get(&row.exchange);
                EventLine::Exchange {
                    at_us,
                    command_name: &timeline.commands[commands[index]].label,
                    exchange: Box::new(ExchangeLine::from(row).by(timeline.gateway_of(row))),
                    stream: detail.and_then(|detail| detail.stream.as_ref()),
                    gaps: detail.map_or(&[], |detail| &detail.gaps),
                }
            }
            What::Frame(index, number) => {
                let exchange = timeline.exchanges[index].exchange;
                let Some(frame) = timeline.frame(index, number) else { continue };
                EventLine::Frame { at_us, time, exchange, frame }
            }
            What::Ended(index) => {
                let row = &timeline.exchanges[index];
                let detail = timeline.details.get(&row.exchange);
                EventLine::Ended {
                    at_us,
                    time,
                    exchange: row.exchange,
                    ending: row.ending,
                    stream_facts: detail.and_then(|detail| detail.stream_facts.as_ref()),
                }
            }
            // Told with the exchange.
            What::Stream(_) => continue,
            What::SessionEnded => EventLine::End { at_us, time },
        };
        screen.object(&line)?;
    }
    let summary = timeline.summary();
    screen.object(&EventLine::Summary {
        commands: timeline.commands.len(),
        objects: summary.objects.iter().map(|history| &history.object).collect(),
        objects_unnamed: summary.objects_unnamed,
        denied: summary.denied.len(),
        unknown: summary.unknown.len(),
        gaps: summary.gaps.len(),
        connection_gap_bytes: summary.connection_gap_bytes,
        is_cut: timeline.is_cut,
    })?;
    Ok(())
}

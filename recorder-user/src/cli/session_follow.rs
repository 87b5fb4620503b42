//! `recorder follow SESSION`: its requests as they are made and answered.

use std::collections::{HashMap, VecDeque};

use super::{
    CliError,
    json::ExchangeLine,
    library::{Library, failed},
    replay,
    screen::{Ink, Screen},
    stream::POLL,
    text, units,
};
use crate::{
    model::{ExchangeId, Record, ResponseStarted, Timestamp},
    replay::{WatchDecoder, command_label, is_stream, stream::may_be_stream},
    store::{ExchangeRow, Position, Query, Reader, SessionView, StoredRecord},
};

/// Follows a session to its end.
pub(super) fn run(
    library: Library,
    view: SessionView,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let query = Query { session: Some(view.session), ..Query::default() };
    let rows = library.search(&query)?;
    let witness = library.witness_before(view.first);
    let reader = library.reader(view.first);
    drop(library);
    if !screen.json {
        for line in replay::header(&view, witness.as_ref(), screen.look) {
            screen.line(&line)?;
        }
    }
    let past = if screen.json { usize::MAX } else { PAST_MAX };
    let mut following = Following::new(view, rows, past);
    following.read(&reader, screen)
}

/// A row on its way to its outcome.
struct Going {
    row: ExchangeRow,
    watch: Option<WatchDecoder>,
}

struct Following {
    view: SessionView,
    going: HashMap<ExchangeId, Going>,
    /// Where reading begins: at the oldest exchange that has no outcome.
    from: Position,
    /// What the rows already tell: up to here, this record included.
    known: Position,
    past: VecDeque<ExchangeRow>,
    left_out: usize,
    ended: bool,
}

/// How many exchanges of the past a follow begins with; programs get all.
const PAST_MAX: usize = 20;

/// More exchanges at a time are shown when they end, but their watch events are not.
const GOING_MAX: usize = 4096;

impl Following {
    fn new(view: SessionView, rows: Vec<ExchangeRow>, past_max: usize) -> Self {
        let known = rows.iter().map(|row| row.last.unwrap_or(row.first).max(row.first)).max();
        let known = known.unwrap_or(view.first);
        let open = rows.iter().filter(|row| row.last.is_none()).map(|row| row.first).min();
        let left_out = rows.len().saturating_sub(past_max);
        let past = rows.into_iter().skip(left_out).collect();
        let ended = view.ended.is_some();
        let from = open.map_or(known, |open| open.min(known));
        Self { view, going: HashMap::new(), from, known, past, left_out, ended }
    }

    fn read(&mut self, reader: &Reader, screen: &mut Screen<'_>) -> Result<(), CliError> {
        if self.left_out > 0 {
            screen.line(&format!(" … {} exchanges before", self.left_out))?;
        }
        for row in std::mem::take(&mut self.past) {
            self.exchange(&row, screen)?;
        }
        let mut records = reader.records_from(self.from);
        while !self.ended {
            let Some(stored) = records.next() else {
                screen.out.flush()?;
                (screen.sleep)(POLL);
                continue;
            };
            let stored = stored.map_err(|error| failed("read", reader.directory(), error))?;
            self.take(stored, screen)?;
        }
        if !screen.json {
            screen.line(&screen.look.paint(Ink::Faint, "session ended"))?;
        }
        Ok(())
    }

    fn take(&mut self, stored: StoredRecord, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let (at, is_new) = (stored.position, stored.position > self.known);
        match stored.record {
            Record::ExchangeOpened(opened) if opened.session == Some(self.view.session) => {
                let row = ExchangeRow::opened(at, &opened);
                if row.last.is_some() {
                    // Refused at once.
                    return if is_new { self.exchange(&row, screen) } else { Ok(()) };
                }
                if is_new && (is_stream(&row) || may_be_stream(&row)) {
                    self.begun(&row, screen)?;
                }
                if self.going.len() < GOING_MAX {
                    self.going.insert(row.exchange, Going { row, watch: None });
                }
            }
            Record::ResponseStarted(started) => self.answered(&started),
            Record::Chunk(chunk) => {
                let Some(going) = self.going.get_mut(&chunk.exchange) else { return Ok(()) };
                let Some(watch) = &mut going.watch else { return Ok(()) };
                for frame in watch.push(&chunk) {
                    if is_new {
                        let time = going
                            .row
                            .time
                            .plus_micros(i64::try_from(frame.at_us).unwrap_or(i64::MAX));
                        let words = text::frame(&frame, &going.row.resource);
                        note(&self.view, time, &words, screen)?;
                    }
                }
            }
            Record::ExchangeSettled(settled) => {
                let Some(mut going) = self.going.remove(&settled.exchange) else { return Ok(()) };
                going.row.settle(at, &settled);
                if is_new {
                    self.exchange(&going.row, screen)?;
                }
            }
            Record::SessionChanged(changed) if changed.session == self.view.session => {
                self.ended |= changed.ended.is_some();
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, started: &ResponseStarted) {
        if let Some(going) = self.going.get_mut(&started.exchange)
            && is_stream(&going.row)
        {
            let head = &started.head;
            let encoding = head.header("content-encoding").unwrap_or_default();
            going.watch = Some(WatchDecoder::new(head.header("content-type"), encoding));
        }
    }

    fn begun(&self, row: &ExchangeRow, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let request = text::short(&text::request(row, 0), 160);
        let id = text::short_id(&row.exchange);
        let words = format!("{request} begins; see it with: recorder follow {id}");
        note(&self.view, row.time, &words, screen)
    }

    fn exchange(&self, row: &ExchangeRow, screen: &mut Screen<'_>) -> Result<(), CliError> {
        if screen.json {
            return Ok(screen.object(&ExchangeLine::from(row))?);
        }
        let look = screen.look;
        let at = units::offset(row.time.micros_since(self.view.started));
        let (status, status_ink) = text::status(row.status);
        let (outcome, ink) = text::outcome(row, &row.objects);
        // Widths that suit most: what comes is not known.
        let line = [
            look.paint(Ink::Faint, &at),
            look.paint(Ink::Strong, &format!("{:16}", text::short(&command_label(row), 28))),
            format!("{:48}", text::short(&text::request(row, 0), 72)),
            look.paint(status_ink, &format!("{status:>3}")),
            format!("{:>8}", text::latency(row)),
            look.paint(ink, &outcome),
        ]
        .join("  ");
        Ok(screen.line(&format!(" {line}"))?)
    }
}

fn note(
    view: &SessionView,
    time: Timestamp,
    words: &str,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    if screen.json {
        return Ok(());
    }
    let at = screen.look.paint(Ink::Faint, &units::offset(time.micros_since(view.started)));
    Ok(screen.line(&format!(" {at}  ~ {words}"))?)
}

//! One watch, played or followed.

use std::time::Duration;

use serde::Serialize;

use super::{
    CliError,
    library::failed,
    outlet::Outlet,
    screen::{Ink, Screen},
    stream::{POLL, Playing},
    text, units,
};
use crate::{
    model::{Ending, ExchangeId, Record, Timestamp},
    replay::{Frame, WatchDecoder},
    store::{ExchangeRow, Reader, RecordsOf, RunEnd},
};

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum EventLine<'a> {
    #[serde(rename_all = "camelCase")]
    Frame { exchange: ExchangeId, frame: &'a Frame },
    #[serde(rename_all = "camelCase")]
    Ended { exchange: ExchangeId, ending: Option<Ending>, undecoded_bytes: u64 },
}

/// Plays a recorded watch.
pub(super) fn play(
    reader: &Reader,
    row: &ExchangeRow,
    playing: &Playing,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let mut watch = Watch::new(reader, row);
    watch.header(screen)?;
    let seek = playing.seek.map(|seek| u64::try_from(seek.as_micros()).unwrap_or(u64::MAX));
    let (mut last, mut outlet) = (None::<Timestamp>, Outlet::Live);
    while let Some(frames) = watch.next(reader)? {
        for frame in frames {
            if seek.is_some_and(|seek| frame.at_us < seek) {
                continue;
            }
            let at = row.time.plus_micros(i64::try_from(frame.at_us).unwrap_or(i64::MAX));
            let wait = last.map_or(Duration::ZERO, |last| playing.pace.wait(last, at));
            last = Some(at);
            if !wait.is_zero() {
                screen.out.flush()?;
                (screen.sleep)(wait);
            }
            watch.show(&frame, &mut outlet, screen)?;
        }
    }
    watch.finish(screen)
}

/// Shows a watch while it goes on.
pub(super) fn follow(
    reader: &Reader,
    row: &ExchangeRow,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let mut watch = Watch::new(reader, row);
    watch.header(screen)?;
    let mut outlet = Outlet::past();
    loop {
        if let Some(frames) = watch.next(reader)? {
            for frame in &frames {
                watch.show(frame, &mut outlet, screen)?;
            }
            continue;
        }
        if watch.records.end() != RunEnd::Open {
            break;
        }
        outlet.go_live(screen)?;
        screen.out.flush()?;
        (screen.sleep)(POLL);
    }
    outlet.go_live(screen)?;
    watch.finish(screen)
}

struct Watch<'a> {
    row: &'a ExchangeRow,
    records: RecordsOf,
    decoder: Option<WatchDecoder>,
    ending: Option<Ending>,
}

impl<'a> Watch<'a> {
    fn new(reader: &Reader, row: &'a ExchangeRow) -> Self {
        Self { row, records: reader.records_of(row), decoder: None, ending: None }
    }

    fn header(&self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        if screen.json {
            return Ok(());
        }
        screen.line(&format!(
            "{}  by {}  cluster {}",
            screen.look.paint(Ink::Strong, &text::short(&text::request(self.row, 0), 160)),
            text::short(&self.row.username, 80),
            text::short(&self.row.cluster, 80),
        ))?;
        screen.line(&format!("started {} UTC", units::short_time(self.row.time)))?;
        screen.line("")?;
        Ok(())
    }

    /// The events of the next record; none at the end so far.
    fn next(&mut self, reader: &Reader) -> Result<Option<Vec<Frame>>, CliError> {
        let Some(stored) = self.records.next() else { return Ok(None) };
        let stored = stored.map_err(|error| failed("read", reader.directory(), error))?;
        match stored.record {
            Record::ResponseStarted(started) => {
                let head = &started.head;
                let encoding = head.header("content-encoding").unwrap_or_default();
                self.decoder = Some(WatchDecoder::new(head.header("content-type"), encoding));
            }
            Record::Chunk(chunk) => {
                return Ok(Some(
                    self.decoder.as_mut().map_or_else(Vec::new, |decoder| decoder.push(&chunk)),
                ));
            }
            Record::ExchangeSettled(settled) => self.ending = Some(settled.ending),
            _ => {}
        }
        Ok(Some(Vec::new()))
    }

    fn show(
        &self,
        frame: &Frame,
        outlet: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        if screen.json {
            return Ok(screen.object(&EventLine::Frame { exchange: self.row.exchange, frame })?);
        }
        let at = units::offset(i64::try_from(frame.at_us).unwrap_or(i64::MAX));
        let at = screen.look.paint(Ink::Faint, &at);
        outlet.line(&format!(" {at}  {}", text::frame(frame, &self.row.resource)), screen)
    }

    fn finish(self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let undecoded_bytes = self.decoder.as_ref().map_or(0, WatchDecoder::undecoded_bytes);
        let (exchange, ending) = (self.row.exchange, self.ending);
        if screen.json {
            screen.object(&EventLine::Ended { exchange, ending, undecoded_bytes })?;
            return Ok(());
        }
        screen.line("")?;
        let how = ending.map_or("no outcome is on record", text::ending);
        screen.line(how)?;
        if undecoded_bytes > 0 {
            screen.line(&format!("{} are no whole event", units::bytes(undecoded_bytes)))?;
        }
        Ok(())
    }
}

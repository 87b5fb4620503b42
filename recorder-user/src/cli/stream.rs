//! One stream, played or followed: time is kept here, and a view shows the frames.

use std::time::Duration;

use super::{
    CliError,
    library::failed,
    outlet::Outlet,
    screen::{Ink, Look, Screen},
    stream_views, text, units,
};
use crate::{
    model::{Ending, Timestamp},
    replay::{
        Pace,
        stream::{
            OpenStreamError, StreamEnd, StreamFrame, StreamHead, StreamRecording, StreamSummary,
        },
    },
    store::{ExchangeRow, Reader},
    wire::stream::CommandStatus,
};

/// How often a follow looks for more.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// Shorter waits are summed up, so that a burst of frames is drawn once.
const WAIT_MIN: Duration = Duration::from_millis(20);

/// A line that is not at its end is shown when nothing comes for so long: it may be a prompt.
const IDLE_US: u64 = 1_000_000;

/// How a recorded stream is played.
pub(super) struct Playing {
    pub(super) pace: Pace,
    pub(super) seek: Option<Duration>,
    pub(super) stdin: bool,
}

/// Plays a recorded stream.
pub(super) fn play(
    reader: &Reader,
    row: &ExchangeRow,
    playing: &Playing,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let mut recording = open(reader, row)?;
    let seek = playing.seek.map(|seek| u64::try_from(seek.as_micros()).unwrap_or(u64::MAX));
    let mut outlet = if seek.is_some() { Outlet::Muted } else { Outlet::Live };
    let mut view = stream_views::of(recording.head(), playing.stdin, screen)?;
    let mut summary = StreamSummary::new(recording.head());
    let instant =
        |at_us: u64| Timestamp::EPOCH.plus_micros(i64::try_from(at_us).unwrap_or(i64::MAX));
    let (mut last, mut owed) = (seek.map(instant), Duration::ZERO);
    while let Some(frame) = next(&mut recording, reader)? {
        if frame.at_us.saturating_sub(summary.last_at_us) >= IDLE_US {
            view.idle(&mut outlet, screen)?;
        }
        if !outlet.is_live() && seek.is_none_or(|seek| frame.at_us >= seek) {
            outlet.go_live(screen)?;
        }
        if outlet.is_live() {
            let now = instant(frame.at_us);
            owed += last.map_or(Duration::ZERO, |last| playing.pace.wait(last, now));
            last = Some(last.map_or(now, |last| last.max(now)));
            if owed >= WAIT_MIN {
                view.draw(&mut outlet, screen)?;
                screen.out.flush()?;
                (screen.sleep)(std::mem::take(&mut owed));
            }
        }
        summary.push(&frame);
        view.frame(&frame, &mut outlet, screen)?;
    }
    outlet.go_live(screen)?;
    view.finish(&summary, &recording.end(), &mut outlet, screen)
}

/// Shows a stream while it goes on, from its recent past to its end.
pub(super) fn follow(
    reader: &Reader,
    row: &ExchangeRow,
    stdin: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let mut recording = loop {
        match StreamRecording::open(reader, row) {
            Err(OpenStreamError::NotAnswered) => (screen.sleep)(POLL),
            opened => break opened.map_err(|error| cannot_open(error, row))?,
        }
    };
    // Programs get everything, people the recent past.
    let mut outlet = if screen.json { Outlet::Live } else { Outlet::past() };
    let mut view = stream_views::of(recording.head(), stdin, screen)?;
    let mut summary = StreamSummary::new(recording.head());
    let mut silent = Duration::ZERO;
    loop {
        if let Some(frame) = next(&mut recording, reader)? {
            if frame.at_us.saturating_sub(summary.last_at_us) >= IDLE_US {
                view.idle(&mut outlet, screen)?;
            }
            silent = Duration::ZERO;
            summary.push(&frame);
            view.frame(&frame, &mut outlet, screen)?;
            continue;
        }
        if recording.end() != StreamEnd::Open {
            break;
        }
        outlet.go_live(screen)?;
        if silent >= Duration::from_micros(IDLE_US) {
            view.idle(&mut outlet, screen)?;
        }
        view.draw(&mut outlet, screen)?;
        screen.out.flush()?;
        (screen.sleep)(POLL);
        silent += POLL;
    }
    outlet.go_live(screen)?;
    view.finish(&summary, &recording.end(), &mut outlet, screen)
}

/// Opens a stream that was named.
pub(super) fn open(reader: &Reader, row: &ExchangeRow) -> Result<StreamRecording, CliError> {
    StreamRecording::open(reader, row).map_err(|error| cannot_open(error, row))
}

pub(super) fn cannot_open(error: OpenStreamError, row: &ExchangeRow) -> CliError {
    match error {
        OpenStreamError::NotAStream => CliError::not_a_stream(row),
        error => CliError::OpenStream(error),
    }
}

fn next(recording: &mut StreamRecording, reader: &Reader) -> Result<Option<StreamFrame>, CliError> {
    recording.next_frame().map_err(|error| failed("read", reader.directory(), error))
}

/// Two or three lines on what a stream was.
pub(super) fn header(head: &StreamHead, look: Look) -> Vec<String> {
    let who = head.principal.as_deref().map_or("nobody", |principal| &principal.username);
    let mut lines = vec![format!(
        "{}  by {}  cluster {}",
        look.paint(Ink::Strong, &text::short(&head.title(), 160)),
        text::short(who, 80),
        text::short(&head.cluster, 80),
    )];
    if let Some(command) = head.command_line() {
        lines.push(format!("command {}", text::short(&command, COMMAND_CHARS_MAX)));
    }
    let mut words = vec![format!("started {} UTC", units::short_time(head.started))];
    if let Some(agreement) = &head.agreement {
        words.push(text::agreement(agreement));
    }
    if head.has_terminal() {
        words.push("with a terminal".into());
    }
    lines.push(words.join("  "));
    lines
}

/// Longer command lines are cut for reading.
const COMMAND_CHARS_MAX: usize = 400;

/// `exit code 0`, `goes on`, `cut: the client left half-way`.
pub(super) fn ending(end: &StreamEnd, status: Option<&CommandStatus>) -> (String, Ink) {
    let noted = match end {
        StreamEnd::Settled { facts: Some(facts), .. } => facts.exit_code,
        _ => None,
    };
    let mut words = Vec::new();
    let mut ink = Ink::Plain;
    match (status.and_then(|status| status.exit_code).or(noted), status) {
        (Some(code), _) => {
            words.push(format!("exit code {code}"));
            ink = if code == 0 { Ink::Good } else { Ink::Warn };
        }
        (None, Some(status)) if !status.success => {
            words.push(format!("failed: {}", text::short(&status.message, 200)));
            ink = Ink::Bad;
        }
        _ => {}
    }
    match end {
        StreamEnd::Settled { ending: Ending::Finished, .. } if words.is_empty() => {
            words.push("finished".into());
        }
        StreamEnd::Settled { ending: Ending::Finished, .. } => {}
        StreamEnd::Settled { ending, .. } => {
            words.push(text::ending(*ending).into());
            ink = Ink::Warn;
        }
        StreamEnd::GatewayLost => {
            words.push("cut: the gateway ended without an outcome".into());
            ink = Ink::Warn;
        }
        StreamEnd::Open => {
            words.push("goes on, or its end is not on record".into());
            ink = Ink::Warn;
        }
    }
    (words.join(", "), ink)
}

//! asciicast v2 and v3 (<https://docs.asciinema.org/manual/asciicast/v3/>): a header and one event a line.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::{ExportError, LeftOut, Options, Selected};
use crate::{
    model::MicrosSince,
    replay::{
        escape_json,
        stream::{
            FrameKind, SCREEN_DEFAULT, StreamEnd, StreamFrame, StreamHead, StreamRecording, Utf8,
        },
    },
    wire::stream::Channel,
};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CastVersion {
    /// Times since the beginning.
    V2,
    /// Times since the event before, and an event for the exit code.
    V3,
}

pub(super) fn write(
    recording: &mut StreamRecording,
    version: CastVersion,
    size: Option<(u16, u16)>,
    options: &Options,
    out: &mut dyn Write,
) -> Result<LeftOut, ExportError> {
    let size = size.unwrap_or(SCREEN_DEFAULT);
    let head = recording.head().clone();
    let mut lines = Lines { version, out, last_us: 0 };
    lines.header(&header(version, &head, size))?;
    let mut cast =
        Cast { terminal: head.has_terminal(), size, exit: None, texts: Texts::default() };
    let mut left_out = LeftOut::default();
    while let Some(frame) = recording.next_frame()? {
        left_out.note(&frame, options);
        cast.frame(&frame, options, &mut lines)?;
    }
    cast.finish(&head, &recording.end(), &mut lines)?;
    Ok(left_out)
}

/// The first line; its keys in this order.
#[derive(Serialize)]
struct Header {
    version: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
    timestamp: i64,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

#[derive(Serialize)]
struct Term {
    cols: u16,
    rows: u16,
}

fn header(version: CastVersion, head: &StreamHead, (columns, rows): (u16, u16)) -> Header {
    let (number, (width, height), term) = match version {
        CastVersion::V2 => (2, (Some(columns), Some(rows)), None),
        CastVersion::V3 => (3, (None, None), Some(Term { cols: columns, rows })),
    };
    Header {
        version: number,
        width,
        height,
        term,
        timestamp: head.started.as_micros() / 1_000_000,
        title: head.title(),
        command: head.command_line(),
    }
}

/// What becomes of frames.
struct Cast {
    terminal: bool,
    size: (u16, u16),
    exit: Option<(MicrosSince, i32)>,
    texts: Texts,
}

/// Characters may lie in two frames of a channel, with other channels' frames between.
#[derive(Default)]
struct Texts {
    stdin: Text,
    stdout: Text,
    stderr: Text,
}

#[derive(Default)]
struct Text {
    utf8: Utf8,
    at_us: MicrosSince,
}

impl Cast {
    fn frame(
        &mut self,
        frame: &StreamFrame,
        options: &Options,
        lines: &mut Lines<'_>,
    ) -> io::Result<()> {
        let at_us = frame.at_us;
        let chosen = |selected| options.channel.is_none_or(|channel| channel == selected);
        match &frame.kind {
            FrameKind::Data { channel, data } => {
                let (code, text) = match channel {
                    Channel::Stdout if chosen(Selected::Stdout) => ("o", &mut self.texts.stdout),
                    Channel::Stderr if chosen(Selected::Stderr) => ("o", &mut self.texts.stderr),
                    Channel::Stdin if options.input => ("i", &mut self.texts.stdin),
                    Channel::Stdin if options.channel == Some(Selected::Stdin) => {
                        ("i", &mut self.texts.stdin)
                    }
                    _ => return Ok(()),
                };
                let mut whole = String::new();
                text.utf8.push(data, &mut whole);
                text.at_us = at_us;
                // Without a terminal nobody turned line ends into what a terminal needs.
                if code == "o" && !self.terminal {
                    whole = whole.replace('\n', "\r\n");
                }
                if whole.is_empty() { Ok(()) } else { lines.event(at_us, code, &whole) }
            }
            FrameKind::Resize { columns: columns @ 1.., rows: rows @ 1.. } => {
                if std::mem::replace(&mut self.size, (*columns, *rows)) == (*columns, *rows) {
                    return Ok(());
                }
                lines.event(at_us, "r", &format!("{columns}x{rows}"))
            }
            FrameKind::Status(status) => {
                self.exit = status.exit_code.map(|code| (at_us, code));
                Ok(())
            }
            FrameKind::Hole { from, to } => {
                let missing = to.saturating_sub(*from);
                lines.event(at_us, "m", &format!("{missing} bytes are missing in the record"))
            }
            FrameKind::Undecodable { reason, .. } => {
                lines.event(at_us, "m", &format!("cannot be decoded from here: {reason}"))
            }
            _ => Ok(()),
        }
    }

    fn finish(
        mut self,
        head: &StreamHead,
        end: &StreamEnd,
        lines: &mut Lines<'_>,
    ) -> io::Result<()> {
        let Texts { stdin, stdout, stderr } = &mut self.texts;
        for (code, text) in [("i", stdin), ("o", stdout), ("o", stderr)] {
            let mut rest = String::new();
            text.utf8.finish(&mut rest);
            if !rest.is_empty() {
                lines.event(text.at_us, code, &rest)?;
            }
        }
        let noted = match end {
            StreamEnd::Settled { time, facts: Some(facts), .. } => {
                let at_us = u64::try_from(time.micros_since(head.started)).unwrap_or(0);
                facts.exit_code.map(|code| (at_us, code))
            }
            _ => None,
        };
        match (lines.version, self.exit.or(noted)) {
            (CastVersion::V3, Some((at_us, code))) => lines.event(at_us, "x", &code.to_string()),
            _ => Ok(()),
        }
    }
}

struct Lines<'a> {
    version: CastVersion,
    out: &'a mut dyn Write,
    last_us: MicrosSince,
}

impl Lines<'_> {
    fn header(&mut self, header: &Header) -> io::Result<()> {
        writeln!(self.out, "{}", escape_json(&serde_json::to_string(header)?))
    }

    /// Whole microseconds in both versions, so that intervals are exact and no remainder adds up.
    fn event(&mut self, at_us: MicrosSince, code: &str, text: &str) -> io::Result<()> {
        // The two directions are stamped apart; time in a cast never goes back.
        let at_us = at_us.max(self.last_us);
        let time = match self.version {
            CastVersion::V2 => at_us,
            CastVersion::V3 => at_us - self.last_us,
        };
        self.last_us = at_us;
        let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
        let text = Value::from(text).to_string();
        let text = escape_json(&text);
        writeln!(self.out, "[{seconds}.{micros:06}, \"{code}\", {text}]")
    }
}

//! With a terminal, on a terminal: the emulator's screen, drawn in place.
//!
//! Nothing is switched on that would have to be switched off again (no alternate screen, no hidden
//! cursor), so that an interrupt leaves the operator's terminal as it was.

use std::fmt::Write as _;

use super::{View, remarks};
use crate::{
    cli::{
        CliError, escape,
        outlet::Outlet,
        screen::{Ink, Look, Screen},
        text,
    },
    model::MicrosSince,
    replay::stream::{
        Colour, Emulator, FrameKind, Run, StreamEnd, StreamFrame, StreamSummary, Style,
    },
    wire::stream::Channel,
};

pub(super) struct Drawn {
    stdin: bool,
    emulator: Emulator,
    at_us: MicrosSince,
    /// What was typed last, escaped.
    typed: String,
    /// The latest remark: it stays to be seen.
    remark: Option<String>,
    /// The lines on the operator's terminal, from the top of what we drew.
    drawn: Vec<String>,
    changed: bool,
}

/// What was typed is shown up to here.
const TYPED_CHARS_MAX: usize = 40;

impl Drawn {
    pub(super) fn new(stdin: bool) -> Self {
        Self {
            stdin,
            emulator: Emulator::default(),
            at_us: 0,
            typed: String::new(),
            remark: None,
            drawn: Vec::new(),
            changed: true,
        }
    }

    fn redraw(&mut self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let (columns, rows) = (screen.size)();
        // One row for what is said about it, one below for the cursor.
        let height = usize::from(rows).saturating_sub(2).max(1);
        let top = (self.emulator.cursor_row() + 1).saturating_sub(height);
        let mut lines: Vec<_> = self
            .emulator
            .rows(columns.into())
            .skip(top)
            .take(height)
            .map(|runs| painted(&runs, screen.look))
            .collect();
        lines.push(self.status(columns.into(), screen.look));
        let mut out = String::new();
        if !self.drawn.is_empty() {
            write!(out, "\r\u{1b}[{}A", self.drawn.len()).expect("a String takes all text");
        }
        for (number, line) in lines.iter().enumerate() {
            if self.drawn.get(number) != Some(line) {
                write!(out, "{line}\u{1b}[K").expect("a String takes all text");
            }
            out.push_str("\r\n");
        }
        if lines.len() < self.drawn.len() {
            out.push_str("\u{1b}[J");
        }
        screen.out.write_all(out.as_bytes())?;
        screen.out.flush()?;
        self.drawn = lines;
        Ok(())
    }

    fn status(&self, columns: usize, look: Look) -> String {
        let mut words = format!("── {}", remarks::at(self.at_us));
        if !self.typed.is_empty() {
            write!(words, "  typed {}", self.typed).expect("a String takes all text");
        }
        if let Some(remark) = &self.remark {
            write!(words, "  {remark}").expect("a String takes all text");
        }
        look.paint(Ink::Faint, &escape::clip(&words, columns.saturating_sub(1)))
    }

    fn typed(&mut self, typed: &str) {
        self.typed.push_str(typed);
        let over = self.typed.chars().count().saturating_sub(TYPED_CHARS_MAX);
        self.typed = self.typed.chars().skip(over).collect();
    }
}

impl View for Drawn {
    fn frame(
        &mut self,
        frame: &StreamFrame,
        _: &mut Outlet,
        _: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        (self.at_us, self.changed) = (frame.at_us, true);
        match &frame.kind {
            FrameKind::Data { channel: Channel::Stdin, data } if self.stdin => {
                // Typed in pieces of any size: the end is what can be shown.
                let end = &data[data.len().saturating_sub(4 * TYPED_CHARS_MAX)..];
                let typed = escape::line(&String::from_utf8_lossy(end)).into_owned();
                self.typed(&typed);
            }
            FrameKind::Withheld { bytes, .. } if self.stdin => self.typed(&format!("[{bytes} B]")),
            FrameKind::Data { channel: Channel::Stdout | Channel::Stderr, data } => {
                self.emulator.feed(data, drop);
            }
            FrameKind::Resize { columns, rows } => self.emulator.resize(*columns, *rows, drop),
            _ => {
                if let Some(remark) = remarks::of(frame) {
                    self.remark = Some(text::short(&remark, 200));
                }
            }
        }
        Ok(())
    }

    fn draw(&mut self, outlet: &mut Outlet, screen: &mut Screen<'_>) -> Result<(), CliError> {
        if outlet.is_live() { self.redraw(screen) } else { Ok(()) }
    }

    fn finish(
        mut self: Box<Self>,
        summary: &StreamSummary,
        end: &StreamEnd,
        _: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        self.redraw(screen)?;
        remarks::closing(summary, end, screen)
    }
}

/// A row in colours; blanks at its end are left to the terminal.
fn painted(runs: &[Run], look: Look) -> String {
    let mut line = String::new();
    let plain = |run: &Run| run.style == Style::default();
    let mut runs = runs;
    while let Some((last, rest)) = runs.split_last() {
        if !(plain(last) && last.text.trim_end().is_empty()) {
            break;
        }
        runs = rest;
    }
    for (number, run) in runs.iter().enumerate() {
        let text = escape::line(&run.text);
        if !look.colour || plain(run) {
            let last = number + 1 == runs.len();
            line.push_str(if last { text.trim_end() } else { &text });
        } else {
            write!(line, "\u{1b}[{}m{text}\u{1b}[0m", codes(run.style))
                .expect("a String takes all text");
        }
    }
    line
}

/// The parameters of SGR (ECMA-48 §8.3.117).
fn codes(style: Style) -> String {
    let flags = [
        (style.bold, "1"),
        (style.faint, "2"),
        (style.italic, "3"),
        (style.underline, "4"),
        (style.inverse, "7"),
        (style.strikethrough, "9"),
    ];
    let mut codes: Vec<String> =
        flags.iter().filter(|(set, _)| *set).map(|(_, code)| (*code).into()).collect();
    for (colour, base) in [(style.foreground, 30_u8), (style.background, 40)] {
        codes.extend(colour.map(|colour| match colour {
            Colour::Indexed(index @ 0..8) => (base + index).to_string(),
            Colour::Indexed(index @ 8..16) => (base + 60 + index - 8).to_string(),
            Colour::Indexed(index) => format!("{};5;{index}", base + 8),
            Colour::Rgb(red, green, blue) => format!("{};2;{red};{green};{blue}", base + 8),
        }));
    }
    codes.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_become_parameters() {
        let style = Style {
            foreground: Some(Colour::Indexed(9)),
            background: Some(Colour::Rgb(1, 2, 3)),
            bold: true,
            ..Style::default()
        };
        assert_eq!(codes(style), "1;91;48;2;1;2;3");
        let style = Style { foreground: Some(Colour::Indexed(200)), ..Style::default() };
        assert_eq!(codes(style), "38;5;200");
    }

    #[test]
    fn rows_are_painted_without_their_blank_end() {
        let red = Style { foreground: Some(Colour::Indexed(1)), ..Style::default() };
        let run = |text: &str, style| Run { text: text.into(), style };
        let row = [run("a ", Style::default()), run("b", red), run("c   ", Style::default())];
        assert_eq!(painted(&row, Look::FULL), "a \u{1b}[31mb\u{1b}[0mc");
        assert_eq!(painted(&row, Look::PLAIN), "a bc");
        let blank = [run("a", red), run("  ", Style::default())];
        assert_eq!(painted(&blank, Look::PLAIN), "a");
    }
}

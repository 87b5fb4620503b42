//! Where output goes and how it may look: the only place that knows of terminals and colours.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use super::escape;

/// What a piece of text means; the colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// As it should be.
    Good,
    /// Refused, lost or broken.
    Bad,
    /// Worth a look.
    Warn,
    /// Less important.
    Faint,
    /// More important.
    Strong,
    /// No colour.
    Plain,
}

/// How output may look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Someone is watching: tables get lines, replays take their time.
    pub terminal: bool,
    /// Colours may be used.
    pub colour: bool,
    /// The cursor may be moved to draw in place.
    pub redraw: bool,
}

impl Look {
    /// Nothing but text.
    pub const PLAIN: Self = Self { terminal: false, colour: false, redraw: false };

    /// A terminal that can do everything.
    pub const FULL: Self = Self { terminal: true, colour: true, redraw: true };

    /// As standard output and `NO_COLOR` (<https://no-color.org>) ask.
    #[must_use]
    pub fn of_stdout() -> Self {
        let variable = |name| std::env::var_os(name);
        Self::new(io::stdout().is_terminal(), variable("NO_COLOR"), variable("TERM"))
    }

    fn new(terminal: bool, no_color: Option<OsString>, term: Option<OsString>) -> Self {
        let unwanted = no_color.is_some_and(|value| !value.is_empty());
        let dumb = term.is_some_and(|term| term == "dumb");
        Self { terminal, colour: terminal && !unwanted && !dumb, redraw: terminal && !dumb }
    }

    /// The text in its colour.
    #[must_use]
    pub fn paint(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            _ if !self.colour || text.is_empty() => return text.into(),
            Ink::Plain => return text.into(),
            Ink::Good => "32",
            Ink::Bad => "31",
            Ink::Warn => "33",
            Ink::Faint => "2",
            Ink::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The output of one run.
pub struct Screen<'a> {
    /// Data for people or programs.
    pub out: &'a mut dyn Write,
    /// Remarks that are not data.
    pub err: &'a mut dyn Write,
    /// How `out` may look.
    pub look: Look,
    /// Whether to print JSON.
    pub json: bool,
    /// Waits; tests give one that only notes how long.
    pub sleep: &'a mut dyn FnMut(Duration),
    /// The terminal's columns and rows now.
    pub size: fn() -> (u16, u16),
}

/// Columns and rows of the terminal; what a terminal has at least where it does not say.
#[must_use]
pub fn terminal_size() -> (u16, u16) {
    match crossterm::terminal::size() {
        Ok((columns @ 1.., rows @ 1..)) => (columns, rows),
        _ => (80, 24),
    }
}

impl Screen<'_> {
    /// One JSON object on a line of its own.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn object(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value)?;
        writeln!(self.out, "{}", escape::json(&text))
    }

    /// A line of text that is already safe to show.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", text.trim_end())
    }

    /// A table. Cells are escaped here.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn table(&mut self, header: &[&str], rows: Vec<Vec<(String, Ink)>>) -> io::Result<()> {
        let mut table = Table::new();
        if self.look.terminal {
            table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.load_preset(presets::NOTHING);
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        if self.look.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
        for row in rows {
            table.add_row(row.iter().map(|(text, ink)| cell(text, *ink)));
        }
        for line in table.lines() {
            self.line(line.strip_prefix(' ').unwrap_or(&line))?;
        }
        Ok(())
    }
}

fn cell(text: &str, ink: Ink) -> Cell {
    let cell = Cell::new(escape::line(text));
    match ink {
        Ink::Good => cell.fg(Color::Green),
        Ink::Bad => cell.fg(Color::Red),
        Ink::Warn => cell.fg(Color::Yellow),
        Ink::Faint => cell.add_attribute(Attribute::Dim),
        Ink::Strong => cell.add_attribute(Attribute::Bold),
        Ink::Plain => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(look: Look) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut sleep = |_| ();
        let size = || (80, 24);
        let mut screen =
            Screen { out: &mut out, err: &mut err, look, json: false, sleep: &mut sleep, size };
        let row = |name: &str, n: &str| vec![(name.into(), Ink::Bad), (n.into(), Ink::Plain)];
        screen
            .table(&["NAME", "N"], vec![row("a\u{1b}[31m", "1"), row("b", "")])
            .expect("a Vec takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn pipes_get_aligned_plain_text() {
        assert_eq!(drawn(Look::PLAIN), "NAME         N\na\\u{1b}[31m  1\nb\n");
    }

    #[test]
    fn terminals_get_colour_but_no_recorded_escape() {
        let text = drawn(Look::FULL);
        assert!(text.contains('\u{1b}'), "{text:?}");
        assert!(!text.contains("\u{1b}[31ma\u{1b}[31m"), "{text:?}");
        assert!(text.contains("\\u{1b}"), "{text:?}");
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let colour = |terminal, no_color: Option<&str>, term: &str| {
            Look::new(terminal, no_color.map(Into::into), Some(term.into())).colour
        };
        assert!(colour(true, None, "xterm"));
        assert!(colour(true, Some(""), "xterm"));
        assert!(!colour(true, Some("1"), "xterm"));
        assert!(!colour(true, None, "dumb"));
        assert!(!colour(false, None, "xterm"));
    }

    #[test]
    fn paint_needs_permission() {
        assert_eq!(Look::PLAIN.paint(Ink::Bad, "x"), "x");
        let look = Look::FULL;
        assert_eq!(look.paint(Ink::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(look.paint(Ink::Plain, "x"), "x");
    }
}

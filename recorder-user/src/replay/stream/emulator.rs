//! A terminal in memory: what a program drew, without letting it draw on the reader's own terminal.

use avt::{
    Line, Operation, ScreenKind, Terminal,
    observer::{Observation, Observer},
    parser::Function,
};

use super::utf8::Utf8;

/// The size of a terminal whose client never told it: columns and rows.
pub const SCREEN_DEFAULT: (u16, u16) = (80, 24);

/// Wider is not believed: it would cost memory that a hostile client chooses.
pub const COLUMNS_MAX: u16 = 1000;

/// Higher is not believed.
pub const ROWS_MAX: u16 = 400;

/// A logical line that is longer is cut, so that output without line ends does not pile up.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Bytes are fed in pieces of this size, so that what one piece gives is little: five bytes can fill a screen
/// and clear it into the lines (DECALN, RIS), and eight repeat a character 65,535 times (REP).
const PIECE_BYTES: usize = 256;

/// A terminal in memory.
pub struct Emulator {
    terminal: Terminal,
    utf8: Utf8,
    history: History,
}

/// A stretch of a row that looks alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The characters; none of them is a control character or invisible.
    pub text: String,
    /// How they look.
    pub style: Style,
}

/// How text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Colour of the characters.
    pub foreground: Option<Colour>,
    /// Colour behind them.
    pub background: Option<Colour>,
    /// Bold.
    pub bold: bool,
    /// Faint.
    pub faint: bool,
    /// Italic.
    pub italic: bool,
    /// Underlined.
    pub underline: bool,
    /// Struck through.
    pub strikethrough: bool,
    /// Colours exchanged.
    pub inverse: bool,
}

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// One of the palette.
    Indexed(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

impl Default for Emulator {
    fn default() -> Self {
        let (columns, rows) = SCREEN_DEFAULT;
        Self {
            terminal: Terminal::new(columns.into(), rows.into()).expect("a default size has cells"),
            utf8: Utf8::default(),
            history: History::default(),
        }
    }
}

impl Emulator {
    /// Draws bytes of the program's output; gives the lines that scroll out on top.
    pub fn feed(&mut self, data: &[u8], mut on_line: impl FnMut(String)) {
        let mut text = String::new();
        for piece in data.chunks(PIECE_BYTES) {
            text.clear();
            self.utf8.push(piece, &mut text);
            self.terminal.feed_with(text.as_str(), &mut self.history);
            self.history.ready.drain(..).for_each(&mut on_line);
        }
    }

    /// Changes the size, within bounds; gives the lines that scroll out on top.
    pub fn resize(&mut self, columns: u16, rows: u16, on_line: impl FnMut(String)) {
        let columns = columns.clamp(1, COLUMNS_MAX);
        let rows = rows.clamp(1, ROWS_MAX);
        self.terminal.resize_with(columns.into(), rows.into(), &mut self.history);
        self.history.ready.drain(..).for_each(on_line);
    }

    /// Columns and rows.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.terminal.size()
    }

    /// Whether a full-screen program is drawing now.
    #[must_use]
    pub fn is_full_screen(&self) -> bool {
        self.terminal.active_screen_kind() == ScreenKind::Alternate
    }

    /// How many times a full-screen program took the screen: what those drew is not in the lines.
    #[must_use]
    pub const fn full_screens(&self) -> u64 {
        self.history.full_screens
    }

    /// The rows that are to be seen, from the top, cut to so many columns.
    pub fn rows(&self, columns_max: usize) -> impl ExactSizeIterator<Item = Vec<Run>> {
        self.terminal.screen().visible_lines().map(move |line| runs(line, columns_max))
    }

    /// The row of the cursor, from the top.
    #[must_use]
    pub fn cursor_row(&self) -> usize {
        self.terminal.cursor().row
    }

    /// The rest of the lines: what did not scroll out. Blank rows at the end are left out.
    #[must_use]
    pub fn finish(mut self) -> Vec<String> {
        self.history.primary(&self.terminal);
        self.history.ready
    }
}

fn runs(line: &Line, columns_max: usize) -> Vec<Run> {
    let mut runs = Vec::<Run>::new();
    let mut columns = 0;
    // The second half of a wide character has no width.
    for cell in line.cells().iter().filter(|cell| cell.width() > 0) {
        columns += usize::from(cell.width());
        if columns > columns_max {
            break;
        }
        let style = style(cell.pen());
        match runs.last_mut().filter(|run| run.style == style) {
            Some(run) => run.text.push(visible(cell.char())),
            None => runs.push(Run { text: visible(cell.char()).into(), style }),
        }
    }
    runs
}

fn style(pen: &avt::Pen) -> Style {
    let colour = |colour| match colour {
        avt::Color::Indexed(index) => Colour::Indexed(index),
        avt::Color::RGB(rgb) => Colour::Rgb(rgb.r, rgb.g, rgb.b),
    };
    Style {
        foreground: pen.foreground().map(colour),
        background: pen.background().map(colour),
        bold: pen.is_bold(),
        faint: pen.is_faint(),
        italic: pen.is_italic(),
        underline: pen.is_underline(),
        strikethrough: pen.is_strikethrough(),
        inverse: pen.is_inverse(),
    }
}

/// A cell holds one visible character. Whatever a terminal could take for something else is replaced.
fn visible(c: char) -> char {
    if crate::replay::is_hostile(c) { char::REPLACEMENT_CHARACTER } else { c }
}

/// Collects lines as they leave the screen.
#[derive(Default)]
struct History {
    /// A line whose soft-wrapped rows are not all out: at most [`LINE_BYTES_MAX`].
    pending: String,
    ready: Vec<String>,
    full_screens: u64,
    was_full_screen: bool,
}

impl History {
    fn primary(&mut self, terminal: &Terminal) {
        let start = self.ready.len();
        for line in terminal.primary_screen().all_lines() {
            self.push(line);
        }
        if !self.pending.is_empty() {
            self.complete();
        }
        while self.ready.len() > start && self.ready.last().is_some_and(String::is_empty) {
            self.ready.pop();
        }
    }

    fn push(&mut self, line: &Line) {
        self.pending.extend(line.chars().map(visible));
        if !line.is_wrapped() || self.pending.len() > LINE_BYTES_MAX {
            self.complete();
        }
    }

    fn complete(&mut self) {
        self.ready.push(self.pending.trim_end().to_owned());
        self.pending.clear();
    }
}

impl Observer for History {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        // A hard reset clears what did not scroll out.
        if matches!(operation, Operation::Function(Function::Ris)) {
            self.primary(context.terminal());
        }
    }

    fn after(&mut self, context: &mut Observation<'_>, _: &Operation) {
        let full_screen = context.terminal().active_screen_kind() == ScreenKind::Alternate;
        self.full_screens += u64::from(full_screen && !self.was_full_screen);
        self.was_full_screen = full_screen;
    }

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        self.push(line);
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drawn(size: (u16, u16), data: &[u8]) -> (Vec<String>, Vec<String>) {
        let (mut emulator, mut lines) = (Emulator::default(), Vec::new());
        emulator.resize(size.0, size.1, |line| lines.push(line));
        emulator.feed(data, |line| lines.push(line));
        let rows = emulator
            .rows(usize::from(size.0))
            .map(|runs| runs.iter().map(|run| run.text.as_str()).collect::<String>())
            .collect();
        lines.extend(emulator.finish());
        (lines, rows)
    }

    #[test]
    fn control_sequences_are_carried_out_and_gone() {
        let (lines, rows) = drawn((10, 2), b"abc\x1b[2D\x1b[31mX\x1b[0m\r\nlast\x1b]0;title\x07");
        assert_eq!(lines, ["aXc", "last"]);
        assert_eq!(rows, ["aXc       ", "last      "]);
    }

    #[test]
    fn lines_that_scroll_out_are_given_whole() {
        let (lines, _) = drawn((4, 2), b"0123456789\r\nb\r\nc\r\n");
        assert_eq!(lines, ["0123456789", "b", "c"]);
    }

    #[test]
    fn styles_are_kept_and_hostile_characters_are_not() {
        let mut emulator = Emulator::default();
        emulator.resize(8, 1, drop);
        emulator.feed("a\u{202e}\u{1b}[1;38;5;9mb".as_bytes(), drop);
        let row = emulator.rows(80).next().expect("a row");
        assert_eq!(row[0].text, "a\u{fffd}");
        assert_eq!(emulator.rows(1).next().expect("a row")[0].text, "a");
        let style = Style { foreground: Some(Colour::Indexed(9)), bold: true, ..Style::default() };
        assert_eq!((row[1].text.as_str(), row[1].style), ("b", style));
    }

    #[test]
    fn sizes_are_bounded() {
        let mut emulator = Emulator::default();
        emulator.resize(u16::MAX, u16::MAX, drop);
        assert_eq!(emulator.size(), (usize::from(COLUMNS_MAX), usize::from(ROWS_MAX)));
        emulator.resize(0, 0, drop);
        assert_eq!(emulator.size(), (1, 1));
    }

    #[test]
    fn output_without_line_ends_does_not_pile_up() {
        let (mut emulator, mut lines) = (Emulator::default(), Vec::new());
        for _ in 0..100 {
            emulator.feed(&[b'x'; 100_000], |line| lines.push(line.len()));
            assert!(emulator.history.pending.len() <= LINE_BYTES_MAX + usize::from(COLUMNS_MAX));
        }
        let rest: usize = emulator.finish().iter().map(String::len).sum();
        assert_eq!(lines.iter().sum::<usize>() + rest, 10_000_000);
    }

    #[test]
    fn full_screen_programs_are_counted() {
        let mut emulator = Emulator::default();
        emulator.feed(b"before\r\n\x1b[?1049hfull", drop);
        assert!(emulator.is_full_screen());
        emulator.feed(b"\x1b[?1049lafter", drop);
        assert_eq!((emulator.is_full_screen(), emulator.full_screens()), (false, 1));
        assert_eq!(emulator.finish(), ["before", "after"]);
    }

    /// Text, pieces of control sequences, sizes.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            "[ -~\u{a0}-\u{30ff}]{0,20}".prop_map(String::into_bytes),
            "\u{1b}\\[[?>]?[0-9;]{0,8}[@-~]".prop_map(String::into_bytes),
            "\u{1b}[\\]P_^X][ -~]{0,12}(\u{7}|\u{1b}\\\\)?".prop_map(String::into_bytes),
            "\u{1b}[()#%cDEHM78]{1,2}[0AB]?".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        /// Whatever a program sends and however the terminal changes: no panic, and only visible characters.
        #[test]
        fn any_bytes_are_drawn(
            steps in proptest::collection::vec((piece(), 0_u16..60, 0_u16..20), 0..40),
        ) {
            let (mut emulator, mut lines) = (Emulator::default(), Vec::new());
            for (bytes, columns, rows) in steps {
                emulator.feed(&bytes, |line| lines.push(line));
                if columns % 3 == 0 {
                    emulator.resize(columns, rows, |line| lines.push(line));
                }
                for row in emulator.rows(50) {
                    lines.extend(row.into_iter().map(|run| run.text));
                }
            }
            lines.extend(emulator.finish());
            for line in lines {
                prop_assert!(!line.contains(crate::replay::is_hostile), "{:?}", line);
            }
        }
    }
}

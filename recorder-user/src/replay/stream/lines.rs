//! Bytes of a channel as lines in time, for streams without a terminal.

use crate::model::MicrosSince;

/// A longer line is cut here, and goes on as the next.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// A line, or what there is instead of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedLine {
    /// When its last byte passed.
    pub at_us: MicrosSince,
    /// What.
    pub text: Text,
}

/// What a line holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// A line without its end; invalid UTF-8 is replaced.
    Line(String),
    /// A piece of a line that goes on, or of which the end never came.
    Part(String),
    /// So many bytes that are no text.
    Binary(u64),
}

/// Cuts the bytes of one channel into lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// The line that is not at its end: at most [`LINE_BYTES_MAX`].
    pending: Vec<u8>,
    binary_bytes: u64,
    at_us: MicrosSince,
}

impl Lines {
    /// Takes bytes, and gives the lines that they complete.
    pub fn push(
        &mut self,
        at_us: MicrosSince,
        mut data: &[u8],
        mut on_line: impl FnMut(TimedLine),
    ) {
        while !data.is_empty() {
            self.at_us = at_us;
            let room = LINE_BYTES_MAX - self.pending.len();
            let end = data.iter().take(room).position(|byte| *byte == b'\n');
            let taken = end.map_or(room.min(data.len()), |end| end + 1);
            self.pending.extend_from_slice(&data[..taken]);
            data = &data[taken..];
            if end.is_some() {
                self.complete(&mut on_line);
            } else if self.pending.len() == LINE_BYTES_MAX {
                self.cut(&mut on_line);
            }
        }
    }

    /// Gives what is there of a line that is not at its end: before a pause, and at the end.
    pub fn flush(&mut self, mut on_line: impl FnMut(TimedLine)) {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            self.note(pending, Text::Part, &mut on_line);
        }
        self.give_binary(&mut on_line);
    }

    fn complete(&mut self, on_line: &mut impl FnMut(TimedLine)) {
        let mut line = std::mem::take(&mut self.pending);
        if is_binary(&line) {
            self.binary_bytes += length(&line);
            return;
        }
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        self.note(line, Text::Line, on_line);
    }

    /// Cuts at a character's border.
    fn cut(&mut self, on_line: &mut impl FnMut(TimedLine)) {
        let mut part = std::mem::take(&mut self.pending);
        let begun = match std::str::from_utf8(&part) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => part.len(),
        };
        self.pending = part.split_off(begun);
        self.note(part, Text::Part, on_line);
    }

    fn note(
        &mut self,
        bytes: Vec<u8>,
        text: fn(String) -> Text,
        on_line: &mut impl FnMut(TimedLine),
    ) {
        if is_binary(&bytes) {
            self.binary_bytes += length(&bytes);
            return;
        }
        self.give_binary(on_line);
        let text = text(String::from_utf8_lossy(&bytes).into_owned());
        on_line(TimedLine { at_us: self.at_us, text });
    }

    fn give_binary(&mut self, on_line: &mut impl FnMut(TimedLine)) {
        if self.binary_bytes > 0 {
            let text = Text::Binary(std::mem::take(&mut self.binary_bytes));
            on_line(TimedLine { at_us: self.at_us, text });
        }
    }
}

/// Text has no NUL, and what is not UTF-8 in it is at most an eighth (Latin-1 has accents here and there).
fn is_binary(bytes: &[u8]) -> bool {
    if bytes.contains(&0) {
        return true;
    }
    let invalid: usize = bytes.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    invalid * 8 > bytes.len()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<TimedLine> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for (at_us, piece) in (0..).zip(pieces) {
            lines.push(at_us, piece, |line| found.push(line));
            assert!(lines.pending.len() < LINE_BYTES_MAX);
        }
        lines.flush(|line| found.push(line));
        found
    }

    fn line(at_us: MicrosSince, text: &str) -> TimedLine {
        TimedLine { at_us, text: Text::Line(text.into()) }
    }

    #[test]
    fn lines_have_the_time_of_their_last_byte() {
        let found = lines(&[b"one\ntw", b"o\r\n\n$ "]);
        let part = TimedLine { at_us: 1, text: Text::Part("$ ".into()) };
        assert_eq!(found, [line(0, "one"), line(1, "two"), line(1, ""), part]);
    }

    #[test]
    fn long_lines_are_cut_at_a_character() {
        let long = "€".repeat(LINE_BYTES_MAX);
        let found = lines(&[long.as_bytes(), b"\n"]);
        let text: String = found
            .iter()
            .map(|line| match &line.text {
                Text::Line(text) | Text::Part(text) => text.as_str(),
                Text::Binary(_) => panic!("it is text"),
            })
            .collect();
        assert_eq!(text, long);
        assert!(found.len() > 3);
    }

    #[test]
    fn bytes_that_are_no_text_are_counted() {
        let found = lines(&[b"a\n\0\x01\n\xff\xfe\n", b"caf\xe9 au lait\nend\n"]);
        let binary = TimedLine { at_us: 1, text: Text::Binary(6) };
        assert_eq!(found, [line(0, "a"), binary, line(1, "caf\u{fffd} au lait"), line(1, "end")]);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(pieces in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(b'\n'), Just(0), Just(b'x')], 0..50), 0..8,
        )) {
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            let told: u64 = lines(&pieces).iter().map(|line| match &line.text {
                Text::Line(text) => text.len() as u64 + 1,
                Text::Part(text) => text.len() as u64,
                Text::Binary(bytes) => *bytes,
            }).sum();
            prop_assert_eq!(told, pieces.iter().map(|piece| piece.len() as u64).sum::<u64>());
        }
    }
}

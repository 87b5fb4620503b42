//! The inside of strings, and numbers.

use std::ops::Range;

/// What is under way inside a string.
#[derive(Debug, Default)]
pub(super) struct Escape {
    step: Step,
    /// A high surrogate that waits for its low half.
    high: Option<u16>,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    None,
    Backslash,
    Unicode {
        value: u16,
        digits: u8,
    },
}

/// Some progress in a string.
pub(super) enum Piece {
    /// Bytes of the input that stand for themselves; may be empty.
    Plain(Range<usize>),
    /// What an escape stands for; may be empty.
    Decoded(Decoded),
    /// The closing quote, after what was still pending.
    End(Decoded),
}

/// A few decoded bytes: at most two replacement characters or one replacement and one character.
#[derive(Default)]
pub(super) struct Decoded {
    bytes: [u8; 8],
    length: usize,
}

impl Decoded {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, character: char) {
        // Two characters of at most four bytes each are ever pushed.
        let written = character.encode_utf8(&mut self.bytes[self.length..]).len();
        self.length += written;
    }
}

impl Escape {
    /// Reads on from `at`, which moves; none for what JSON does not allow in a string, `at` then
    /// standing on the offending byte.
    pub(super) fn next(&mut self, input: &[u8], at: &mut usize) -> Option<Piece> {
        match self.step {
            Step::None => self.plain(input, at),
            Step::Backslash => self.escape(input[*at], at),
            Step::Unicode { value, digits } => {
                let digit = (input[*at] as char).to_digit(16)?;
                *at += 1;
                let value = (value << 4) | digit as u16;
                if digits == 3 {
                    self.step = Step::None;
                    return Some(Piece::Decoded(self.unit(value)));
                }
                self.step = Step::Unicode { value, digits: digits + 1 };
                Some(Piece::Decoded(Decoded::default()))
            }
        }
    }

    fn plain(&mut self, input: &[u8], at: &mut usize) -> Option<Piece> {
        match input[*at] {
            b'"' => {
                *at += 1;
                Some(Piece::End(self.settle()))
            }
            b'\\' => {
                *at += 1;
                self.step = Step::Backslash;
                Some(Piece::Decoded(Decoded::default()))
            }
            0..=0x1f => None,
            // A high surrogate stays alone: it comes first, then this byte is looked at again.
            _ if self.high.is_some() => Some(Piece::Decoded(self.settle())),
            _ => {
                let rest = &input[*at..];
                let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
                let end = *at + rest.iter().position(special).unwrap_or(rest.len());
                let range = *at..end;
                *at = end;
                Some(Piece::Plain(range))
            }
        }
    }

    fn escape(&mut self, byte: u8, at: &mut usize) -> Option<Piece> {
        let character = match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                *at += 1;
                self.step = Step::Unicode { value: 0, digits: 0 };
                return Some(Piece::Decoded(Decoded::default()));
            }
            _ => return None,
        };
        *at += 1;
        self.step = Step::None;
        let mut decoded = self.settle();
        decoded.push(character);
        Some(Piece::Decoded(decoded))
    }

    /// One UTF-16 unit. Halves without a partner become U+FFFD, as in Go.
    fn unit(&mut self, unit: u16) -> Decoded {
        let mut decoded = Decoded::default();
        match (self.high.take(), unit) {
            (Some(high), 0xdc00..=0xdfff) => {
                let pair = char::decode_utf16([high, unit]).next();
                decoded.push(pair.and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER));
                return decoded;
            }
            (Some(_), _) => decoded.push(char::REPLACEMENT_CHARACTER),
            (None, _) => {}
        }
        match unit {
            0xd800..=0xdbff => self.high = Some(unit),
            _ => decoded.push(char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
        decoded
    }

    fn settle(&mut self) -> Decoded {
        let mut decoded = Decoded::default();
        if self.high.take().is_some() {
            decoded.push(char::REPLACEMENT_CHARACTER);
        }
        decoded
    }
}

/// Whether these bytes are a JSON number (RFC 8259 §6).
pub(super) fn is_number(token: &[u8]) -> bool {
    let rest = token.strip_prefix(b"-").unwrap_or(token);
    let Some(rest) = integer(rest) else { return false };
    let rest = match rest.strip_prefix(b".") {
        Some(fraction) => match digits(fraction) {
            Some(rest) => rest,
            None => return false,
        },
        None => rest,
    };
    match rest {
        [] => true,
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            digits(exponent).is_some_and(<[u8]>::is_empty)
        }
        _ => false,
    }
}

fn integer(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'0', rest @ ..] => Some(rest),
        _ => digits(bytes),
    }
}

/// What follows one or more digits.
fn digits(bytes: &[u8]) -> Option<&[u8]> {
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0).then(|| &bytes[count..])
}

//! A streaming JSON scanner: one pass, any chunking, bounded memory, strict syntax.
//!
//! It knows where it is (the key path) and lets a [`Visitor`] choose which scalars to take, decoded; all
//! other bytes are handed through as they came. It accepts a sequence of documents, as watch streams
//! are. It is strict on purpose: redaction relies on reading a body exactly as the API server does, so
//! what is not plain JSON (a byte order mark, YAML, a raw control character in a string) is an error.

mod path;
mod text;

pub use path::{Path, Segment};

use text::{Escape, Piece};

/// Containers inside each other; deeper input is an error.
pub const DEPTH_MAX: usize = 128;

/// Bytes of all keys on the way to one value, decoded; more is an error.
pub const PATH_BYTES_MAX: usize = 16 << 10;

/// Bytes of one number or literal; more is an error.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Why scanning stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("not JSON")]
    Syntax,
    /// The input ended inside a document.
    #[error("truncated JSON")]
    Truncated,
    /// Too deep, too long a path, or too long a number.
    #[error("JSON over a bound")]
    OverBound,
}

/// What kind of scalar it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    String,
    /// A number.
    Number,
    /// `true`, `false` or `null`.
    Literal,
}

/// What to do with a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Its bytes go to [`Visitor::raw`].
    Pass,
    /// It is decoded to [`Visitor::text`] and none of its bytes go to [`Visitor::raw`].
    Take,
}

/// Who looks on.
pub trait Visitor {
    /// Bytes of the input, in order, without the scalars that were taken.
    fn raw(&mut self, _bytes: &[u8]) {}
    /// A scalar begins (a string) or was read (a number or literal).
    fn scalar(&mut self, path: &Path, scalar: Scalar) -> Interest;
    /// A decoded piece of the scalar being taken.
    fn text(&mut self, piece: &[u8]);
    /// The scalar being taken is whole.
    fn taken(&mut self, path: &Path, scalar: Scalar);
    /// An object or array at `path` begins.
    fn open(&mut self, _path: &Path) {}
    /// The object or array at `path` ended.
    fn close(&mut self, _path: &Path) {}
}

/// The position and reason of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Offset in the bytes fed last.
    pub at: usize,
    /// Why.
    pub error: JsonError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before, between or after documents.
    Between,
    Value,
    /// After `[`.
    ValueOrEnd,
    Key,
    /// After `{`.
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    String(Role),
    Token,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Key,
    Pass,
    Take,
}

/// The scanner's state between chunks.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    path: Path,
    escape: Escape,
    token: Vec<u8>,
    held: u64,
    documents: u64,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Between,
            path: Path::default(),
            escape: Escape::default(),
            token: Vec::new(),
            held: 0,
            documents: 0,
        }
    }

    /// Input bytes of an unfinished taken string, number or literal: the visitor has not been given
    /// its end yet.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held
    }

    /// Documents that ended so far.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Scans `input`. After an error the scanner must not be fed again.
    ///
    /// # Errors
    /// With the offset of the first byte that does not belong; the bytes before it were visited.
    pub fn feed(&mut self, input: &[u8], visitor: &mut impl Visitor) -> Result<(), Stopped> {
        let mut at = 0;
        // Start of the bytes not yet given to `raw`; meaningless while a scalar is held back.
        let mut raw_from = 0;
        while at < input.len() {
            let step = match self.state {
                State::String(role) => self.string(role, input, &mut at, &mut raw_from, visitor),
                State::Token => self.token(input, &mut at, &mut raw_from, visitor),
                _ => self.structure(input, &mut at, &mut raw_from, visitor),
            };
            if let Err(error) = step {
                if !self.is_holding() {
                    pass(input, raw_from, at, visitor);
                }
                return Err(Stopped { at, error });
            }
        }
        if !self.is_holding() {
            pass(input, raw_from, input.len(), visitor);
        }
        Ok(())
    }

    /// The input ended.
    ///
    /// # Errors
    /// When it ended inside a document.
    pub fn finish(&mut self, visitor: &mut impl Visitor) -> Result<(), JsonError> {
        if self.state == State::Token && self.path.is_empty() {
            self.end_token(visitor)?;
        }
        if self.state == State::Between { Ok(()) } else { Err(JsonError::Truncated) }
    }

    fn is_holding(&self) -> bool {
        matches!(self.state, State::Token | State::String(Role::Take))
    }

    /// One byte outside strings and tokens.
    fn structure(
        &mut self,
        input: &[u8],
        at: &mut usize,
        raw_from: &mut usize,
        visitor: &mut impl Visitor,
    ) -> Result<(), JsonError> {
        let byte = input[*at];
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            *at += 1;
            return Ok(());
        }
        match (self.state, byte) {
            (State::KeyOrEnd, b'}') | (State::ValueOrEnd, b']') => self.pop(byte, visitor)?,
            (State::Key | State::KeyOrEnd, b'"') => {
                self.path.begin_key();
                self.state = State::String(Role::Key);
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::CommaOrEnd, b',') => {
                self.state = if self.path.in_array() { State::Value } else { State::Key };
            }
            (State::CommaOrEnd, b'}' | b']') => self.pop(byte, visitor)?,
            (State::Between | State::Value | State::ValueOrEnd, b'{' | b'[') => {
                visitor.open(&self.path);
                self.path.push(byte == b'[').ok_or(JsonError::OverBound)?;
                self.state = if byte == b'[' { State::ValueOrEnd } else { State::KeyOrEnd };
            }
            (State::Between | State::Value | State::ValueOrEnd, b'"') => {
                self.begin_string(input, *at, *raw_from, visitor);
            }
            (
                State::Between | State::Value | State::ValueOrEnd,
                b'-' | b'0'..=b'9' | b'a'..=b'z',
            ) => {
                pass(input, *raw_from, *at, visitor);
                self.token.clear();
                self.state = State::Token;
                // The byte itself is read as part of the token.
                return Ok(());
            }
            _ => return Err(JsonError::Syntax),
        }
        *at += 1;
        Ok(())
    }

    fn begin_string(
        &mut self,
        input: &[u8],
        at: usize,
        raw_from: usize,
        visitor: &mut impl Visitor,
    ) {
        self.escape = Escape::default();
        match visitor.scalar(&self.path, Scalar::String) {
            Interest::Pass => self.state = State::String(Role::Pass),
            Interest::Take => {
                pass(input, raw_from, at, visitor);
                self.held = 1;
                self.state = State::String(Role::Take);
            }
        }
    }

    /// Bytes of a string up to its closing quote or the end of the chunk.
    fn string(
        &mut self,
        role: Role,
        input: &[u8],
        at: &mut usize,
        raw_from: &mut usize,
        visitor: &mut impl Visitor,
    ) -> Result<(), JsonError> {
        let begin = *at;
        let piece = self.escape.next(input, at).ok_or(JsonError::Syntax);
        if role == Role::Take {
            self.held += (*at - begin) as u64;
        }
        let piece = piece?;
        let decoded = match &piece {
            Piece::Plain(range) => &input[range.clone()],
            Piece::Decoded(bytes) => bytes.as_slice(),
            Piece::End(bytes) => bytes.as_slice(),
        };
        match role {
            Role::Key => self.path.extend_key(decoded).ok_or(JsonError::OverBound)?,
            Role::Take if !decoded.is_empty() => visitor.text(decoded),
            Role::Take | Role::Pass => {}
        }
        if let Piece::End(_) = piece {
            match role {
                Role::Key => self.state = State::Colon,
                Role::Pass => self.end_value(),
                Role::Take => {
                    visitor.taken(&self.path, Scalar::String);
                    self.held = 0;
                    *raw_from = *at;
                    self.end_value();
                }
            }
        }
        Ok(())
    }

    fn token(
        &mut self,
        input: &[u8],
        at: &mut usize,
        raw_from: &mut usize,
        visitor: &mut impl Visitor,
    ) -> Result<(), JsonError> {
        let rest = &input[*at..];
        let length = rest.iter().position(|byte| !is_token(*byte)).unwrap_or(rest.len());
        if self.token.len() + length > TOKEN_BYTES_MAX {
            return Err(JsonError::OverBound);
        }
        self.token.extend_from_slice(&rest[..length]);
        self.held = self.token.len() as u64;
        *at += length;
        if length < rest.len() {
            self.end_token(visitor)?;
            *raw_from = *at;
        }
        Ok(())
    }

    fn end_token(&mut self, visitor: &mut impl Visitor) -> Result<(), JsonError> {
        let scalar = match self.token.as_slice() {
            b"true" | b"false" | b"null" => Scalar::Literal,
            number if text::is_number(number) => Scalar::Number,
            _ => return Err(JsonError::Syntax),
        };
        match visitor.scalar(&self.path, scalar) {
            Interest::Pass => visitor.raw(&self.token),
            Interest::Take => {
                visitor.text(&self.token);
                visitor.taken(&self.path, scalar);
            }
        }
        self.held = 0;
        self.end_value();
        Ok(())
    }

    fn pop(&mut self, byte: u8, visitor: &mut impl Visitor) -> Result<(), JsonError> {
        if self.path.in_array() != (byte == b']') {
            return Err(JsonError::Syntax);
        }
        self.path.pop();
        visitor.close(&self.path);
        self.end_value();
        Ok(())
    }

    fn end_value(&mut self) {
        if self.path.is_empty() {
            self.documents += 1;
            self.state = State::Between;
        } else {
            self.state = State::CommaOrEnd;
        }
    }
}

fn pass(input: &[u8], from: usize, to: usize, visitor: &mut impl Visitor) {
    if from < to {
        visitor.raw(&input[from..to]);
    }
}

fn is_token(byte: u8) -> bool {
    matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

#[cfg(test)]
mod tests;

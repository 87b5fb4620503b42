//! What `kubectl cp` copies: the names and sizes in a tar stream, and the commands that carry one.
//!
//! Nothing is ever extracted. Paths are given as they stand in the stream, with whatever `..` they hold.

mod command;
mod header;
#[cfg(test)]
mod tests;

pub use command::{Copied, Direction, copied};
use header::{Header, Overrides};

/// Tar consists of blocks of this size.
const BLOCK_BYTES: usize = 512;

/// Bytes of one pax header or GNU long name that are read; more is an error. Linux knows no longer path than
/// 4 KiB.
pub const EXTENDED_BYTES_MAX: usize = 64 << 10;

/// Something in a tar stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as recorded; any bytes.
    pub path: Vec<u8>,
    /// Bytes of content that follow; 0 for what has none.
    pub size: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Where a link points, as recorded.
    pub link: Option<Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of an earlier entry.
    HardLink,
    /// A device, a pipe, or a type that we do not know: its letter.
    Other(u8),
}

/// Why a tar stream is not read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// A block is no header.
    #[error("a block is no tar header")]
    NoHeader,
    /// A number in a header is malformed or over 63 bits.
    #[error("a number in a tar header")]
    Number,
    /// A pax header is malformed.
    #[error("a malformed pax header")]
    Pax,
    /// A pax header or long name of more than [`EXTENDED_BYTES_MAX`].
    #[error("a pax header or long name over the bound")]
    ExtendedOverBound,
    /// GNU's old format of sparse files, whose headers go on in further blocks.
    #[error("a sparse file in GNU's old format")]
    Sparse,
}

/// Lists a tar stream as it arrives.
///
/// It keeps one block, and one pax header or long name with what they say of the next entry.
#[derive(Debug)]
pub struct Listing {
    state: State,
    block: [u8; BLOCK_BYTES],
    block_bytes: usize,
    overrides: Overrides,
    failed: Option<TarError>,
}

#[derive(Debug)]
enum State {
    Header,
    /// A header of zeros came; another one ends the archive.
    Zeros,
    /// Content, and padding up to a whole block.
    Content {
        rest: u64,
        padding: u64,
    },
    /// A header that says something of the next.
    Extended {
        kind: u8,
        size: usize,
        text: Vec<u8>,
        padding: u64,
    },
    End,
}

impl Default for Listing {
    fn default() -> Self {
        Self::new()
    }
}

impl Listing {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Header,
            block: [0; BLOCK_BYTES],
            block_bytes: 0,
            overrides: Overrides::default(),
            failed: None,
        }
    }

    /// Takes the next bytes and gives each entry to `on` when its header is whole. What follows the end of the
    /// archive is passed over.
    ///
    /// # Errors
    /// When the bytes are no tar that we read; all later pushes say the same.
    pub fn push(&mut self, bytes: &[u8], on: &mut dyn FnMut(Entry)) -> Result<(), TarError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let read = self.read(bytes, on);
        self.failed = read.err();
        read
    }

    /// Whether the archive's end was seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Bytes of content that the last entry still lacks.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        if let State::Content { rest, .. } = self.state { rest } else { 0 }
    }

    fn read(&mut self, mut bytes: &[u8], on: &mut dyn FnMut(Entry)) -> Result<(), TarError> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::End => return Ok(()),
                State::Header | State::Zeros => {
                    let part = take(&mut bytes, (BLOCK_BYTES - self.block_bytes) as u64);
                    self.block[self.block_bytes..][..part.len()].copy_from_slice(part);
                    self.block_bytes += part.len();
                    if self.block_bytes == BLOCK_BYTES {
                        self.block_bytes = 0;
                        self.state = self.header(on)?;
                    }
                }
                State::Content { rest, padding } => {
                    *rest -= take(&mut bytes, *rest).len() as u64;
                    *padding -= take(&mut bytes, *padding).len() as u64;
                    if *rest == 0 && *padding == 0 {
                        self.state = State::Header;
                    }
                }
                State::Extended { kind, size, text, padding } => {
                    text.extend_from_slice(take(&mut bytes, (*size - text.len()) as u64));
                    if text.len() == *size {
                        *padding -= take(&mut bytes, *padding).len() as u64;
                        if *padding == 0 {
                            self.overrides.take(*kind, text)?;
                            self.state = State::Header;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads the header in `block`.
    fn header(&mut self, on: &mut dyn FnMut(Entry)) -> Result<State, TarError> {
        if self.block.iter().all(|byte| *byte == 0) {
            let second = matches!(self.state, State::Zeros);
            return Ok(if second { State::End } else { State::Zeros });
        }
        if matches!(self.state, State::Zeros) {
            return Err(TarError::NoHeader);
        }
        let header = Header::of(&self.block)?;
        if header.is_extended() {
            let size = usize::try_from(header.size).unwrap_or(usize::MAX);
            if size > EXTENDED_BYTES_MAX {
                return Err(TarError::ExtendedOverBound);
            }
            let padding = padding(header.size);
            if size == 0 {
                return Ok(State::Header);
            }
            return Ok(State::Extended { kind: header.kind, size, text: Vec::new(), padding });
        }
        let entry = header.entry(std::mem::take(&mut self.overrides))?;
        let rest = entry.size;
        on(entry);
        Ok(if rest == 0 { State::Header } else { State::Content { rest, padding: padding(rest) } })
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK_BYTES as u64
}

/// Cuts off the first `count` bytes, or all where there are fewer.
fn take<'a>(bytes: &mut &'a [u8], count: u64) -> &'a [u8] {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
    let (head, tail) = bytes.split_at(count);
    *bytes = tail;
    head
}

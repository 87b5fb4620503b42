//! Headers: V7, POSIX ustar and pax, GNU (POSIX.1-2017 pax §ustar; GNU tar manual, "Basic Tar Format").

use super::{BLOCK_BYTES, Entry, EntryKind, TarError};

/// Headers that say something of the next one.
const PAX: u8 = b'x';
const PAX_GLOBAL: u8 = b'g';
const GNU_LONG_NAME: u8 = b'L';
const GNU_LONG_LINK: u8 = b'K';

const GNU_SPARSE: u8 = b'S';

/// One header block.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) size: u64,
    path: Vec<u8>,
    link: Vec<u8>,
}

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Header {
    pub(super) fn of(block: &[u8; BLOCK_BYTES]) -> Result<Self, TarError> {
        if !sums_up(block) {
            return Err(TarError::NoHeader);
        }
        let mut path = text(&block[..100]).to_vec();
        // GNU's own magic has other things where POSIX has the prefix.
        if &block[257..263] == b"ustar\0" {
            let prefix = text(&block[345..500]);
            if !prefix.is_empty() {
                path = [prefix, b"/", &path].concat();
            }
        }
        Ok(Self {
            kind: block[156],
            size: number(&block[124..136])?,
            path,
            link: text(&block[157..257]).to_vec(),
        })
    }

    /// Whether this is no entry but says something of one.
    pub(super) fn is_extended(&self) -> bool {
        matches!(self.kind, PAX | PAX_GLOBAL | GNU_LONG_NAME | GNU_LONG_LINK)
    }

    pub(super) fn entry(self, overrides: Overrides) -> Result<Entry, TarError> {
        let path = overrides.path.unwrap_or(self.path);
        let kind = match self.kind {
            GNU_SPARSE => return Err(TarError::Sparse),
            // V7 tar knows directories by the slash alone.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'5' => EntryKind::Directory,
            other => EntryKind::Other(other),
        };
        let has_content = match kind {
            EntryKind::File => true,
            EntryKind::Directory | EntryKind::Symlink | EntryKind::HardLink => false,
            // Devices and pipes; a type that nobody knows is read as a file.
            EntryKind::Other(letter) => !matches!(letter, b'3' | b'4' | b'6'),
        };
        let size = if has_content { overrides.size.unwrap_or(self.size) } else { 0 };
        let links = matches!(kind, EntryKind::Symlink | EntryKind::HardLink);
        let link = links.then(|| overrides.link.unwrap_or(self.link));
        Ok(Entry { path, size, kind, link })
    }
}

impl Overrides {
    /// Takes the whole content of an extended header.
    pub(super) fn take(&mut self, kind: u8, content: &[u8]) -> Result<(), TarError> {
        match kind {
            GNU_LONG_NAME => self.path = Some(text(content).to_vec()),
            GNU_LONG_LINK => self.link = Some(text(content).to_vec()),
            PAX => return self.take_pax(content),
            // Global headers say comments, such as git's commit.
            _ => {}
        }
        Ok(())
    }

    /// Records of `LENGTH KEY=VALUE\n`.
    fn take_pax(&mut self, mut content: &[u8]) -> Result<(), TarError> {
        while !content.is_empty() {
            let space = content.iter().position(|byte| *byte == b' ').ok_or(TarError::Pax)?;
            let length = decimal(&content[..space]).ok_or(TarError::Pax)?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (record, rest) = content.split_at_checked(length).ok_or(TarError::Pax)?;
            let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n"));
            let record = record.ok_or(TarError::Pax)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(TarError::Pax)?;
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" | b"GNU.sparse.name" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value).ok_or(TarError::Number)?),
                _ => {}
            }
            content = rest;
        }
        Ok(())
    }
}

/// The checksum: the sum of all bytes, its own field taken for spaces. Old writers summed signed bytes.
fn sums_up(block: &[u8; BLOCK_BYTES]) -> bool {
    let Ok(expected) = number(&block[148..156]) else { return false };
    let (mut unsigned, mut signed) = (0u64, 0i64);
    for (index, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { *byte };
        unsigned += u64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || i64::try_from(expected) == Ok(signed)
}

/// Up to the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal, or where the first bit is set GNU's base 256; at most 63 bits.
fn number(field: &[u8]) -> Result<u64, TarError> {
    let push = |value: u64, digit: u64, base: u64| {
        value
            .checked_mul(base)
            .and_then(|value| value.checked_add(digit))
            .filter(|value| i64::try_from(*value).is_ok())
            .ok_or(TarError::Number)
    };
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        if first & 0x40 != 0 {
            return Err(TarError::Number);
        }
        let bytes = std::iter::once(first & 0x3f).chain(rest.iter().copied());
        return bytes.map(u64::from).try_fold(0, |value, byte| push(value, byte, 256));
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let begin = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
    let digits = field[begin..].split(is_blank).next().unwrap_or_default();
    digits.iter().try_fold(0, |value, digit| match digit {
        b'0'..=b'7' => push(value, u64::from(digit - b'0'), 8),
        _ => Err(TarError::Number),
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let value: u64 = std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()?;
    i64::try_from(value).is_ok().then_some(value)
}

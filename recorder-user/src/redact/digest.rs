//! Keyed digests that stand for removed values.

use std::fmt;

/// The key of the digests. It belongs outside the store and is never exported: without it nobody can
/// test guesses against the digests; with one key equal values have equal digests.
#[derive(Clone)]
pub struct RedactKey([u8; 32]);

impl RedactKey {
    /// From the 32 bytes of the key file.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0)
    }

    /// `decklog:redacted:` and 16 hexadecimal digits.
    pub(super) fn mark(hasher: &blake3::Hasher) -> String {
        let hex = hasher.finalize().to_hex();
        format!("decklog:redacted:{}", &hex[..16])
    }
}

impl fmt::Debug for RedactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedactKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::RedactKey;

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", RedactKey::from_bytes([7; 32])), "RedactKey(…)");
    }

    #[test]
    fn digests_depend_on_key_and_value() {
        let digest = |key: u8, value: &[u8]| {
            RedactKey::mark(RedactKey::from_bytes([key; 32]).hasher().update(value))
        };
        assert_eq!(digest(1, b"a"), digest(1, b"a"));
        assert_ne!(digest(1, b"a"), digest(2, b"a"));
        assert_ne!(digest(1, b"a"), digest(1, b"b"));
        assert_eq!(digest(1, b"a").len(), "decklog:redacted:".len() + 16);
    }
}

//! Bytes to text over the borders of frames.

/// Decodes UTF-8 that comes in pieces: a character may lie in two of them, and what is no character
/// becomes U+FFFD, as [`String::from_utf8_lossy`] would make it of the whole.
#[derive(Clone, Debug, Default)]
pub struct Utf8 {
    /// The beginning of a character: at most three bytes.
    carry: Vec<u8>,
}

impl Utf8 {
    /// Appends what these bytes complete.
    pub fn push(&mut self, mut bytes: &[u8], text: &mut String) {
        // One byte at a time until the character that was begun is whole, or is known to be none.
        while !self.carry.is_empty() {
            let Some((first, rest)) = bytes.split_first() else { return };
            let mut begun = std::mem::take(&mut self.carry);
            begun.push(*first);
            bytes = rest;
            self.decode(&begun, text);
        }
        self.decode(bytes, text);
    }

    /// The stream is over: a character that was only begun is none.
    pub fn finish(&mut self, text: &mut String) {
        if !std::mem::take(&mut self.carry).is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn decode(&mut self, mut bytes: &[u8], text: &mut String) {
        loop {
            let error = match std::str::from_utf8(bytes) {
                Ok(valid) => return text.push_str(valid),
                Err(error) => error,
            };
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            // Lossless: these bytes were just found valid.
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(bad) = error.error_len() else {
                self.carry = rest.to_vec();
                return;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            bytes = &rest[bad..];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(pieces: &[&[u8]]) -> String {
        let (mut utf8, mut text) = (Utf8::default(), String::new());
        for piece in pieces {
            utf8.push(piece, &mut text);
            assert!(utf8.carry.len() <= 3, "{:?}", utf8.carry);
        }
        utf8.finish(&mut text);
        text
    }

    #[test]
    fn characters_may_lie_in_two_pieces() {
        let bytes = "a€𝄞".as_bytes();
        for cut in 0..=bytes.len() {
            assert_eq!(decoded(&[&bytes[..cut], &bytes[cut..]]), "a€𝄞");
        }
        assert_eq!(decoded(&[b"\xe2", b"\x82", b"\xac"]), "€");
        assert_eq!(decoded(&[b"\xe2", b"x\xff"]), "\u{fffd}x\u{fffd}");
        assert_eq!(decoded(&[b"\xf0\x9d\x84"]), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_pieces_give_what_the_whole_gives(
            bytes in proptest::collection::vec(
                prop_oneof![Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(0x9d), any::<u8>()],
                0..40,
            ),
            cuts in proptest::collection::vec(0_usize..40, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decoded(&pieces), String::from_utf8_lossy(&bytes));
        }
    }
}

//! Which characters a reader cannot take at face value.

use std::{borrow::Cow, fmt::Write as _};

/// Whether a terminal or a reader could take the character for something other than itself.
#[must_use]
pub fn is_hostile(c: char) -> bool {
    c.is_control() // C0, DEL and C1, so ESC and the one-character CSI too
        || matches!(c,
            '\u{00ad}'                  // soft hyphen: invisible
            | '\u{061c}'                // Arabic letter mark
            | '\u{180e}'                // Mongolian vowel separator: invisible
            | '\u{200b}'..='\u{200f}'   // zero width, and the left-to-right and right-to-left marks
            | '\u{2028}' | '\u{2029}'   // line and paragraph separators
            | '\u{202a}'..='\u{202e}'   // bidirectional embeddings and overrides
            | '\u{2060}'..='\u{206f}'   // invisible operators, isolates, deprecated controls
            | '\u{feff}'                // byte order mark: invisible
            | '\u{fff9}'..='\u{fffb}'   // interlinear annotation
            | '\u{e0000}'..='\u{e007f}' // tags: invisible
        )
}

/// JSON text, with hostile characters as JSON's own escapes: the value stays the same.
#[must_use]
pub fn escape_json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(safe, "\\u{unit:04x}").expect("a String takes all text");
            }
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

//! Makes recorded text safe to show.
//!
//! Names, paths, user agents and bodies were chosen by whoever was recorded. On a terminal a
//! control sequence could repaint lines, retitle the window or answer for the operator, and a
//! bidirectional override could make one name read as another. So everything that comes from a
//! record passes here.

use std::{borrow::Cow, fmt::Write as _};

pub use crate::replay::{escape_json as json, is_hostile};

/// One line of text: every hostile character, line ends and tabs too, is written as an escape.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    replace(text, is_hostile)
}

/// Text of several lines: as [`line()`], but line feeds and tabs stay.
#[must_use]
pub fn block(text: &str) -> Cow<'_, str> {
    replace(text, |c| is_hostile(c) && c != '\n' && c != '\t')
}

/// The first `chars` characters, with `…` in place of the last when there were more.
#[must_use]
pub fn clip(text: &str, chars: usize) -> Cow<'_, str> {
    if text.chars().nth(chars).is_none() {
        return Cow::Borrowed(text);
    }
    let mut clipped: String = text.chars().take(chars.saturating_sub(1)).collect();
    clipped.push('…');
    Cow::Owned(clipped)
}

fn replace(text: &str, hostile: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !hostile(c) => safe.push(c),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c => write!(safe, "\\u{{{:x}}}", u32::from(c)).expect("a String takes all text"),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_become_escapes() {
        for (text, want) in [
            ("plain ünïcode 名", "plain ünïcode 名"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}", "\\u{1b}[2J\\u{1b}]0;title\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"), // C1: a CSI in one character
            ("\u{90}q\u{9c}", "\\u{90}q\\u{9c}"),
            ("web\u{202e}gnp.", "web\\u{202e}gnp."),
            ("a\u{2066}b\u{2069}", "a\\u{2066}b\\u{2069}"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("\u{e0041}", "\\u{e0041}"),
            ("back\u{8}\u{7f}", "back\\u{8}\\u{7f}"),
            ("two\r\nlines\t", "two\\r\\nlines\\t"),
            ("nul\0", "nul\\u{0}"),
        ] {
            assert_eq!(line(text), want, "{text:?}");
        }
    }

    #[test]
    fn blocks_keep_lines_and_tabs_only() {
        assert_eq!(block("a\n\tb\r\u{1b}c"), "a\n\tb\\r\\u{1b}c");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"name": "a\u{9b}\u{202e}\u{e0041}\u{1b}\n\u{7f}é"});
        let text = value.to_string();
        let safe = json(&text);
        assert!(!safe.contains(is_hostile), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).expect("still JSON"), value);
    }

    #[test]
    fn clipping_counts_characters() {
        assert_eq!(clip("ünïcode", 7), "ünïcode");
        assert_eq!(clip("ünïcodes", 7), "ünïcod…");
        assert_eq!(clip("x", 0), "…");
    }
}

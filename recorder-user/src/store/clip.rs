//! Cuts what is too long for a row. Lengths are those of the JSON text, since that is what the index bounds.

use crate::model::ObjectChange;

/// The text, cut to at most `bytes_max` bytes of JSON and then ending in `…`.
pub(super) fn clip(text: &str, bytes_max: usize) -> String {
    if text.len() * 6 <= bytes_max || json_bytes(text) <= bytes_max {
        return text.to_owned();
    }
    let (mut kept, mut used) = (String::new(), '…'.len_utf8());
    for c in text.chars() {
        used += char_json_bytes(c);
        if used > bytes_max {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// As many of the texts as fit, each cut to `each_max`, and how many did not.
pub(super) fn clip_list(texts: &[String], each_max: usize, bytes_max: usize) -> (Vec<String>, u64) {
    let mut used = 0;
    let mut kept = Vec::new();
    for text in texts {
        let text = clip(text, each_max);
        // Quotes and comma.
        used += json_bytes(&text) + 3;
        if used > bytes_max {
            break;
        }
        kept.push(text);
    }
    let omitted = (texts.len() - kept.len()) as u64;
    (kept, omitted)
}

/// As many of the objects as fit, and how many that is.
pub(super) fn clip_objects(objects: &[ObjectChange], bytes_max: usize) -> (Vec<ObjectChange>, u64) {
    let mut used = 0;
    let mut kept = Vec::new();
    for object in objects {
        let texts = [&object.kind, &object.namespace, &object.name, &object.uid];
        used += OBJECT_BYTES + texts.iter().map(|text| json_bytes(text)).sum::<usize>();
        if used > bytes_max {
            break;
        }
        kept.push(object.clone());
    }
    let fitted = kept.len() as u64;
    (kept, fitted)
}

fn json_bytes(text: &str) -> usize {
    text.chars().map(char_json_bytes).sum()
}

fn char_json_bytes(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        '\0'..='\u{1f}' => 6,
        c => c.len_utf8(),
    }
}

/// An object's keys, punctuation and longest change.
const OBJECT_BYTES: usize =
    r#"{"kind":"","namespace":"","name":"","uid":"","change":"modified"},"#.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_kept_and_the_rest_is_marked() {
        assert_eq!(clip("short", 16), "short");
        assert_eq!(clip("exactly8", 8), "exactly8");
        assert_eq!(clip("nine chars", 9), "nine c…");
        assert_eq!(clip("äöü", 4), "…");
        for text in ["\"".repeat(99), "\u{1}".repeat(99), "ä".repeat(99), "\u{10ffff}".repeat(99)]
        {
            let json = serde_json::to_string(&clip(&text, 64)).expect("text");
            assert!(json.len() - 2 <= 64, "{json}");
        }
    }

    #[test]
    fn lists_say_how_many_they_lost() {
        let texts: Vec<String> = (0..10).map(|i| format!("policy{i}")).collect();
        assert_eq!(clip_list(&texts, 64, 1000), (texts.clone(), 0));
        assert_eq!(clip_list(&texts, 64, 20), (texts[..2].to_vec(), 8));
    }
}

//! Which values of a JSON document are removed.

use crate::{
    model::Obligations,
    wire::json::{Path, Segment},
};

/// Whether an annotation of this name holds a copy of the whole object, as
/// `kubectl.kubernetes.io/last-applied-configuration` does and those of other tools
/// (`kapp.k14s.io/original`, `objectset.rio.cattle.io/applied`).
pub(super) fn is_copy(key: &[u8]) -> bool {
    let Some(slash) = key.iter().position(|byte| *byte == b'/') else { return false };
    let name = key[slash..].to_ascii_lowercase();
    [&b"applied"[..], b"original"]
        .iter()
        .any(|word| name.windows(word.len()).any(|part| part == *word))
}

/// What the resource makes secret by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sensitive {
    /// Nothing.
    #[default]
    No,
    /// `data` and `stringData`.
    Secrets,
    /// `token`.
    Tokens,
}

/// All rules for one body.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) sensitive: Sensitive,
    /// Whether the API server's error text may quote what was sent.
    pub(super) messages: bool,
    pub(super) paths: Vec<Pattern>,
}

/// One `@redact` path, relative to the object, arrays left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Any,
    Named(Vec<u8>),
}

/// What may stand around objects: lists, watch events, tables, and tables in watch events.
const WRAPPERS: [&[&[u8]]; 6] = [
    &[],
    &[b"items"],
    &[b"object"],
    &[b"rows", b"object"],
    &[b"object", b"rows", b"object"],
    &[b"object", b"items"],
];

impl Rules {
    pub(super) fn new(
        sensitive: Sensitive,
        messages: bool,
        obligations: Option<&Obligations>,
    ) -> Self {
        let paths = obligations.map_or(&[][..], |obligations| &obligations.redact);
        let paths = paths.iter().filter_map(|path| Pattern::parse(path)).collect();
        Self { sensitive, messages, paths }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sensitive == Sensitive::No && self.paths.is_empty()
    }

    /// Whether all scalars at and below this path are removed.
    pub(super) fn removes(&self, path: &Path) -> bool {
        let Some(last) = path.last() else {
            // A document that is a bare string or number is no object: nothing tells what it is.
            return true;
        };
        if path.get(0) == Some(Segment::Index) {
            return !is_patch_address(path);
        }
        let Segment::Key(key) = last else { return false };
        let secret = match self.sensitive {
            Sensitive::No => false,
            Sensitive::Secrets => is(key, b"data") || is(key, b"stringData"),
            Sensitive::Tokens => is(key, b"token"),
        };
        secret
            || is_copy(key)
            || (self.messages && is(key, b"message"))
            || self.paths.iter().any(|pattern| pattern.matches(path))
    }
}

/// Within a JSON patch (an array of operations) the parts that say where, not what. The containers
/// themselves are not removed as such, else nothing below them could be kept.
fn is_patch_address(path: &Path) -> bool {
    match (path.len(), path.get(1)) {
        (2, Some(Segment::Key(key))) => is(key, b"op") || is(key, b"path") || is(key, b"from"),
        _ => false,
    }
}

/// The API server matches case-sensitively; matching more costs nothing.
fn is(key: &[u8], name: &[u8]) -> bool {
    key.eq_ignore_ascii_case(name)
}

impl Pattern {
    /// From `a.b[].c`, `$.a.b`, `a.*.c`; a dot inside a key is written `\.`. None for an empty path.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('$').unwrap_or(text);
        let text = text.strip_prefix('.').unwrap_or(text);
        let mut keys = vec![String::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let last = keys.last_mut()?;
            match character {
                '\\' => last.extend(characters.next()),
                '.' => keys.push(String::new()),
                _ => last.push(character),
            }
        }
        let keys = keys.iter().map(|key| {
            let key = key.strip_suffix("[]").or_else(|| key.strip_suffix("[*]")).unwrap_or(key);
            if key == "*" { Key::Any } else { Key::Named(key.as_bytes().to_vec()) }
        });
        let keys: Vec<_> = keys.filter(|key| *key != Key::Named(Vec::new())).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    fn matches(&self, path: &Path) -> bool {
        WRAPPERS.iter().any(|wrapper| {
            let mut keys = path.keys();
            wrapper.iter().all(|name| keys.next() == Some(*name))
                && keys.clone().count() == self.0.len()
                && keys.zip(&self.0).all(|(key, wanted)| match wanted {
                    Key::Any => true,
                    Key::Named(name) => is(key, name),
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Option<Vec<String>> {
        let name = |key: &Key| match key {
            Key::Any => "<any>".to_owned(),
            Key::Named(name) => String::from_utf8_lossy(name).into_owned(),
        };
        Pattern::parse(text).map(|pattern| pattern.0.iter().map(name).collect())
    }

    #[test]
    fn paths() {
        for (text, expected) in [
            ("spec.containers[].env[*].value", vec!["spec", "containers", "env", "value"]),
            ("$.data.password", vec!["data", "password"]),
            (".data", vec!["data"]),
            (
                r"metadata.annotations.example\.com/x",
                vec!["metadata", "annotations", "example.com/x"],
            ),
            ("data.*", vec!["data", "<any>"]),
            (" a..b ", vec!["a", "b"]),
        ] {
            assert_eq!(keys(text).expect("a path"), expected, "{text}");
        }
        assert_eq!(keys(""), None);
        assert_eq!(keys("$."), None);
    }
}

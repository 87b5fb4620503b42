//! Removal of values from JSON as it streams by.

use super::{RedactKey, rules::Rules, tally::Tally};
use crate::wire::json::{Interest, JsonError, Path, Scalar, Scanner, Segment, Visitor};

/// The state of one JSON body.
pub(super) struct JsonFilter {
    scanner: Scanner,
    editor: Editor,
    fed: u64,
}

struct Editor {
    rules: Rules,
    key: RedactKey,
    hasher: blake3::Hasher,
    /// Depth of the container all of whose scalars are removed.
    removing: Option<usize>,
    out: Vec<u8>,
    tally: Tally,
}

impl JsonFilter {
    pub(super) fn new(rules: Rules, key: &RedactKey) -> Self {
        let editor = Editor {
            rules,
            hasher: key.hasher(),
            key: key.clone(),
            removing: None,
            out: Vec::new(),
            tally: Tally::default(),
        };
        Self { scanner: Scanner::new(), editor, fed: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), JsonError> {
        match self.scanner.feed(bytes, &mut self.editor) {
            Ok(()) => {
                self.fed += bytes.len() as u64;
                Ok(())
            }
            Err(stopped) => {
                self.fed += stopped.at as u64;
                Err(stopped.error)
            }
        }
    }

    pub(super) fn finish(&mut self) -> Result<(), JsonError> {
        self.scanner.finish(&mut self.editor)
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.editor.out)
    }

    /// Plain bytes that the output stands for.
    pub(super) fn accepted(&self) -> u64 {
        self.fed - self.scanner.held_bytes()
    }

    pub(super) fn into_tally(self) -> Tally {
        self.editor.tally
    }
}

impl Visitor for Editor {
    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn scalar(&mut self, path: &Path, scalar: Scalar) -> Interest {
        // `null` deletes a key in merge patches; literals tell nothing.
        let remove =
            scalar != Scalar::Literal && (self.removing.is_some() || self.rules.removes(path));
        if remove {
            self.hasher = self.key.hasher();
            Interest::Take
        } else {
            Interest::Pass
        }
    }

    fn text(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
    }

    fn taken(&mut self, path: &Path, _: Scalar) {
        self.out.push(b'"');
        self.out.extend_from_slice(RedactKey::mark(&self.hasher).as_bytes());
        self.out.push(b'"');
        self.tally.add(told(path));
    }

    fn open(&mut self, path: &Path) {
        // The elements of a JSON patch are looked into: a part of them is kept.
        let is_patch_part =
            path.is_empty() || (path.len() == 1 && path.last() == Some(Segment::Index));
        if self.removing.is_none() && !is_patch_part && self.rules.removes(path) {
            self.removing = Some(path.len());
        }
    }

    fn close(&mut self, path: &Path) {
        if self.removing == Some(path.len()) {
            self.removing = None;
        }
    }
}

/// The path as it is told: `items[].data.password`.
fn told(path: &Path) -> String {
    let mut text = String::new();
    for segment in path.segments() {
        match segment {
            Segment::Index => text.push_str("[]"),
            Segment::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&String::from_utf8_lossy(key));
            }
        }
    }
    text
}

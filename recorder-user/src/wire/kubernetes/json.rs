//! Facts from JSON as it streams by.

use super::{Document, ITEMS_MAX, ObjectFacts, StatusFacts, VALUE_BYTES_MAX, bounded};
use crate::wire::json::{Interest, JsonError, Path, Scalar, Scanner, Segment, Visitor};

/// Reads the facts of one document from any chunking, in bounded memory.
#[derive(Debug, Default)]
pub struct JsonReader {
    scanner: Scanner,
    collector: Collector,
    failed: bool,
}

impl JsonReader {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes. After an error nothing more is read.
    ///
    /// # Errors
    /// When the bytes are not JSON.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), JsonError> {
        if self.failed {
            return Ok(());
        }
        self.scanner.feed(bytes, &mut self.collector).map_err(|stopped| {
            self.failed = true;
            stopped.error
        })
    }

    /// The rest of the document will not come: what was read is all there is.
    pub fn stop(&mut self) {
        self.failed = true;
    }

    /// What was read.
    #[must_use]
    pub fn finish(mut self) -> Document {
        let ended = !self.failed && self.scanner.finish(&mut self.collector).is_ok();
        let mut document = self.collector.document;
        document.complete = ended && self.scanner.documents() == 1;
        if document.event.is_empty() || !self.collector.has_event_object {
            // Without an `object` it is an ordinary object that has a `type`, as Secrets do.
            document.event.clear();
        }
        if document.kind != "Status" {
            // Other kinds have a `reason` or `code` of their own (events, conditions).
            document.status = StatusFacts::default();
        }
        // Decoders differ in what they make of a repeated key: then a dry run is not to be relied on.
        document.dry_run &= self.collector.dry_run_keys == 1;
        document.delete_options_dry_run &=
            self.collector.dry_run_keys == 1 && self.collector.delete_options_keys == 1;
        document.object.api_version.clone_from(&document.api_version);
        document.object.kind.clone_from(&document.kind);
        document
    }
}

/// A value that is wanted, and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Event,
    ApiVersion,
    Kind,
    StatusStatus,
    StatusReason,
    StatusCode,
    StatusName,
    StatusKind,
    StatusUid,
    DryRun,
    DeleteOptionsDryRun,
    Object(Fact),
    Item(Fact),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    ApiVersion,
    Kind,
    Name,
    Namespace,
    Uid,
    ResourceVersion,
    DeletionTimestamp,
    GracePeriod,
    Finalizer,
}

#[derive(Debug, Default)]
struct Collector {
    document: Document,
    item: ObjectFacts,
    has_event_object: bool,
    dry_run_keys: u32,
    delete_options_keys: u32,
    want: Option<Want>,
    text: Vec<u8>,
}

/// The steps of a path that any wanted value or list item needs, at most.
const WANTED_STEPS_MAX: usize = 8;

impl Collector {
    /// The path in a fixed array without a leading `object` step; none when deeper than anything wanted.
    fn steps(path: &Path) -> Option<([&[u8]; WANTED_STEPS_MAX], usize, bool)> {
        if path.len() > WANTED_STEPS_MAX {
            return None;
        }
        let mut steps: [&[u8]; WANTED_STEPS_MAX] = [&[]; WANTED_STEPS_MAX];
        let mut count = 0;
        let mut in_event = false;
        for segment in path.segments() {
            let step: &[u8] = match segment {
                Segment::Key(b"object") if count == 0 && !in_event => {
                    in_event = true;
                    continue;
                }
                Segment::Index => b"[]",
                // A key that is spelled like the mark of arrays is none that is wanted.
                Segment::Key(b"[]") => b"",
                Segment::Key(key) => key,
            };
            steps[count] = step;
            count += 1;
        }
        Some((steps, count, in_event))
    }

    fn wanted(path: &Path) -> Option<Want> {
        let (steps, count, in_event) = Self::steps(path)?;
        match &steps[..count] {
            [b"type"] if !in_event => Some(Want::Event),
            [b"apiVersion"] => Some(Want::ApiVersion),
            [b"kind"] => Some(Want::Kind),
            [b"status"] => Some(Want::StatusStatus),
            [b"reason"] => Some(Want::StatusReason),
            [b"code"] => Some(Want::StatusCode),
            [b"details", b"name"] => Some(Want::StatusName),
            [b"details", b"kind"] => Some(Want::StatusKind),
            [b"details", b"uid"] => Some(Want::StatusUid),
            [b"dryRun", b"[]"] => Some(Want::DryRun),
            [b"deleteOptions", b"dryRun", b"[]"] => Some(Want::DeleteOptionsDryRun),
            [b"items", b"[]", rest @ ..] | [b"rows", b"[]", b"object", rest @ ..] => {
                fact(rest).map(Want::Item)
            }
            rest => fact(rest).map(Want::Object),
        }
    }

    fn is_item(path: &Path) -> bool {
        matches!(
            Self::steps(path),
            Some((steps, count, _)) if matches!(&steps[..count], [b"items", b"[]"] | [b"rows", b"[]"])
        )
    }

    /// Counts how often the keys of a dry run begin a value.
    fn count_dry_run(&mut self, path: &Path) {
        let keys = (path.get(0), path.get(1), path.len());
        let is = |step: Option<Segment<'_>>, name: &[u8]| step == Some(Segment::Key(name));
        match keys {
            (step, None, 1) if is(step, b"dryRun") => self.dry_run_keys += 1,
            (step, None, 1) if is(step, b"deleteOptions") => self.delete_options_keys += 1,
            (first, second, 2) if is(first, b"deleteOptions") && is(second, b"dryRun") => {
                self.dry_run_keys += 1;
            }
            _ => {}
        }
    }

    fn set(&mut self, want: Want) {
        let text = bounded(&self.text);
        let document = &mut self.document;
        match want {
            Want::Event => document.event = text,
            Want::ApiVersion => document.api_version = text,
            Want::Kind => document.kind = text,
            Want::StatusStatus => document.status.status = text,
            Want::StatusReason => document.status.reason = text,
            Want::StatusCode => document.status.code = text.parse().unwrap_or(0),
            Want::StatusName => document.status.name = text,
            Want::StatusKind => document.status.kind = text,
            Want::StatusUid => document.status.uid = text,
            Want::DryRun => document.dry_run |= text == "All",
            Want::DeleteOptionsDryRun => document.delete_options_dry_run |= text == "All",
            Want::Object(fact) => set_fact(&mut document.object, fact, text),
            Want::Item(fact) => set_fact(&mut self.item, fact, text),
        }
    }
}

fn fact(steps: &[&[u8]]) -> Option<Fact> {
    match steps {
        [b"apiVersion"] => Some(Fact::ApiVersion),
        [b"kind"] => Some(Fact::Kind),
        [b"metadata", b"name"] => Some(Fact::Name),
        [b"metadata", b"namespace"] => Some(Fact::Namespace),
        [b"metadata", b"uid"] => Some(Fact::Uid),
        [b"metadata", b"resourceVersion"] => Some(Fact::ResourceVersion),
        [b"metadata", b"deletionTimestamp"] => Some(Fact::DeletionTimestamp),
        [b"metadata", b"deletionGracePeriodSeconds"] => Some(Fact::GracePeriod),
        [b"metadata", b"finalizers", b"[]"] => Some(Fact::Finalizer),
        _ => None,
    }
}

fn set_fact(object: &mut ObjectFacts, fact: Fact, text: String) {
    match fact {
        Fact::ApiVersion => object.api_version = text,
        Fact::Kind => object.kind = text,
        Fact::Name => object.name = text,
        Fact::Namespace => object.namespace = text,
        Fact::Uid => object.uid = text,
        Fact::ResourceVersion => object.resource_version = text,
        Fact::DeletionTimestamp => object.deleting = !text.is_empty(),
        Fact::GracePeriod => object.no_grace = text == "0",
        Fact::Finalizer => object.finalizers = true,
    }
}

impl Visitor for Collector {
    fn scalar(&mut self, path: &Path, scalar: Scalar) -> Interest {
        self.count_dry_run(path);
        self.want = match scalar {
            Scalar::Literal => None,
            Scalar::String | Scalar::Number => Self::wanted(path),
        };
        self.text.clear();
        if self.want.is_some() { Interest::Take } else { Interest::Pass }
    }

    fn text(&mut self, piece: &[u8]) {
        let room = VALUE_BYTES_MAX.saturating_sub(self.text.len());
        self.text.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn taken(&mut self, _: &Path, _: Scalar) {
        if let Some(want) = self.want.take() {
            self.set(want);
        }
    }

    fn open(&mut self, path: &Path) {
        if path.len() == 1 && path.last() == Some(Segment::Key(b"object")) {
            self.has_event_object = true;
        }
        self.count_dry_run(path);
        if Self::is_item(path) {
            self.item = ObjectFacts::default();
        }
    }

    fn close(&mut self, path: &Path) {
        if Self::is_item(path) {
            self.document.item_count += 1;
            if self.document.items.len() < ITEMS_MAX {
                self.document.items.push(std::mem::take(&mut self.item));
            }
        }
    }
}

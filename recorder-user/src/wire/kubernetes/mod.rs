//! Facts about Kubernetes objects, from JSON or protobuf, without decoding what is not needed.
//!
//! One [`Document`] covers every shape in which the API server shows objects: a single object, a
//! `List`, a `Table` with included objects, `PartialObjectMetadata` and its list, a `Status`, and a
//! watch event around any of them.

mod json;
mod protobuf;

pub use json::JsonReader;
pub use protobuf::{EnvelopeError, MAGIC, Unknown, envelope, read_envelope};

use super::json::JsonError;

/// Objects whose facts are kept per document; further ones are counted.
pub const ITEMS_MAX: usize = 256;

/// Bytes kept of one value; longer ones are cut. Names and uids are at most 253.
pub const VALUE_BYTES_MAX: usize = 512;

/// What identifies one object, and how far its removal is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectFacts {
    /// `apiVersion`; often absent inside lists.
    pub api_version: String,
    /// `kind`; often absent inside lists.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Whether `metadata.deletionGracePeriodSeconds` is 0.
    pub no_grace: bool,
    /// Whether `metadata.finalizers` holds any.
    pub finalizers: bool,
}

/// What a `Status` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusFacts {
    /// `Success` or `Failure`.
    pub status: String,
    /// Machine-readable cause of a failure.
    pub reason: String,
    /// The HTTP status it stands for; 0 when absent.
    pub code: u16,
    /// `details.name`.
    pub name: String,
    /// `details.kind`, which is the resource in the answers to DELETE.
    pub kind: String,
    /// `details.uid`.
    pub uid: String,
}

/// What is known of one body or one watch event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The watch event's type; empty when this is no watch event.
    pub event: String,
    /// `apiVersion` of the document.
    pub api_version: String,
    /// `kind` of the document.
    pub kind: String,
    /// The object itself, when the document is one.
    pub object: ObjectFacts,
    /// The first [`ITEMS_MAX`] objects of a `List` or `Table`.
    pub items: Vec<ObjectFacts>,
    /// How many objects the list holds.
    pub item_count: u64,
    /// What a `Status` says; empty for other kinds.
    pub status: StatusFacts,
    /// Whether `dryRun` asks for `All`, as in `DeleteOptions`.
    pub dry_run: bool,
    /// Whether `deleteOptions.dryRun` asks for `All`, as in `Eviction`.
    pub delete_options_dry_run: bool,
    /// Whether the whole document was read. If not, the facts before the damage are still here.
    pub complete: bool,
}

impl Document {
    /// The facts of one JSON document; of as much of it as is JSON.
    #[must_use]
    pub fn from_json(bytes: &[u8]) -> Self {
        let mut reader = JsonReader::new();
        // An error is told by `complete`.
        let _: Result<(), JsonError> = reader.push(bytes);
        reader.finish()
    }

    /// The facts of one enveloped protobuf document.
    ///
    /// # Errors
    /// When the envelope is not one. Damage inside of it only leaves `complete` false.
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        protobuf::document(bytes)
    }

    /// The facts of one protobuf watch event, without its length.
    ///
    /// # Errors
    /// When the event's object is not in an envelope.
    pub fn from_watch_protobuf(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        protobuf::watch_event(bytes)
    }

    /// Every object of the document: the items of a list or table, else the object itself.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectFacts> {
        let is_list = self.is_list();
        let own = (!is_list && self.kind != "Status").then_some(&self.object);
        own.into_iter().chain(is_list.then_some(&self.items).into_iter().flatten())
    }

    /// Whether the document is a list or a table rather than one object.
    #[must_use]
    pub fn is_list(&self) -> bool {
        // A custom kind may be called `…List` and be an object all the same: then it has a name.
        self.item_count > 0
            || self.kind == "Table"
            || (self.kind.ends_with("List") && self.object.name.is_empty())
    }
}

/// Cuts at a character boundary and replaces what is not UTF-8.
fn bounded(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(VALUE_BYTES_MAX)];
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        // The cut went through a character.
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned()
        }
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests;

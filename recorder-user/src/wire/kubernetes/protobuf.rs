//! The protobuf envelope, and facts from inside of it.
//!
//! Field numbers are those of the `generated.proto` files of k8s.io/api and k8s.io/apimachinery.

use super::{Document, ITEMS_MAX, ObjectFacts, StatusFacts, bounded};
use crate::wire::protobuf::{ProtobufError, Value, fields, write_bytes};

/// What every enveloped body begins with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Why the envelope could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It does not begin with `k8s\0`.
    #[error("not a Kubernetes protobuf envelope")]
    Magic,
    /// `runtime.Unknown` could not be walked.
    #[error("malformed envelope")]
    Malformed(#[source] ProtobufError),
}

impl From<ProtobufError> for EnvelopeError {
    fn from(error: ProtobufError) -> Self {
        Self::Malformed(error)
    }
}

/// `runtime.Unknown`: the envelope's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// `typeMeta.apiVersion`.
    pub api_version: String,
    /// `typeMeta.kind`.
    pub kind: String,
    /// The object, encoded by `content_type` (empty: protobuf).
    pub raw: &'a [u8],
    /// Empty in all that API servers write.
    pub content_encoding: &'a [u8],
    /// Empty for protobuf.
    pub content_type: &'a [u8],
}

/// Reads the envelope. Repeated fields count as decoders have them count: the last wins.
///
/// # Errors
/// When `bytes` is not an envelope.
pub fn read_envelope(bytes: &[u8]) -> Result<Unknown<'_>, EnvelopeError> {
    let message = bytes.strip_prefix(&MAGIC).ok_or(EnvelopeError::Magic)?;
    let mut unknown = Unknown::default();
    for field in fields(message) {
        let field = field?;
        let Value::Bytes(bytes) = field.value else { continue };
        match field.number {
            1 => {
                for field in fields(bytes) {
                    let field = field?;
                    match (field.number, field.value) {
                        (1, Value::Bytes(text)) => unknown.api_version = bounded(text),
                        (2, Value::Bytes(text)) => unknown.kind = bounded(text),
                        _ => {}
                    }
                }
            }
            2 => unknown.raw = bytes,
            3 => unknown.content_encoding = bytes,
            4 => unknown.content_type = bytes,
            _ => {}
        }
    }
    Ok(unknown)
}

/// Wraps an encoded object.
#[must_use]
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    write_bytes(1, api_version.as_bytes(), &mut type_meta);
    write_bytes(2, kind.as_bytes(), &mut type_meta);
    let mut out = MAGIC.to_vec();
    write_bytes(1, &type_meta, &mut out);
    write_bytes(2, raw, &mut out);
    write_bytes(3, &[], &mut out);
    write_bytes(4, &[], &mut out);
    out
}

pub(super) fn document(bytes: &[u8]) -> Result<Document, EnvelopeError> {
    let unknown = match read_envelope(bytes) {
        Ok(unknown) => unknown,
        // A prefix of a longer body: what the fields before the cut say is still true.
        Err(EnvelopeError::Malformed(ProtobufError::Truncated)) => return Ok(prefix(bytes)),
        Err(error) => return Err(error),
    };
    let mut document = read(&unknown.api_version, &unknown.kind, unknown.raw);
    document.complete &= unknown.content_encoding.is_empty();
    Ok(document)
}

/// The facts of a body whose end is missing.
fn prefix(bytes: &[u8]) -> Document {
    let message = &bytes[MAGIC.len()..];
    let mut cut = MAGIC.to_vec();
    let mut used = 0;
    for field in fields(message).map_while(Result::ok) {
        cut.extend_from_slice(field.encoded);
        used += field.encoded.len();
    }
    let Ok(unknown) = read_envelope(&cut) else { return Document::default() };
    // The field that was cut is most likely `raw`: its tag and length, then as much as there is.
    let rest = &message[used..];
    let raw = match rest.split_first() {
        Some((0x12, rest)) => {
            let length = rest.iter().take(10).take_while(|byte| **byte & 0x80 != 0).count() + 1;
            rest.get(length..).unwrap_or_default()
        }
        _ => &[],
    };
    let mut document = read(&unknown.api_version, &unknown.kind, raw);
    document.complete = false;
    document
}

pub(super) fn watch_event(bytes: &[u8]) -> Result<Document, EnvelopeError> {
    let (mut event, mut object) = (String::new(), &[][..]);
    for field in fields(bytes) {
        let field = field?;
        match (field.number, field.value) {
            (1, Value::Bytes(text)) => event = bounded(text),
            (2, Value::Bytes(extension)) => {
                for field in fields(extension) {
                    if let (1, Value::Bytes(raw)) = (field?.number, field?.value) {
                        object = raw;
                    }
                }
            }
            _ => {}
        }
    }
    let mut document = document(object)?;
    document.event = event;
    Ok(document)
}

fn read(api_version: &str, kind: &str, raw: &[u8]) -> Document {
    let mut document = Document {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        complete: true,
        ..Document::default()
    };
    let read = match kind {
        "Status" => status(raw, &mut document.status),
        "DeleteOptions" => dry_run(raw, &mut document.dry_run),
        // Discovery documents end in `List` too but are no lists of objects.
        "APIResourceList" | "APIGroupList" => Ok(()),
        list if list.ends_with("List") => items(raw, &mut document),
        _ => single(kind, raw, &mut document),
    };
    document.complete = read.is_ok();
    document.object.api_version = api_version.to_owned();
    document.object.kind = kind.to_owned();
    document
}

fn single(kind: &str, raw: &[u8], document: &mut Document) -> Result<(), ProtobufError> {
    for field in fields(raw) {
        let field = field?;
        match (field.number, field.value) {
            (1, Value::Bytes(metadata)) => object_meta(metadata, &mut document.object)?,
            (2, Value::Bytes(options)) if kind == "Eviction" => {
                dry_run(options, &mut document.delete_options_dry_run)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn items(raw: &[u8], document: &mut Document) -> Result<(), ProtobufError> {
    for field in fields(raw) {
        let field = field?;
        let (2, Value::Bytes(item)) = (field.number, field.value) else { continue };
        document.item_count += 1;
        if document.items.len() == ITEMS_MAX {
            continue;
        }
        let mut facts = ObjectFacts::default();
        for field in fields(item) {
            let field = field?;
            if let (1, Value::Bytes(metadata)) = (field.number, field.value) {
                object_meta(metadata, &mut facts)?;
            }
        }
        document.items.push(facts);
    }
    Ok(())
}

fn object_meta(metadata: &[u8], object: &mut ObjectFacts) -> Result<(), ProtobufError> {
    for field in fields(metadata) {
        let field = field?;
        match (field.number, field.value) {
            (1, Value::Bytes(text)) => object.name = bounded(text),
            (3, Value::Bytes(text)) => object.namespace = bounded(text),
            (5, Value::Bytes(text)) => object.uid = bounded(text),
            (6, Value::Bytes(text)) => object.resource_version = bounded(text),
            (9, Value::Bytes(_)) => object.deleting = true,
            (10, Value::Varint(seconds)) => object.no_grace = seconds == 0,
            (14, Value::Bytes(_)) => object.finalizers = true,
            _ => {}
        }
    }
    Ok(())
}

fn status(raw: &[u8], status: &mut StatusFacts) -> Result<(), ProtobufError> {
    for field in fields(raw) {
        let field = field?;
        match (field.number, field.value) {
            (2, Value::Bytes(text)) => status.status = bounded(text),
            (4, Value::Bytes(text)) => status.reason = bounded(text),
            (5, Value::Bytes(details)) => {
                for field in fields(details) {
                    let field = field?;
                    match (field.number, field.value) {
                        (1, Value::Bytes(text)) => status.name = bounded(text),
                        (3, Value::Bytes(text)) => status.kind = bounded(text),
                        (6, Value::Bytes(text)) => status.uid = bounded(text),
                        _ => {}
                    }
                }
            }
            (6, Value::Varint(code)) => status.code = u16::try_from(code).unwrap_or(0),
            _ => {}
        }
    }
    Ok(())
}

/// `DeleteOptions.dryRun`.
fn dry_run(options: &[u8], dry_run: &mut bool) -> Result<(), ProtobufError> {
    for field in fields(options) {
        let field = field?;
        if let (5, Value::Bytes(b"All")) = (field.number, field.value) {
            *dry_run = true;
        }
    }
    Ok(())
}

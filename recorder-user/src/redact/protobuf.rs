//! Removal of values from protobuf bodies: whole messages, buffered up to a bound and rewritten.
//!
//! The rewriting follows a small schema per kind. A field that the schema does not know keeps its
//! place, but if it has bytes they are replaced: a newer field of a Secret may hold a secret too.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    RedactKey,
    rules::{Sensitive, is_copy},
    tally::Tally,
};
use crate::wire::{
    kubernetes::{MAGIC, read_envelope},
    protobuf::{ProtobufError, Value, fields, write_bytes},
};

/// Bytes of one body, or of one watch event, that are buffered for rewriting; more is withheld.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Why a message cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Undecodable,
    OverBound,
}

impl From<ProtobufError> for Refused {
    fn from(_: ProtobufError) -> Self {
        Self::Undecodable
    }
}

/// What a field holds.
enum Shape {
    /// Not secret.
    Keep,
    /// Bytes or text to remove.
    Remove,
    /// A message to look into.
    Message(&'static Schema),
    /// A `map` of which every value is removed.
    RemoveValues,
    /// `ObjectMeta.annotations`.
    Annotations,
    /// `Status` text that may quote what was sent.
    ErrorText,
}

/// The known fields of a message: number, name, shape.
struct Schema(&'static [(u32, &'static str, Shape)]);

static OBJECT_META: Schema = Schema(&[
    (1, "name", Shape::Keep),
    (2, "generateName", Shape::Keep),
    (3, "namespace", Shape::Keep),
    (4, "selfLink", Shape::Keep),
    (5, "uid", Shape::Keep),
    (6, "resourceVersion", Shape::Keep),
    (8, "creationTimestamp", Shape::Keep),
    (9, "deletionTimestamp", Shape::Keep),
    (11, "labels", Shape::Keep),
    (12, "annotations", Shape::Annotations),
    (13, "ownerReferences", Shape::Keep),
    (14, "finalizers", Shape::Keep),
    (17, "managedFields", Shape::Keep),
]);

static SECRET: Schema = Schema(&[
    (1, "metadata", Shape::Message(&OBJECT_META)),
    (2, "data", Shape::RemoveValues),
    (3, "type", Shape::Keep),
    (4, "stringData", Shape::RemoveValues),
]);

static SECRET_LIST: Schema =
    Schema(&[(1, "metadata", Shape::Keep), (2, "items", Shape::Message(&SECRET))]);

static PARTIAL: Schema = Schema(&[(1, "metadata", Shape::Message(&OBJECT_META))]);

static PARTIAL_LIST: Schema =
    Schema(&[(1, "metadata", Shape::Keep), (2, "items", Shape::Message(&PARTIAL))]);

static TOKEN_REQUEST: Schema = Schema(&[
    (1, "metadata", Shape::Message(&OBJECT_META)),
    (2, "spec", Shape::Keep),
    (3, "status", Shape::Message(&TOKEN_REQUEST_STATUS)),
]);

static TOKEN_REQUEST_STATUS: Schema =
    Schema(&[(1, "token", Shape::Remove), (2, "expirationTimestamp", Shape::Keep)]);

static TOKEN_REVIEW: Schema = Schema(&[
    (1, "metadata", Shape::Message(&OBJECT_META)),
    (2, "spec", Shape::Message(&TOKEN_REVIEW_SPEC)),
    (3, "status", Shape::Keep),
]);

static TOKEN_REVIEW_SPEC: Schema =
    Schema(&[(1, "token", Shape::Remove), (2, "audiences", Shape::Keep)]);

static STATUS: Schema = Schema(&[
    (1, "metadata", Shape::Keep),
    (2, "status", Shape::Keep),
    (3, "message", Shape::ErrorText),
    (4, "reason", Shape::Keep),
    (5, "details", Shape::Message(&STATUS_DETAILS)),
]);

static STATUS_DETAILS: Schema = Schema(&[
    (1, "name", Shape::Keep),
    (2, "group", Shape::Keep),
    (3, "kind", Shape::Keep),
    (4, "causes", Shape::Message(&STATUS_CAUSE)),
    (6, "uid", Shape::Keep),
]);

static STATUS_CAUSE: Schema = Schema(&[
    (1, "reason", Shape::Keep),
    (2, "message", Shape::ErrorText),
    (3, "field", Shape::Keep),
]);

static DELETE_OPTIONS: Schema = Schema(&[
    (2, "preconditions", Shape::Keep),
    (4, "propagationPolicy", Shape::Keep),
    (5, "dryRun", Shape::Keep),
]);

/// The schema of a kind that such a body may hold; none for a kind that does not belong there.
fn schema(sensitive: Sensitive, kind: &str) -> Option<&'static Schema> {
    match (sensitive, kind) {
        (_, "Status") => Some(&STATUS),
        (_, "DeleteOptions") => Some(&DELETE_OPTIONS),
        (Sensitive::Secrets, "Secret") => Some(&SECRET),
        (Sensitive::Secrets, "SecretList") => Some(&SECRET_LIST),
        (Sensitive::Secrets, "PartialObjectMetadata") => Some(&PARTIAL),
        (Sensitive::Secrets, "PartialObjectMetadataList") => Some(&PARTIAL_LIST),
        (Sensitive::Tokens, "TokenRequest") => Some(&TOKEN_REQUEST),
        (Sensitive::Tokens, "TokenReview") => Some(&TOKEN_REVIEW),
        _ => None,
    }
}

/// The state of one protobuf body: a single message, or watch events behind their lengths.
pub(super) struct ProtobufFilter {
    sensitive: Sensitive,
    messages: bool,
    key: RedactKey,
    buffer: Vec<u8>,
    out: Vec<u8>,
    accepted: u64,
    tally: Tally,
}

impl ProtobufFilter {
    pub(super) fn new(sensitive: Sensitive, messages: bool, key: &RedactKey) -> Self {
        Self {
            sensitive,
            messages,
            key: key.clone(),
            buffer: Vec::new(),
            out: Vec::new(),
            accepted: 0,
            tally: Tally::default(),
        }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Refused> {
        while !bytes.is_empty() {
            // Up to the length first, then up to the end of what it announces: never beyond one frame.
            let wanted = match self.buffer.first_chunk::<4>() {
                None => 4,
                Some(&MAGIC) => MESSAGE_BYTES_MAX + 1,
                Some(header) => 4 + u32::from_be_bytes(*header) as usize,
            };
            if wanted > MESSAGE_BYTES_MAX + 4 {
                return Err(Refused::OverBound);
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(wanted - self.buffer.len()));
            self.buffer.extend_from_slice(piece);
            bytes = rest;
            if self.buffer.first_chunk() == Some(&MAGIC) {
                if self.buffer.len() > MESSAGE_BYTES_MAX {
                    return Err(Refused::OverBound);
                }
            } else if self.frame_is_whole() {
                self.frame()?;
            }
        }
        Ok(())
    }

    /// The body ended; true when nothing is left over.
    pub(super) fn finish(&mut self) -> Result<bool, Refused> {
        if self.buffer.first_chunk() != Some(&MAGIC) {
            return Ok(self.buffer.is_empty());
        }
        let message = std::mem::take(&mut self.buffer);
        let rewritten = self.envelope(&message)?;
        self.out.extend_from_slice(&rewritten);
        self.accepted += message.len() as u64;
        Ok(true)
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }

    fn frame_is_whole(&self) -> bool {
        self.buffer
            .split_first_chunk::<4>()
            .is_some_and(|(header, rest)| rest.len() == u32::from_be_bytes(*header) as usize)
    }

    /// One watch event: `WatchEvent{type = 1, object = 2 RawExtension{raw = 1}}`.
    fn frame(&mut self) -> Result<(), Refused> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut event = Vec::new();
        for field in fields(&buffer[4..]) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Bytes(_)) => event.extend_from_slice(field.encoded),
                (2, Value::Bytes(extension)) => {
                    let mut rewritten = Vec::new();
                    for field in fields(extension) {
                        let field = field?;
                        let (1, Value::Bytes(raw)) = (field.number, field.value) else {
                            return Err(Refused::Undecodable);
                        };
                        write_bytes(1, &self.envelope(raw)?, &mut rewritten);
                    }
                    write_bytes(2, &rewritten, &mut event);
                }
                _ => return Err(Refused::Undecodable),
            }
        }
        let length = u32::try_from(event.len()).map_err(|_| Refused::OverBound)?;
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(&event);
        self.accepted += buffer.len() as u64;
        Ok(())
    }

    fn envelope(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
        let unknown = read_envelope(bytes).map_err(|_| Refused::Undecodable)?;
        let is_plain = unknown.content_encoding.is_empty()
            && matches!(unknown.content_type, b"" | b"application/vnd.kubernetes.protobuf");
        let schema = schema(self.sensitive, &unknown.kind).filter(|_| is_plain);
        let schema = schema.ok_or(Refused::Undecodable)?;
        let mut out = MAGIC.to_vec();
        for field in fields(&bytes[MAGIC.len()..]) {
            let field = field?;
            match (field.number, field.value) {
                (2, Value::Bytes(raw)) => {
                    let mut path = String::new();
                    write_bytes(2, &self.message(schema, raw, &mut path)?, &mut out);
                }
                (1 | 3 | 4, _) => out.extend_from_slice(field.encoded),
                _ => return Err(Refused::Undecodable),
            }
        }
        Ok(out)
    }

    /// Rewrites a message. The depth is that of the schemas, which do not recur.
    fn message(
        &mut self,
        schema: &'static Schema,
        bytes: &[u8],
        path: &mut String,
    ) -> Result<Vec<u8>, Refused> {
        let mut out = Vec::with_capacity(bytes.len());
        let depth = path.len();
        for field in fields(bytes) {
            let field = field?;
            let Value::Bytes(value) = field.value else {
                out.extend_from_slice(field.encoded);
                continue;
            };
            let known = schema.0.iter().find(|(number, ..)| *number == field.number);
            let (name, shape) =
                known.map_or(("?", &Shape::Remove), |(_, name, shape)| (name, shape));
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            match shape {
                Shape::Keep => out.extend_from_slice(field.encoded),
                Shape::ErrorText if !self.messages => out.extend_from_slice(field.encoded),
                Shape::Remove | Shape::ErrorText => {
                    let mark = self.remove(value, path, false);
                    write_bytes(field.number, mark.as_bytes(), &mut out);
                }
                Shape::Message(schema) => {
                    if name == "items" || name == "causes" {
                        path.push_str("[]");
                    }
                    write_bytes(field.number, &self.message(schema, value, path)?, &mut out);
                }
                Shape::RemoveValues | Shape::Annotations => {
                    // JSON shows `data` as base64: the same value gets the same digest.
                    let base64 = name == "data";
                    let all = matches!(shape, Shape::RemoveValues);
                    let entry = self.entry(value, path, all, base64)?;
                    write_bytes(field.number, &entry, &mut out);
                }
            }
            path.truncate(depth);
        }
        Ok(out)
    }

    /// One entry of a map: key 1, value 2.
    fn entry(
        &mut self,
        entry: &[u8],
        path: &mut String,
        all: bool,
        base64: bool,
    ) -> Result<Vec<u8>, Refused> {
        // The last key counts, so it is looked for first.
        let mut key = &[][..];
        for field in fields(entry) {
            if let (1, Value::Bytes(bytes)) = (field?.number, field?.value) {
                key = bytes;
            }
        }
        path.push('.');
        path.push_str(&String::from_utf8_lossy(key));
        let remove = all || is_copy(key);
        let mut out = Vec::with_capacity(entry.len());
        for field in fields(entry) {
            let field = field?;
            match field.value {
                Value::Bytes(value) if field.number != 1 && remove => {
                    let mark = self.remove(value, path, base64);
                    write_bytes(field.number, mark.as_bytes(), &mut out);
                }
                _ => out.extend_from_slice(field.encoded),
            }
        }
        Ok(out)
    }

    fn remove(&mut self, value: &[u8], path: &str, base64: bool) -> String {
        let mut hasher = self.key.hasher();
        if base64 {
            // Whole groups of three bytes encode to the same text in one piece or in many.
            for piece in value.chunks(3 << 10) {
                hasher.update(STANDARD.encode(piece).as_bytes());
            }
        } else {
            hasher.update(value);
        }
        self.tally.add(path.to_owned());
        RedactKey::mark(&hasher)
    }
}

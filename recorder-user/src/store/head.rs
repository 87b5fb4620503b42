//! The newest signed state of a store, kept outside of it: what tells that a store was rolled back.
//!
//! An older copy of a store is as well signed as the newest. What ends too early can be told only by somebody who
//! knows how far it came: this file in the keys directory, or a copy of it that is kept elsewhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    disk::{Disk, create_new},
    format::{ChainHash, Checkpoint, HASH_BYTES, Mark},
    queue::chain,
    scan::segment_path,
    signing::{self, Signature, SigningKey, Trust},
};
use crate::model::{SegmentId, Timestamp};

/// How far a store came, signed by its gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The state after a checkpoint or a seal.
    #[serde(flatten)]
    pub state: Checkpoint,
    /// The key's signature over the state, base64.
    signature: String,
}

/// A head could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadHeadError {
    /// The system could not read it.
    #[error("read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} is not the head of a store", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Where a store's head is kept: beside its keys, not in the store.
#[must_use]
pub fn head_file(keys: &Path) -> PathBuf {
    keys.join("head")
}

impl Head {
    pub(super) fn sign(key: &SigningKey, segment: SegmentId, mark: Mark, time: Timestamp) -> Self {
        let Mark { hash, offset: bytes, records } = mark;
        let state = Checkpoint { segment, time, records, bytes, hash, key: key.id() };
        let signature = key.sign(signing::HEAD, &statement(&state));
        Self { state, signature: BASE64_STANDARD.encode(signature.0) }
    }

    /// Reads a head's file.
    ///
    /// # Errors
    /// When it cannot be read or holds something else. The signature is not checked here.
    pub fn read(path: &Path) -> Result<Self, ReadHeadError> {
        let text = fs::read(path);
        let text = text.map_err(|source| ReadHeadError::Io { path: path.to_owned(), source })?;
        let head = serde_json::from_slice(&text);
        head.map_err(|source| ReadHeadError::Form { path: path.to_owned(), source })
    }

    /// Whether a key that is trusted signed it; else why it says nothing.
    pub(super) fn is_signed(&self, trust: &Trust) -> Result<(), String> {
        let key = self.state.key;
        let Some(public) = trust.key(key) else {
            return Err(format!("it is signed by key {key}, which is not trusted"));
        };
        let signature = BASE64_STANDARD.decode(&self.signature).ok();
        let signature = signature.and_then(|bytes| bytes.try_into().ok()).map(Signature);
        let is_good = signature.is_some_and(|signature| {
            public.verifies(signing::HEAD, &statement(&self.state), &signature)
        });
        if is_good { Ok(()) } else { Err(format!("its signature is not that of key {key}")) }
    }
}

fn statement(state: &Checkpoint) -> Vec<u8> {
    serde_json::to_vec(state).expect("plain data")
}

/// The file that the flusher keeps. It is written after what it speaks of became durable, and not flushed
/// itself: an older head is as true.
#[derive(Debug)]
pub(super) struct HeadFile {
    path: PathBuf,
}

impl HeadFile {
    pub(super) fn of(keys: &Path) -> Self {
        Self { path: head_file(keys) }
    }

    pub(super) fn keep(&self, head: &Head) {
        let new = self.path.with_extension("new");
        let kept = (|| {
            drop(fs::remove_file(&new));
            let file = create_new(&new)?;
            let mut text = serde_json::to_vec(head)?;
            text.push(b'\n');
            std::os::unix::fs::FileExt::write_all_at(&file, &text, 0)?;
            fs::rename(&new, &self.path)
        })();
        if let Err(error) = kept {
            tracing::warn!(error = %chain(&error), "the store's head was not noted beside its keys");
        }
    }

    /// At a start: a store that does not come to its head was rolled back. The head of what is lost is kept
    /// under another name, because this run will soon write its own.
    pub(super) fn compare(&self, disk: &dyn Disk, store: &Path) {
        let Ok(head) = Head::read(&self.path) else { return };
        let state = &head.state;
        let reached = (|| {
            let mut hash = [0; HASH_BYTES];
            let at = state.bytes.checked_sub(HASH_BYTES as u64)?;
            let file = disk.open(&segment_path(store, state.segment)).ok()?;
            file.read_exact_at(&mut hash, at).ok().map(|()| ChainHash(hash))
        })();
        if reached == Some(state.hash) {
            return;
        }
        tracing::error!(
            segment = %state.segment, bytes = state.bytes, time = %state.time,
            "the store ends before its head: it was replaced by an older copy, or written anew; see head.lost beside its keys"
        );
        let lost = self.path.with_extension("lost");
        if !lost.exists()
            && let Err(error) = fs::rename(&self.path, &lost)
        {
            tracing::warn!(error = %chain(&error), "the head of what is lost could not be kept");
        }
    }
}

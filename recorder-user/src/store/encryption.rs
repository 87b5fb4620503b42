//! Encryption at rest: AES-256-GCM (NIST SP 800-38D), if the operator asks for it.
//!
//! ```text
//! the operator's key (a file, or a key management service behind a command)
//!   └─ the store key, in KEYS/encryption.json
//!        ├─ a key per segment, in its header
//!        └─ a key per session, in KEYS/sessions/XX/SESSION.key
//! ```
//!
//! Each key is random, and kept wrapped by the one above it. Records of a session are encrypted with its key, all
//! others with that of their segment; the chain and its signatures are over what is stored, so that they are
//! checked without any key. Removing a session's key erases the session wherever its segments were copied to.

mod cipher;
mod sessions;
mod source;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::disk;
use crate::model::SegmentId;

pub(super) use cipher::{Cipher, KeyOf};
pub use sessions::{Erased, erase};
pub use source::KeySource;

/// The keys of an encrypted store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// A file could not be read or written.
    #[error("{step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it must.
    #[error("{} is not {what}: restore it from a backup", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// The operator's key can be read by others.
    #[error("{} can be read by others: chmod 0400 {0}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The command for wrapping keys failed.
    #[error("the command {command:?} did not {what}: {why}")]
    Command {
        /// The program.
        command: String,
        /// `wrap` or `unwrap`.
        what: &'static str,
        /// What went wrong.
        why: String,
    },
    /// A wrapped key is not of the key that should open it.
    #[error("the key is not the one that this store was encrypted with")]
    WrongKey,
    /// The system gave no randomness.
    #[error("the system gave no randomness for a key")]
    Random,
}

/// A key of 256 bits.
#[derive(Clone, Copy)]
pub(super) struct Key([u8; KEY_BYTES]);

pub(super) const KEY_BYTES: usize = 32;

impl Key {
    fn random() -> Result<Self, EncryptionError> {
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).map_err(|_| EncryptionError::Random)?;
        Ok(Self(key))
    }

    fn aead(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).expect("AES-256 keys have 32 bytes");
        LessSafeKey::new(key)
    }

    /// This key encrypted with `by`; `what` it is for is authenticated.
    fn wrapped(&self, by: &Self, what: &str) -> Result<Vec<u8>, EncryptionError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| EncryptionError::Random)?;
        let mut sealed = self.0.to_vec();
        let (nonce_of, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(what));
        let done = by.aead().seal_in_place_append_tag(nonce_of, aad, &mut sealed);
        done.map_err(|_| EncryptionError::Random)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// What [`Key::wrapped`] made.
    fn unwrap(wrapped: &[u8], by: &Self, what: &str) -> Result<Self, EncryptionError> {
        let (nonce, sealed) = wrapped.split_first_chunk().ok_or(EncryptionError::WrongKey)?;
        let mut sealed = sealed.to_vec();
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(what));
        let opened = by.aead().open_in_place(nonce, aad, &mut sealed);
        let key = opened.map_err(|_| EncryptionError::WrongKey)?;
        key.try_into().map(Self).map_err(|_| EncryptionError::WrongKey)
    }
}

/// What a segment's header says of its encryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentEncryption {
    /// `AES-256-GCM`.
    pub algorithm: String,
    /// The segment's key, wrapped by the store key, in base64.
    pub wrapped_key: String,
}

/// `KEYS/encryption.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    #[serde(flatten)]
    source: KeySource,
    /// The store key, wrapped by the operator's, in base64.
    wrapped_key: String,
}

/// The store key, and where the sessions' keys lie.
pub(super) struct Vault {
    keys: PathBuf,
    store_key: Key,
}

impl Vault {
    /// The vault of a store that is to be encrypted; made at the first time.
    pub(super) fn open_or_create(
        keys: &Path,
        source: &KeySource,
    ) -> Result<Arc<Self>, EncryptionError> {
        if let Some(vault) = Self::open(keys)? {
            return Ok(vault);
        }
        let store_key = Key::random()?;
        let wrapped_key = BASE64_STANDARD.encode(source.wrap(&store_key)?);
        let description = Description { source: source.clone(), wrapped_key };
        let json = serde_json::to_vec_pretty(&description).expect("plain data");
        let path = keys.join(DESCRIPTION);
        disk::make_directory(keys).map_err(failed("make", keys))?;
        disk::replace_file(&path, &json).map_err(failed("write", &path))?;
        Ok(Arc::new(Self { keys: keys.to_owned(), store_key }))
    }

    /// The vault of a store that may be encrypted; none if it never was, or the keys are not here.
    pub(super) fn open(keys: &Path) -> Result<Option<Arc<Self>>, EncryptionError> {
        let path = keys.join(DESCRIPTION);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &path)(source)),
        };
        let bad = || EncryptionError::Bad {
            path: path.clone(),
            what: "the description of a store's keys",
        };
        let description: Description = serde_json::from_slice(&json).map_err(|_| bad())?;
        let wrapped = BASE64_STANDARD.decode(&description.wrapped_key).map_err(|_| bad())?;
        let store_key = description.source.unwrap(&wrapped)?;
        Ok(Some(Arc::new(Self { keys: keys.to_owned(), store_key })))
    }

    /// A new segment's key.
    pub(super) fn begin(
        self: &Arc<Self>,
        segment: SegmentId,
    ) -> Result<(SegmentEncryption, Cipher), EncryptionError> {
        let key = Key::random()?;
        let wrapped_key = BASE64_STANDARD.encode(key.wrapped(&self.store_key, SEGMENT)?);
        let encryption = SegmentEncryption { algorithm: ALGORITHM.into(), wrapped_key };
        Ok((encryption, Cipher::new(Arc::clone(self), segment, key)))
    }

    /// The key of a segment that was written before.
    pub(super) fn resume(
        self: &Arc<Self>,
        segment: SegmentId,
        encryption: &SegmentEncryption,
    ) -> Result<Cipher, EncryptionError> {
        let wrapped = BASE64_STANDARD.decode(&encryption.wrapped_key);
        let wrapped = wrapped.map_err(|_| EncryptionError::WrongKey)?;
        let key = Key::unwrap(&wrapped, &self.store_key, SEGMENT)?;
        Ok(Cipher::new(Arc::clone(self), segment, key))
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EncryptionError {
    let path = path.to_owned();
    move |source| EncryptionError::Io { step, path, source }
}

const DESCRIPTION: &str = "encryption.json";
const ALGORITHM: &str = "AES-256-GCM";
/// What a wrapped key is for.
const STORE: &str = "decklog store key 2";
const SEGMENT: &str = "decklog segment key 2";
const SESSION: &str = "decklog session key 2";

#[cfg(test)]
mod tests;

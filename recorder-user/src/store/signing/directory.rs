//! The signing keys' files.
//!
//! ```text
//! KEYS/signing/ID.key     the private key, PKCS#8 (RFC 5958), mode 0400
//! KEYS/signing/ID.pub     the public key, PEM
//! KEYS/signing/ID.signed  the endorsements that lead to it, none for the first
//! KEYS/signing/current    the id of the one that signs now
//! ```
//!
//! KEYS is [`keys_directory`] unless the operator says otherwise.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{Endorsement, KeyId, PublicKey, SigningKey, Trust};
use crate::store::disk;

/// The signing keys could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
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
    /// The private key can be read by others.
    #[error("{} can be read by others: chmod 0400 {0}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// A file does not hold what it must.
    #[error("{} is not {what}: restore it from a backup", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// The system gave no randomness.
    #[error("the system gave no randomness for a key")]
    Random,
}

/// A signing key, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyInfo {
    /// Its id.
    pub key: KeyId,
    /// Whether it signs now.
    pub current: bool,
    /// The key that endorsed it; none for the first.
    pub endorsed_by: Option<KeyId>,
    /// The file of its public half.
    pub public_key_file: PathBuf,
}

/// Where a store's keys lie: beside it, never in it.
#[must_use]
pub fn keys_directory(store: &Path) -> PathBuf {
    let mut directory = store.as_os_str().to_owned();
    directory.push(".keys");
    PathBuf::from(directory)
}

fn signing_directory(keys: &Path) -> PathBuf {
    keys.join("signing")
}

/// The key that signs now; the first one is made if there is none.
///
/// # Errors
/// When it cannot be read or made, is damaged, or can be read by others.
pub fn load_or_create(keys: &Path) -> Result<Arc<SigningKey>, SigningKeyError> {
    let directory = signing_directory(keys);
    if let Some(id) = current(&directory)? {
        return load(&directory, id).map(Arc::new);
    }
    let pair = Ed25519KeyPair::generate().map_err(|_| SigningKeyError::Random)?;
    let key = SigningKey::of(pair, Vec::new()).ok_or(SigningKeyError::Random)?;
    keep(&directory, &key)?;
    Ok(Arc::new(key))
}

/// Makes a new key that the current one endorses. A gateway that runs takes it up with its next segment.
///
/// # Errors
/// When there is no key yet, or the new one cannot be kept.
pub fn rotate(keys: &Path) -> Result<Arc<SigningKey>, SigningKeyError> {
    let directory = signing_directory(keys);
    let old = load_or_create(keys)?;
    let pair = Ed25519KeyPair::generate().map_err(|_| SigningKeyError::Random)?;
    let key = old.successor(pair).ok_or(SigningKeyError::Random)?;
    keep(&directory, &key)?;
    Ok(Arc::new(key))
}

/// All keys, sorted by id.
///
/// # Errors
/// When the directory cannot be read. One that does not exist has none.
pub fn list(keys: &Path) -> Result<Vec<KeyInfo>, SigningKeyError> {
    let directory = signing_directory(keys);
    let now = current(&directory)?;
    let mut keys = Vec::new();
    for (key, _) in public_keys(&directory)? {
        let endorsements = endorsements(&directory, key)?;
        keys.push(KeyInfo {
            key,
            current: Some(key) == now,
            endorsed_by: endorsements.last().map(|last| last.by),
            public_key_file: directory.join(format!("{key}.pub")),
        });
    }
    Ok(keys)
}

/// The public keys of a keys directory; none where a store was copied without it.
///
/// # Errors
/// When a file of them cannot be read.
pub fn trusted(keys: &Path) -> Result<Trust, SigningKeyError> {
    public_keys_in(&signing_directory(keys)).map(Trust::new)
}

/// All public keys (`*.pub`) in a directory; none where there is no such directory.
///
/// # Errors
/// When a file of them cannot be read.
pub fn public_keys_in(directory: &Path) -> Result<Vec<PublicKey>, SigningKeyError> {
    Ok(public_keys(directory)?.into_iter().map(|(_, key)| key).collect())
}

fn public_keys(directory: &Path) -> Result<Vec<(KeyId, PublicKey)>, SigningKeyError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("read", directory)(source)),
    };
    let mut keys = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("read", directory))?.path();
        if path.extension().is_some_and(|extension| extension == "pub") {
            let key = read_public_key(&path)?;
            keys.push((key.id(), key));
        }
    }
    keys.sort_unstable_by_key(|(id, _)| *id);
    Ok(keys)
}

/// Reads a public key's file.
///
/// # Errors
/// When it cannot be read or holds something else.
pub fn read_public_key(path: &Path) -> Result<PublicKey, SigningKeyError> {
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    PublicKey::from_pem(&text).map_err(|_| bad(path, "an Ed25519 public key in PEM"))
}

fn current(directory: &Path) -> Result<Option<KeyId>, SigningKeyError> {
    let path = directory.join(CURRENT);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(bad(&path, "a key's id")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", &path)(source)),
    }
}

fn load(directory: &Path, id: KeyId) -> Result<SigningKey, SigningKeyError> {
    let path = directory.join(format!("{id}.key"));
    let pkcs8 = fs::read(&path).map_err(failed("read", &path))?;
    let mode = fs::metadata(&path).map_err(failed("read", &path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(SigningKeyError::Open { path });
    }
    let pair = Ed25519KeyPair::from_pkcs8(&pkcs8);
    let pair = pair.map_err(|_| bad(&path, "an Ed25519 private key (PKCS#8)"))?;
    let key = SigningKey::of(pair, endorsements(directory, id)?);
    key.filter(|key| key.id() == id).ok_or_else(|| bad(&path, "the key that its name says"))
}

fn endorsements(directory: &Path, id: KeyId) -> Result<Vec<Endorsement>, SigningKeyError> {
    let path = directory.join(format!("{id}.signed"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("read", &path)(source)),
    };
    let read = |line| Endorsement::read(&BASE64_STANDARD.decode(line).ok()?);
    let endorsements = text.lines().map(read).collect::<Option<_>>();
    endorsements.ok_or_else(|| bad(&path, "a list of endorsements"))
}

/// The private key first, the word that it is current last: a crash in between leaves the old one in force.
fn keep(directory: &Path, key: &SigningKey) -> Result<(), SigningKeyError> {
    disk::make_directory(directory).map_err(failed("make", directory))?;
    let id = key.id();
    let path = directory.join(format!("{id}.key"));
    let pkcs8 = key.pair.to_pkcs8().map_err(|_| SigningKeyError::Random)?;
    write_private(&path, pkcs8.as_ref()).map_err(failed("write", &path))?;
    let lines: String = key
        .endorsements
        .iter()
        .map(|endorsement| BASE64_STANDARD.encode(endorsement.payload()) + "\n")
        .collect();
    let texts = [("signed", lines), ("pub", key.public.to_pem())];
    for (extension, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
        let path = directory.join(format!("{id}.{extension}"));
        disk::replace_file(&path, text.as_bytes()).map_err(failed("write", &path))?;
    }
    let path = directory.join(CURRENT);
    disk::replace_file(&path, format!("{id}\n").as_bytes()).map_err(failed("write", &path))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o400).open(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SigningKeyError {
    let path = path.to_owned();
    move |source| SigningKeyError::Io { step, path, source }
}

fn bad(path: &Path, what: &'static str) -> SigningKeyError {
    SigningKeyError::Bad { path: path.to_owned(), what }
}

const CURRENT: &str = "current";

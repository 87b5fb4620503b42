//! The keys that sign a store: Ed25519 (RFC 8032), made at the first start, exchanged by endorsement.
//!
//! They lie beside the store in `STORE.keys/signing`, so that a copy of the store holds no private key. A key's
//! id is the beginning of the hash of its public key. When a key is exchanged the old one signs the new one, and
//! every segment begins with these endorsements: whoever trusts an old public key can check what newer ones
//! signed, offline. Private keys never leave this module.

mod directory;

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use directory::{
    KeyInfo, SigningKeyError, keys_directory, list, load_or_create, public_keys_in,
    read_public_key, rotate, trusted,
};

/// What each kind of statement begins with, so that none can be passed off as another.
pub(super) const CHECKPOINT: &str = "decklog checkpoint 2\n";
pub(super) const SEAL: &str = "decklog seal 2\n";
pub(super) const TOMBSTONE: &str = "decklog tombstone 2\n";
/// The newest signed state, kept outside the store.
pub(super) const HEAD: &str = "decklog head 2\n";
const ENDORSEMENT: &str = "decklog key 2\n";

pub(super) const SIGNATURE_BYTES: usize = 64;
const PUBLIC_KEY_BYTES: usize = 32;

/// The first eight bytes of the BLAKE3 hash of a public key; 16 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a key's id or a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// Not 16 hexadecimal digits.
    #[error("a key's id is 16 hexadecimal digits")]
    Id,
    /// Not an Ed25519 public key.
    #[error("not an Ed25519 public key in PEM (-----BEGIN PUBLIC KEY-----)")]
    PublicKey,
}

impl FromStr for KeyId {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        number.map(|number| Self(number.to_be_bytes())).ok_or(ParseKeyError::Id)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature(pub(super) [u8; SIGNATURE_BYTES]);

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let hash = blake3::hash(&self.0);
        KeyId(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// As `openssl pkey -pubin` reads it (RFC 8410).
    #[must_use]
    pub fn to_pem(&self) -> String {
        let der = [&SPKI_PREFIX[..], &self.0].concat();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            BASE64_STANDARD.encode(der)
        )
    }

    /// Reads what [`PublicKey::to_pem`] writes.
    ///
    /// # Errors
    /// When the text holds anything else.
    pub fn from_pem(text: &str) -> Result<Self, ParseKeyError> {
        let base64 = text
            .trim()
            .strip_prefix("-----BEGIN PUBLIC KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"));
        let der = base64.and_then(|base64| BASE64_STANDARD.decode(base64.trim()).ok());
        let key = der.as_deref().and_then(|der| der.strip_prefix(&SPKI_PREFIX));
        key.and_then(|key| key.try_into().ok()).map(Self).ok_or(ParseKeyError::PublicKey)
    }

    pub(super) fn verifies(&self, domain: &str, statement: &[u8], signature: &Signature) -> bool {
        let message = [domain.as_bytes(), statement].concat();
        UnparsedPublicKey::new(&ED25519, self.0).verify(&message, &signature.0).is_ok()
    }
}

/// `SubjectPublicKeyInfo` of an Ed25519 key up to the key itself (RFC 8410).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An older key's word that another one follows it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Endorsement {
    pub(super) public: PublicKey,
    pub(super) by: KeyId,
    signature: Signature,
}

/// What an older key signs.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndorsementStatement {
    public_key: String,
    by: KeyId,
}

impl Endorsement {
    fn statement(public: &PublicKey, by: KeyId) -> Vec<u8> {
        let public_key = BASE64_STANDARD.encode(public.0);
        serde_json::to_vec(&EndorsementStatement { public_key, by }).expect("plain data")
    }

    /// Signature and statement: what a segment holds.
    pub(super) fn payload(&self) -> Vec<u8> {
        [&self.signature.0[..], &Self::statement(&self.public, self.by)].concat()
    }

    /// Reads a payload. The signature is not checked here.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (signature, json) = payload.split_first_chunk()?;
        let statement: EndorsementStatement = serde_json::from_slice(json).ok()?;
        let public = BASE64_STANDARD.decode(statement.public_key).ok()?.try_into().ok()?;
        let (public, signature) = (PublicKey(public), Signature(*signature));
        // Only what we would write is signed.
        let same = Self::statement(&public, statement.by) == json;
        same.then_some(Self { public, by: statement.by, signature })
    }
}

/// A key that signs, and how it follows from those before it.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
    endorsements: Vec<Endorsement>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key that nothing has signed yet. None when the system gives no randomness.
    #[must_use]
    pub fn generate() -> Option<Arc<Self>> {
        Ed25519KeyPair::generate().ok().and_then(|pair| Self::of(pair, Vec::new())).map(Arc::new)
    }

    fn of(pair: Ed25519KeyPair, endorsements: Vec<Endorsement>) -> Option<Self> {
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public, endorsements })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    /// What others check its signatures with.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn endorsements(&self) -> &[Endorsement] {
        &self.endorsements
    }

    pub(super) fn sign(&self, domain: &str, statement: &[u8]) -> Signature {
        let message = [domain.as_bytes(), statement].concat();
        let signature = self.pair.sign(&message);
        Signature(signature.as_ref().try_into().expect("Ed25519 signatures have 64 bytes"))
    }

    /// The key that follows this one.
    fn successor(&self, pair: Ed25519KeyPair) -> Option<Self> {
        let mut next = Self::of(pair, self.endorsements.clone())?;
        let statement = Endorsement::statement(&next.public, self.id());
        let signature = self.sign(ENDORSEMENT, &statement);
        next.endorsements.push(Endorsement { public: next.public, by: self.id(), signature });
        Some(next)
    }
}

/// The public keys whose signatures count: those that were given, and what they endorse.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
}

impl Trust {
    /// Trusts these.
    #[must_use]
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self { keys }
    }

    /// Whether there is no key at all: signatures can then not be checked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of this id, if it is trusted.
    pub(super) fn key(&self, id: KeyId) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id() == id)
    }

    /// Trusts another key if one that is trusted endorses it. False when the signature is not that key's.
    pub(super) fn endorse(&mut self, endorsement: &Endorsement) -> bool {
        let Some(by) = self.key(endorsement.by).copied() else { return true };
        let statement = Endorsement::statement(&endorsement.public, endorsement.by);
        if !by.verifies(ENDORSEMENT, &statement, &endorsement.signature) {
            return false;
        }
        if self.key(endorsement.public.id()).is_none() {
            self.keys.push(endorsement.public);
        }
        true
    }
}

#[cfg(test)]
impl SigningKey {
    pub(super) fn from_seed(seed: [u8; 32]) -> Arc<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any seed is a key");
        Arc::new(Self::of(pair, Vec::new()).expect("32 bytes"))
    }

    pub(super) fn succeeded_by(&self, seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any seed is a key");
        self.successor(pair).expect("32 bytes")
    }
}

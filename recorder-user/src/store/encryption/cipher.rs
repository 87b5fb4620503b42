//! Encrypts and decrypts the payloads of one segment.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;

use super::{EncryptionError, Key, Vault};
use crate::{
    model::{Kind, SegmentId, SessionId},
    store::{
        format::{DecodePayloadError, flag},
        queue::lock,
    },
};

/// Which key a payload is encrypted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum KeyOf {
    /// The segment's.
    Segment,
    /// The session's.
    Session(SessionId),
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").field("segment", &self.segment).finish_non_exhaustive()
    }
}

/// The keys of one segment. A payload's nonce is the offset at which its record begins, which is never used
/// again with the same key: the keys of sessions are derived anew for each segment.
pub(in crate::store) struct Cipher {
    vault: Arc<Vault>,
    segment: SegmentId,
    key: LessSafeKey,
    sessions: Mutex<HashMap<SessionId, Arc<LessSafeKey>>>,
}

impl Cipher {
    pub(super) fn new(vault: Arc<Vault>, segment: SegmentId, key: Key) -> Self {
        Self { vault, segment, key: key.aead(), sessions: Mutex::default() }
    }

    /// Encrypts the payload that is all of `out` from `payload` on; gives the flags that say so.
    pub(in crate::store) fn encrypt(
        &self,
        of: KeyOf,
        (offset, kind, flags): (u64, Kind, u16),
        payload: usize,
        out: &mut Vec<u8>,
    ) -> Result<u16, EncryptionError> {
        let session_key;
        let (key, flags) = match of {
            KeyOf::Segment => (&self.key, flags | flag::ENCRYPTED),
            KeyOf::Session(session) => {
                session_key = match self.cached(session) {
                    Some(key) => key,
                    None => self.keep(session, &self.vault.session_key_or_new(session)?),
                };
                (&*session_key, flags | flag::ENCRYPTED | flag::SESSION)
            }
        };
        let tag =
            key.seal_in_place_separate_tag(nonce(offset), aad(kind, flags), &mut out[payload..]);
        out.extend_from_slice(tag.map_err(|_| EncryptionError::Random)?.as_ref());
        if let KeyOf::Session(session) = of {
            out.splice(payload..payload, *session.as_bytes());
        }
        Ok(flags)
    }

    /// The payload as it was before [`Cipher::encrypt`].
    pub(in crate::store) fn decrypt(
        &self,
        (offset, kind, flags): (u64, Kind, u16),
        payload: &[u8],
    ) -> Result<Bytes, DecodePayloadError> {
        let session_key;
        let (key, sealed, session) = if flags & flag::SESSION == 0 {
            (&self.key, payload, None)
        } else {
            let (id, sealed) = payload.split_first_chunk().ok_or(DecodePayloadError::Decryption)?;
            let session = SessionId::from_bytes(*id);
            session_key = self.session(session)?;
            (&*session_key, sealed, Some(session))
        };
        let mut sealed = sealed.to_vec();
        let opened = key.open_in_place(nonce(offset), aad(kind, flags), &mut sealed);
        let Ok(opened) = opened else {
            // A session that was erased and then went on has a new key.
            let erased = session.is_some_and(|session| self.vault.is_erased(session));
            return Err(if erased {
                DecodePayloadError::Erased
            } else {
                DecodePayloadError::Decryption
            });
        };
        let bytes = opened.len();
        sealed.truncate(bytes);
        Ok(sealed.into())
    }

    fn session(&self, session: SessionId) -> Result<Arc<LessSafeKey>, DecodePayloadError> {
        if let Some(key) = self.cached(session) {
            return Ok(key);
        }
        match self.vault.session_key(session) {
            Ok(Some(key)) => Ok(self.keep(session, &key)),
            Ok(None) if self.vault.is_erased(session) => Err(DecodePayloadError::Erased),
            _ => Err(DecodePayloadError::Decryption),
        }
    }

    fn cached(&self, session: SessionId) -> Option<Arc<LessSafeKey>> {
        lock(&self.sessions).get(&session).map(Arc::clone)
    }

    fn keep(&self, session: SessionId, key: &Key) -> Arc<LessSafeKey> {
        let context = "decklog 2 key of a session in a segment";
        let material = [&key.0[..], self.segment.as_bytes()].concat();
        let derived = blake3::derive_key(context, &material);
        let key = UnboundKey::new(&AES_256_GCM, &derived).expect("AES-256 keys have 32 bytes");
        let key = Arc::new(LessSafeKey::new(key));
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= SESSIONS_MAX {
            sessions.clear();
        }
        sessions.insert(session, Arc::clone(&key));
        key
    }
}

fn nonce(offset: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&offset.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Kind and flags are authenticated with the payload.
fn aad(kind: Kind, flags: u16) -> Aad<[u8; 4]> {
    let ([a, b], [c, d]) = (kind.0.to_le_bytes(), flags.to_le_bytes());
    Aad::from([a, b, c, d])
}

/// So many keys of sessions are held at a time; then they are read again.
const SESSIONS_MAX: usize = 1024;

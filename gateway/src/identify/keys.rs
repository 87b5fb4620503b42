//! An issuer's published keys, as one immutable set.

use jsonwebtoken::{Algorithm, DecodingKey};
use openidconnect::{
    JsonWebKey as _, JsonWebKeyAlgorithm,
    core::{CoreJsonWebKey, CoreJsonWebKeySet, CoreJsonWebKeyUse},
};
use recorder_user::model::Timestamp;
use serde_json::Value;

use super::token::Token;

/// Which key it is: a hash of its name, its algorithm and its public numbers.
pub(super) type KeyHash = [u8; 32];

/// The keys of one issuer, from one fetch.
pub(super) struct KeySet {
    /// Changes whenever the keys do, and only then.
    pub(super) generation: u64,
    /// When they were fetched.
    pub(super) fetched: Timestamp,
    keys: Vec<Key>,
}

/// One key that verifies signatures.
struct Key {
    id: Option<String>,
    /// The algorithms that it may be used with.
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    hash: KeyHash,
}

/// What the set says of a token's signature.
pub(super) enum Search {
    /// This key made it.
    Verified(KeyHash),
    /// The named key did not make it.
    BadSignature,
    /// There is no such key.
    NoKey,
}

impl KeySet {
    /// The usable keys of a published set. Encryption keys, symmetric keys and what cannot be
    /// understood are left out; so is what is over the bound.
    pub(super) fn new(published: &CoreJsonWebKeySet, fetched: Timestamp) -> Self {
        let keys = published.keys().iter().filter_map(Key::new).take(KEYS_MAX).collect();
        Self { generation: 0, fetched, keys }
    }

    /// Follows another set: a new generation if the keys differ.
    pub(super) fn after(mut self, last: Option<&Self>) -> Self {
        self.generation = match last {
            Some(last) if last.same_keys(&self) => last.generation,
            Some(last) => last.generation + 1,
            None => 1,
        };
        self
    }

    fn same_keys(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len()
            && self.keys.iter().zip(&other.keys).all(|(a, b)| a.hash == b.hash)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn contains(&self, key: &KeyHash) -> bool {
        self.keys.iter().any(|own| own.hash == *key)
    }

    /// Looks for the key that made the token's signature: by `kid`, else among all of that
    /// algorithm.
    pub(super) fn find(&self, token: &Token<'_>) -> Search {
        let named = |key: &&Key| token.key_id.is_none() || key.id == token.key_id;
        let mut seen = false;
        let fitting = self.keys.iter().filter(named);
        for key in fitting.filter(|key| key.algorithms.contains(&token.algorithm)).take(TRIES_MAX) {
            seen = true;
            let verified = jsonwebtoken::crypto::verify(
                token.signature,
                token.signed.as_bytes(),
                &key.decoding,
                token.algorithm,
            );
            if verified.unwrap_or(false) {
                return Search::Verified(key.hash);
            }
        }
        // Without a `kid` the issuer may have a newer key, so that the failure is one of the set.
        if seen && token.key_id.is_some() { Search::BadSignature } else { Search::NoKey }
    }
}

impl Key {
    fn new(published: &CoreJsonWebKey) -> Option<Self> {
        if published.key_use().is_some_and(|usage| *usage != CoreJsonWebKeyUse::Signature) {
            return None;
        }
        // The library keeps a key's numbers to itself, but writes them: as JSON.
        let json = serde_json::to_value(published).ok()?;
        let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default();
        let (possible, decoding): (&[Algorithm], _) = match (text("kty"), text("crv")) {
            ("RSA", _) => (&RSA, DecodingKey::from_rsa_components(text("n"), text("e"))),
            ("EC", "P-256") => {
                (&[Algorithm::ES256], DecodingKey::from_ec_components(text("x"), text("y")))
            }
            ("EC", "P-384") => {
                (&[Algorithm::ES384], DecodingKey::from_ec_components(text("x"), text("y")))
            }
            ("OKP", "Ed25519") => (&[Algorithm::EdDSA], DecodingKey::from_ed_components(text("x"))),
            _ => return None,
        };
        let algorithms = match published.signing_alg() {
            JsonWebKeyAlgorithm::Unspecified => possible.to_vec(),
            JsonWebKeyAlgorithm::Unsupported => return None,
            JsonWebKeyAlgorithm::Algorithm(_) => {
                let only = text("alg").parse::<Algorithm>().ok()?;
                possible.contains(&only).then(|| vec![only])?
            }
        };
        let id = published.key_id().map(|id| id.as_str().to_owned());
        let mut hasher = blake3::Hasher::new();
        for name in ["kid", "kty", "alg", "crv", "n", "e", "x", "y"] {
            hasher.update(text(name).as_bytes()).update(b"\0");
        }
        Some(Self { id, algorithms, decoding: decoding.ok()?, hash: *hasher.finalize().as_bytes() })
    }
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// Keys after these are not used: no issuer publishes that many.
const KEYS_MAX: usize = 64;
/// A token without `kid` costs at most this many verifications.
const TRIES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(json: &str) -> KeySet {
        KeySet::new(&serde_json::from_str(json).expect("a key set"), Timestamp::EPOCH)
    }

    const RSA_KEY: &str = r#""kty":"RSA","n":"sXchYmFzZTY0dXJs","e":"AQAB""#;

    #[test]
    fn only_keys_that_verify_signatures_are_kept() {
        assert_eq!(set(&format!(r#"{{"keys":[{{{RSA_KEY},"kid":"a","use":"sig"}}]}}"#)).len(), 1);
        for unusable in [
            format!(r#"{{{RSA_KEY},"use":"enc"}}"#),
            format!(r#"{{{RSA_KEY},"alg":"RSA-OAEP"}}"#),
            format!(r#"{{{RSA_KEY},"alg":"ES256"}}"#),
            r#"{"kty":"oct","k":"c2VjcmV0"}"#.into(),
            r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#.into(),
            r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#.into(),
        ] {
            assert_eq!(set(&format!(r#"{{"keys":[{unusable}]}}"#)).len(), 0, "{unusable}");
        }
        let many = vec![format!("{{{RSA_KEY}}}"); KEYS_MAX + 9].join(",");
        assert_eq!(set(&format!(r#"{{"keys":[{many}]}}"#)).len(), KEYS_MAX);
    }

    #[test]
    fn the_generation_changes_with_the_keys_only() {
        let one = format!(r#"{{"keys":[{{{RSA_KEY},"kid":"a"}}]}}"#);
        let other = format!(r#"{{"keys":[{{{RSA_KEY},"kid":"b"}}]}}"#);
        let first = set(&one).after(None);
        let again = set(&one).after(Some(&first));
        assert_eq!(again.generation, first.generation);
        assert_ne!(set(&other).after(Some(&again)).generation, again.generation);
    }
}

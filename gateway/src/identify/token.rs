//! The text of a token, taken apart without believing any of it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::IdentifyError;

/// A longer token is refused before any of it is decoded. Real ones are 1 to 4 KiB.
pub(super) const TOKEN_BYTES_MAX: usize = 8 << 10;

/// A token in the compact form, its JSON decoded, its signature not yet verified.
pub(super) struct Token<'a> {
    /// Header and claims as they were signed.
    pub(super) signed: &'a str,
    /// The signature, in base64url.
    pub(super) signature: &'a str,
    /// The header's `alg`: asymmetric.
    pub(super) algorithm: Algorithm,
    /// The header's `kid`.
    pub(super) key_id: Option<String>,
    /// The claims.
    pub(super) claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, IdentifyError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(IdentifyError::TooLarge);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(NOT_THREE)?;
        let (header, claims) = signed.split_once('.').ok_or(NOT_THREE)?;
        if claims.contains('.') {
            return Err(NOT_THREE);
        }
        let header = object(header, "its header is not a JSON object in base64url")?;
        let claims = object(claims, "its claims are not a JSON object in base64url")?;
        let (algorithm, key_id) = check_header(&header)?;
        Ok(Self { signed, signature, algorithm, key_id, claims })
    }

    /// The `iss` claim; empty, which no issuer is, when it is missing or not a string.
    pub(super) fn issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }
}

/// Only `alg` and `kid` are used. Keys in the header (`jwk`, `jku`, `x5u`, `x5c`) are never looked
/// at: the issuer's published keys decide. What the header calls critical must be understood, and
/// nothing is (RFC 7515, section 4.1.11).
fn check_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), IdentifyError> {
    let malformed = |what| Err(IdentifyError::Malformed(what));
    if header.contains_key("crit") {
        return malformed("its header names critical extensions");
    }
    // `b64: false` changes what is signed (RFC 7797); `enc` and `zip` belong to encrypted tokens.
    if ["b64", "enc", "zip"].iter().any(|name| header.contains_key(*name)) {
        return malformed("its header asks for what is not supported");
    }
    match header.get("typ").map(Value::as_str) {
        None => {}
        Some(Some(kind)) if is_token_type(kind) => {}
        Some(_) => return malformed("its header's `typ` is none of JWT, at+jwt"),
    }
    let algorithm = header
        .get("alg")
        .and_then(Value::as_str)
        .and_then(|name| name.parse::<Algorithm>().ok())
        .filter(|algorithm| algorithm.family() != jsonwebtoken::AlgorithmFamily::Hmac)
        .ok_or(IdentifyError::Algorithm)?;
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= KEY_ID_BYTES_MAX => Some(id.clone()),
        Some(_) => return malformed("its header's `kid` is not a short string"),
    };
    Ok((algorithm, key_id))
}

fn is_token_type(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "jose" | "at+jwt")
}

fn object(part: &str, problem: &'static str) -> Result<Map<String, Value>, IdentifyError> {
    let malformed = IdentifyError::Malformed(problem);
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed.clone())?;
    match serde_json::from_slice::<Strict>(&bytes) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(_) => Err(malformed),
        Err(error) if error.to_string().starts_with(TWICE) => {
            Err(IdentifyError::Malformed("it names a key twice"))
        }
        Err(_) => Err(malformed),
    }
}

/// Any JSON in which no object names a key twice: two readers could take either, so neither is
/// taken. Depth is bounded by `serde_json` (128), size by the token's.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> DeserializeSeed<'de> for StrictVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Self)?;
            if map.insert(key, value).is_some() {
                return Err(serde::de::Error::custom(TWICE));
            }
        }
        Ok(Value::Object(map))
    }
}

const TWICE: &str = "a key is named twice";
const NOT_THREE: IdentifyError = IdentifyError::Malformed("it does not have three parts");
/// A longer `kid` is refused: it is compared with every key.
const KEY_ID_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    fn refused(text: &str) -> IdentifyError {
        Token::parse(text).err().unwrap_or_else(|| panic!("accepted {text}"))
    }

    #[test]
    fn parts() {
        for text in ["", "a", "a.b", "..", "a.b.c.d", "a.b.c.d.e"] {
            assert!(matches!(refused(text), IdentifyError::Malformed(_)), "{text}");
        }
        assert_eq!(refused(&"a".repeat(TOKEN_BYTES_MAX + 1)), IdentifyError::TooLarge);
        let padded = token(r#"{"alg":"RS256"}"#, "{}").replace(".c2ln", "=.c2ln");
        assert!(matches!(refused(&padded), IdentifyError::Malformed(_)));
    }

    #[test]
    fn headers() {
        let good = [
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"ES256","kid":"a","typ":"JWT"}"#,
            r#"{"alg":"RS256","typ":"at+jwt"}"#,
            r#"{"alg":"RS256","typ":"application/at+JWT"}"#,
            r#"{"alg":"RS256","jku":"https://evil.example","jwk":{"kty":"oct","k":"AA"},"x5u":"https://e.example"}"#,
        ];
        for header in good {
            assert!(Token::parse(&token(header, "{}")).is_ok(), "{header}");
        }
        let wrong_algorithm = [
            r#"{}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"rs256"}"#,
            r#"{"alg":["RS256"]}"#,
        ];
        for header in wrong_algorithm {
            assert_eq!(refused(&token(header, "{}")), IdentifyError::Algorithm, "{header}");
        }
        let malformed = [
            r#"[]"#,
            r#"{"alg":"RS256","crit":["exp"]}"#,
            r#"{"alg":"RS256","crit":[]}"#,
            r#"{"alg":"RS256","b64":false}"#,
            r#"{"alg":"RS256","typ":"JWE"}"#,
            r#"{"alg":"RS256","typ":5}"#,
            r#"{"alg":"RS256","kid":5}"#,
            r#"{"alg":"RS256","alg":"RS256"}"#,
        ];
        for header in malformed {
            assert!(
                matches!(refused(&token(header, "{}")), IdentifyError::Malformed(_)),
                "{header}"
            );
        }
    }

    #[test]
    fn a_key_named_twice_is_refused_at_any_depth() {
        let header = r#"{"alg":"RS256"}"#;
        for claims in [
            r#"{"sub":"a","sub":"a"}"#,
            r#"{"sub":"a","s\u0075b":"b"}"#,
            r#"{"x":[{"y":1,"y":2}]}"#,
        ] {
            assert_eq!(
                refused(&token(header, claims)),
                IdentifyError::Malformed("it names a key twice"),
                "{claims}"
            );
        }
        let deep = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
        assert!(Token::parse(&token(header, &deep)).is_err());
    }
}

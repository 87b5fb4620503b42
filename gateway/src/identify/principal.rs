//! From verified claims to a principal, by the rules of Kubernetes and stricter ones on values.
//!
//! The claims are the issuer's word, but their values may be what a user typed into a profile, and
//! they end in headers that the API server obeys. So a value that is not plainly a name is refused,
//! never repaired.

use std::{collections::BTreeMap, sync::Arc};

use recorder_user::model::{Principal, Timestamp, TokenFacts};
use serde_json::{Map, Value};

use super::{IdentifyError, Identity, keys::KeyHash, token::Token};
use crate::config::{Issuer, PrefixedClaim};

type Claims = Map<String, Value>;

/// The groups for `Impersonate-Group` headers. None for a service account: the API server gives it
/// its fixed groups exactly when none are sent.
#[must_use]
pub fn impersonation_groups(principal: &Principal) -> &[String] {
    if principal.username.starts_with(SERVICE_ACCOUNT) { &[] } else { &principal.groups }
}

/// Who the claims of a token prove, once its signature was verified. Times are not judged here.
pub(super) fn identity(
    token: &Token<'_>,
    hash: &[u8; 32],
    key: KeyHash,
    rules: &Issuer,
    foreign_prefixes: &[String],
) -> Result<Identity, IdentifyError> {
    let claims = &token.claims;
    audience(claims, &rules.audiences)?;
    let expires = time(claims, "exp")?.ok_or_else(|| bad("exp", MISSING))?;
    let not_before = time(claims, "nbf")?;
    for rule in &rules.rules {
        if string(claims, &rule.claim)? != rule.value {
            return Err(bad(&rule.claim, "does not have the required value"));
        }
    }
    let subject = string(claims, "sub")?;
    check_value("sub", subject)?;
    let username = username(claims, rules, foreign_prefixes)?;
    let groups = match service_account(&rules.username.claim, &username)? {
        Some(fixed) => {
            if !groups(claims, rules)?.is_empty() {
                let claim = rules.groups.as_ref().map_or("groups", |groups| &groups.claim);
                return Err(bad(
                    claim,
                    "gives groups to a service account, whose groups are fixed",
                ));
            }
            fixed
        }
        None => groups(claims, rules)?,
    };
    let principal = Principal {
        issuer: rules.url.clone(),
        subject: subject.to_owned(),
        username,
        groups,
        uid: uid(claims, rules)?,
        extra: extra(claims, rules)?,
    };
    check_headers(&principal)?;
    Ok(Identity {
        principal: Arc::new(principal),
        token: TokenFacts {
            id: token_id(claims, hash),
            expires: Some(expires),
            issued: time(claims, "iat")?,
        },
        expires: expires.plus_micros(LEEWAY_MICROS),
        not_before: not_before.map(|time| time.plus_micros(-LEEWAY_MICROS)),
        key,
    })
}

fn bad(claim: &str, problem: &'static str) -> IdentifyError {
    IdentifyError::Claim { claim: claim.to_owned(), problem }
}

/// `aud` is a string or a list (RFC 7519, section 4.1.3); one of ours must be in it.
fn audience(claims: &Claims, accepted: &[String]) -> Result<(), IdentifyError> {
    let is_ours = |value: &Value| {
        value.as_str().is_some_and(|audience| accepted.iter().any(|own| own == audience))
    };
    let found = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().any(is_ours),
        Some(value) => is_ours(value),
        None => false,
    };
    if found { Ok(()) } else { Err(IdentifyError::Audience) }
}

/// A time in seconds since the epoch; JSON may write it with a fraction or an exponent.
fn time(claims: &Claims, name: &str) -> Result<Option<Timestamp>, IdentifyError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|s| (0.0..=SECONDS_MAX).contains(s));
    let seconds = seconds.ok_or_else(|| bad(name, "is not a time"))?;
    let micros = match value.as_i64() {
        Some(whole) => whole.saturating_mul(1_000_000),
        // The range was checked; what a double cannot hold of a fraction does not matter.
        None => (seconds * 1e6) as i64,
    };
    Ok(Some(Timestamp::from_micros(micros)))
}

fn string<'a>(claims: &'a Claims, name: &str) -> Result<&'a str, IdentifyError> {
    match claims.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(bad(name, "is not a string")),
        None => Err(bad(name, MISSING)),
    }
}

fn username(
    claims: &Claims,
    rules: &Issuer,
    foreign_prefixes: &[String],
) -> Result<String, IdentifyError> {
    let PrefixedClaim { claim, prefix } = &rules.username;
    let value = string(claims, claim)?;
    // As in Kubernetes: an issuer that says whether an address was verified is taken at its word.
    if claim == "email" && claims.get("email_verified").is_some_and(|v| *v != Value::Bool(true)) {
        return Err(bad("email_verified", "is not true"));
    }
    let name = named(claim, prefix, value, rules)?;
    if foreign_prefixes.iter().any(|foreign| name.starts_with(foreign.as_str())) {
        return Err(bad(claim, "begins with the prefix of another issuer"));
    }
    Ok(name)
}

/// The groups; a string is a list of one, as some issuers write it.
fn groups(claims: &Claims, rules: &Issuer) -> Result<Vec<String>, IdentifyError> {
    let Some(PrefixedClaim { claim, prefix }) = &rules.groups else { return Ok(Vec::new()) };
    if !claims.contains_key(claim) {
        let by_reference = claims.get("_claim_names").and_then(|names| names.get(claim));
        return match by_reference {
            // Without them a `forbid` on a group would not apply.
            Some(_) => Err(bad(claim, "is given by reference, which is not supported")),
            None => Ok(Vec::new()),
        };
    }
    let values = strings(claims, claim)?;
    if values.len() > GROUPS_MAX {
        return Err(bad(claim, "names too many groups"));
    }
    let mut groups: Vec<String> = Vec::with_capacity(values.len());
    for value in values {
        let group = named(claim, prefix, value, rules)?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(groups)
}

fn uid(claims: &Claims, rules: &Issuer) -> Result<Option<String>, IdentifyError> {
    let Some(claim) = &rules.uid else { return Ok(None) };
    let value = string(claims, claim)?;
    check_value(claim, value)?;
    Ok(Some(value.to_owned()))
}

fn extra(claims: &Claims, rules: &Issuer) -> Result<BTreeMap<String, Vec<String>>, IdentifyError> {
    let mut extra = BTreeMap::new();
    for mapping in &rules.extra {
        let values = strings(claims, &mapping.claim)?;
        if values.len() > GROUPS_MAX {
            return Err(bad(&mapping.claim, "has too many values"));
        }
        for value in &values {
            check_value(&mapping.claim, value)?;
        }
        if !values.is_empty() {
            extra.insert(mapping.key.clone(), values.into_iter().map(str::to_owned).collect());
        }
    }
    Ok(extra)
}

/// A claim that is a string or a list of strings; null is an empty list.
fn strings<'a>(claims: &'a Claims, name: &str) -> Result<Vec<&'a str>, IdentifyError> {
    let wrong = || bad(name, "is not a string or a list of strings");
    match claims.get(name) {
        None => Err(bad(name, MISSING)),
        Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(list)) => {
            list.iter().map(|item| item.as_str().ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// A name with its prefix, refused if it is one of Kubernetes' own that the issuer may not give.
fn named(claim: &str, prefix: &str, value: &str, rules: &Issuer) -> Result<String, IdentifyError> {
    check_value(claim, value)?;
    let name = format!("{prefix}{value}");
    let mut allowed = rules.allowed_system_prefixes.iter();
    if name.starts_with("system:") && !allowed.any(|allowed| name.starts_with(allowed.as_str())) {
        return Err(bad(claim, "begins with `system:`, which its issuer may not give"));
    }
    Ok(name)
}

fn check_value(claim: &str, value: &str) -> Result<(), IdentifyError> {
    if value.is_empty() {
        return Err(bad(claim, "is empty"));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(bad(claim, "is too long"));
    }
    if value.chars().any(char::is_control) {
        return Err(bad(claim, "holds a control character"));
    }
    if value.starts_with(char::is_whitespace) || value.ends_with(char::is_whitespace) {
        return Err(bad(claim, "begins or ends with white space"));
    }
    Ok(())
}

/// A service account's fixed groups, as the API server gives them; none for other names. A name
/// that only looks like one is refused: the API server would take it for a user's.
fn service_account(claim: &str, username: &str) -> Result<Option<Vec<String>>, IdentifyError> {
    let Some(rest) = username.strip_prefix(SERVICE_ACCOUNT) else { return Ok(None) };
    let label = |text: &str, most: usize, dots: bool| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        (1..=most).contains(&text.len())
            && text.bytes().all(|b| inner(b) || b == b'-' || (dots && b == b'.'))
            && text.bytes().next().is_some_and(inner)
            && text.bytes().last().is_some_and(inner)
    };
    match rest.split_once(':') {
        Some((namespace, name)) if label(namespace, 63, false) && label(name, 253, true) => {
            Ok(Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ]))
        }
        _ => Err(bad(claim, "is not the name of a service account, but looks like one")),
    }
}

/// All impersonation headers together have a bound, because the token's is multiplied by prefixes.
fn check_headers(principal: &Principal) -> Result<(), IdentifyError> {
    let groups = principal.groups.iter().map(|group| group.len() + HEADER_BYTES);
    // A key is percent-encoded into the header's name.
    let extra = principal.extra.iter().flat_map(|(key, values)| {
        values.iter().map(move |value| 3 * key.len() + value.len() + HEADER_BYTES)
    });
    let uid = principal.uid.as_ref().map_or(0, String::len);
    let total = groups.chain(extra).sum::<usize>() + principal.username.len() + uid;
    if total > HEADERS_BYTES_MAX {
        return Err(bad("groups", "and the other names are too long together"));
    }
    Ok(())
}

/// The `jti`, if it is short and plain; else a part of the token's hash.
fn token_id(claims: &Claims, hash: &[u8; 32]) -> String {
    let plain = |id: &&str| check_value("jti", id).is_ok() && id.len() <= TOKEN_ID_BYTES_MAX;
    match claims.get("jti").and_then(Value::as_str).filter(plain) {
        Some(id) => id.to_owned(),
        None => blake3::Hash::from_bytes(*hash).to_hex()[..16].to_owned(),
    }
}

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const MISSING: &str = "is missing";
/// Clocks differ; both ends of a token's time are moved by this.
const LEEWAY_MICROS: i64 = 30_000_000;
/// The last second of year 9999: a later time is refused, because no clock reaches it.
const SECONDS_MAX: f64 = 253_402_300_799.0;
/// A longer username, group, uid or extra value is refused.
const VALUE_BYTES_MAX: usize = 512;
/// More groups, or values of one extra attribute, are refused.
const GROUPS_MAX: usize = 512;
/// The impersonation headers of one principal; more is refused.
const HEADERS_BYTES_MAX: usize = 32 << 10;
/// `Impersonate-Extra-: ` and line end, the longest.
const HEADER_BYTES: usize = 22;
/// A longer `jti` is not kept.
const TOKEN_ID_BYTES_MAX: usize = 128;

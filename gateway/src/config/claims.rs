//! Which claims become what: names, prefixes and the rules on them.

use serde_json::Value;

use super::{ExtraMapping, PrefixedClaim, RequiredClaim, problem::Problems, raw};

pub(super) fn prefixed(
    path: &str,
    given: Option<Value>,
    problems: &mut Problems,
) -> Option<PrefixedClaim> {
    let raw: raw::ClaimMapping = problems.shape(path, given?)?;
    let claim = claim(path, raw.claim, raw.expression, problems);
    if raw.prefix.is_none() {
        problems
            .add(format!("{path}.prefix"), "is required, as in Kubernetes; write \"\" for none");
    }
    let prefix = raw.prefix.unwrap_or_default();
    if prefix.chars().any(char::is_control) || prefix.starts_with(char::is_whitespace) {
        problems.add(
            format!("{path}.prefix"),
            "must not hold control characters or begin with white space",
        );
    }
    if prefix.len() > PREFIX_BYTES_MAX {
        problems.add(format!("{path}.prefix"), format!("is longer than {PREFIX_BYTES_MAX} bytes"));
    }
    // A placeholder keeps the other checks going; the problem above refuses the configuration.
    Some(PrefixedClaim { claim: claim.unwrap_or_default(), prefix })
}

fn claim(
    path: &str,
    claim: Option<String>,
    expression: Option<String>,
    problems: &mut Problems,
) -> Option<String> {
    if expression.is_some() {
        problems.add(format!("{path}.expression"), format!("a CEL expression {CEL_UNSUPPORTED}"));
        return None;
    }
    let claim = claim.filter(|claim| !claim.is_empty());
    if claim.is_none() {
        problems.add(format!("{path}.claim"), "is required: name the token's claim");
    }
    claim
}

pub(super) fn uid(path: &str, given: Option<Value>, problems: &mut Problems) -> Option<String> {
    let raw: raw::ClaimMapping = problems.shape(path, given?)?;
    if raw.prefix.is_some() {
        problems.add(format!("{path}.prefix"), "does not exist for uid; remove the key");
    }
    claim(path, raw.claim, raw.expression, problems)
}

pub(super) fn extras(path: &str, given: Vec<Value>, problems: &mut Problems) -> Vec<ExtraMapping> {
    if given.len() > EXTRA_MAX {
        problems.add(path, format!("at most {EXTRA_MAX} extra attributes are supported"));
    }
    let mut extras: Vec<ExtraMapping> = Vec::new();
    for (i, value) in given.into_iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(raw) = problems.shape::<raw::Extra>(&path, value) else { continue };
        if extras.iter().any(|extra| extra.key == raw.key) {
            problems.add(format!("{path}.key"), "is given twice");
        }
        if let Err(message) = extra_key(&raw.key) {
            problems.add(format!("{path}.key"), message);
        }
        match raw.value_expression.strip_prefix("claims.").filter(|name| is_identifier(name)) {
            Some(claim) => extras.push(ExtraMapping { key: raw.key, claim: claim.into() }),
            None => problems.add(
                format!("{path}.valueExpression"),
                "a CEL expression is supported in the form `claims.NAME` only",
            ),
        }
    }
    extras
}

/// The rules of Kubernetes for a key, and ours: `decklog.dev` is the gateway's own.
fn extra_key(key: &str) -> Result<(), String> {
    let (domain, name) =
        key.split_once('/').ok_or("must be DOMAIN/NAME, for example example.com/team")?;
    let domain_ok = domain.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    });
    let name_ok = !name.is_empty()
        && name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_' | b'/')
        });
    if !domain_ok || !name_ok || key.len() > 253 {
        return Err("must be DOMAIN/NAME in lower case, for example example.com/team".into());
    }
    let reserved = ["kubernetes.io", "k8s.io", "decklog.dev"];
    let within = |reserved: &str| {
        domain.strip_suffix(reserved).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    match reserved.into_iter().find(|reserved| within(reserved)) {
        Some(domain) => Err(format!("the domain {domain} is reserved")),
        None => Ok(()),
    }
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

pub(super) fn rule(path: &str, given: Value, problems: &mut Problems) -> Option<RequiredClaim> {
    let raw: raw::ClaimValidationRule = problems.shape(path, given)?;
    if raw.required_value.is_none() && raw.expression.is_none() {
        problems
            .add(format!("{path}.requiredValue"), "is required: the claim's only permitted value");
    }
    let claim = claim(path, raw.claim, raw.expression, problems)?;
    Some(RequiredClaim { claim, value: raw.required_value? })
}

pub(super) fn system_prefixes(
    path: &str,
    given: Vec<String>,
    problems: &mut Problems,
) -> Vec<String> {
    for (i, prefix) in given.iter().enumerate() {
        // The last colon keeps a list from ever admitting `system:masters`.
        let word = prefix.strip_prefix("system:").and_then(|rest| rest.strip_suffix(':'));
        if word.is_none_or(|word| word.is_empty() || word.contains(char::is_whitespace)) {
            problems.add(
                format!("{path}[{i}]"),
                format!(
                    "`{prefix}` must have the form system:WORD: with the last \
                     colon, for example system:serviceaccount:"
                ),
            );
        }
    }
    given
}

/// What a CEL expression is answered with.
pub(super) const CEL_UNSUPPORTED: &str = "is not supported; supported are `claim` \
    with `prefix` in mappings, `claim` with `requiredValue` in rules";
/// More is refused: each becomes a header of every request.
const EXTRA_MAX: usize = 16;
/// A longer prefix is refused: it is repeated for each group.
const PREFIX_BYTES_MAX: usize = 128;

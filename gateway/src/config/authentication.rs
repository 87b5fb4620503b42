//! Whose tokens are believed: the shape of Kubernetes' `AuthenticationConfiguration`.

use std::{path::Path, time::Duration};

use jsonwebtoken::Algorithm;
use serde_json::Value;
use url::Url;

use super::{
    Certificates,
    claims::{CEL_UNSUPPORTED, extras, prefixed, rule, system_prefixes, uid},
    problem::Problems,
    raw, units,
};

/// Whose tokens are believed.
#[derive(Clone, Debug)]
pub struct Authentication {
    /// The issuers, at least one; their URLs and username prefixes differ.
    pub issuers: Vec<Issuer>,
    /// How their keys are kept.
    pub keys: KeyOptions,
}

/// How issuers' keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOptions {
    /// Keys are fetched again after this time, less or more a tenth.
    pub refresh: Duration,
    /// Keys that could not be fetched again are used up to this age; then requests get 503.
    pub max_stale: Duration,
    /// A token with an unknown key asks the issuer at most once in this time.
    pub cool_down: Duration,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self {
            // A key that was withdrawn is refused within minutes, at little load on the issuer.
            refresh: Duration::from_secs(10 * 60),
            // A night's outage of the issuer does not stop anyone; a longer one is an incident.
            max_stale: Duration::from_secs(24 * 3600),
            // A forged key id must not be a means to flood the issuer.
            cool_down: Duration::from_secs(60),
        }
    }
}

/// One issuer of tokens.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The exact `iss` of its tokens.
    pub url: String,
    /// Where its metadata is.
    pub discovery_url: Url,
    /// A token must be for one of these.
    pub audiences: Vec<String>,
    /// Who vouches for the issuer's TLS certificate; none means the platform's roots.
    pub certificate_authority: Option<Certificates>,
    /// The signature algorithms that are accepted: asymmetric only.
    pub algorithms: Vec<Algorithm>,
    /// The claim that becomes the username.
    pub username: PrefixedClaim,
    /// The claim that becomes the groups.
    pub groups: Option<PrefixedClaim>,
    /// The claim that becomes the uid.
    pub uid: Option<String>,
    /// Claims that become extra attributes.
    pub extra: Vec<ExtraMapping>,
    /// What claims must say besides.
    pub rules: Vec<RequiredClaim>,
    /// Beginnings of `system:` names that this issuer may give.
    pub allowed_system_prefixes: Vec<String>,
}

/// A claim, and what is put before its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixedClaim {
    /// The claim's name.
    pub claim: String,
    /// Put before each value; may be empty.
    pub prefix: String,
}

/// A claim that becomes an extra attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraMapping {
    /// The attribute's key, for example `example.com/department`.
    pub key: String,
    /// The claim's name.
    pub claim: String,
}

/// A claim that must have this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// The claim's name.
    pub claim: String,
    /// Its only permitted value.
    pub value: String,
}

pub(super) fn validate(
    given: Option<Value>,
    directory: &Path,
    problems: &mut Problems,
) -> Option<Authentication> {
    let path = "authentication";
    let raw: raw::Authentication =
        problems.required(path, given, "list the issuers of tokens under `jwt`")?;
    if let Some(version) = raw.api_version.filter(|v| !v.starts_with("apiserver.config.k8s.io/")) {
        problems.add(
            format!("{path}.apiVersion"),
            format!("`{version}` is not apiserver.config.k8s.io/…"),
        );
    }
    if let Some(kind) = raw.kind.filter(|kind| kind != "AuthenticationConfiguration") {
        problems
            .add(format!("{path}.kind"), format!("`{kind}` is not AuthenticationConfiguration"));
    }
    if raw.anonymous.is_some_and(|value| value != serde_json::json!({"enabled": false})) {
        problems.add(
            format!("{path}.anonymous"),
            "anonymous requests are not supported; remove the key, or write {enabled: false}",
        );
    }
    let keys = key_options(raw.keys, problems);
    let entries = raw.jwt.unwrap_or_default();
    if entries.is_empty() {
        problems.add(format!("{path}.jwt"), "is required: list at least one issuer of tokens");
    }
    if entries.len() > ISSUERS_MAX {
        problems.add(format!("{path}.jwt"), format!("at most {ISSUERS_MAX} issuers are supported"));
    }
    let issuers: Vec<Issuer> = entries
        .into_iter()
        .enumerate()
        .filter_map(|(i, entry)| issuer(&format!("{path}.jwt[{i}]"), entry, directory, problems))
        .collect();
    distinct(&issuers, problems);
    Some(Authentication { issuers, keys })
}

fn key_options(given: Option<Value>, problems: &mut Problems) -> KeyOptions {
    let defaults = KeyOptions::default();
    let Some(raw) = given.and_then(|v| problems.shape::<raw::Keys>("authentication.keys", v))
    else {
        return defaults;
    };
    let mut key = |name: &str, given, default, least: u64, most: u64| {
        let bounds = Duration::from_secs(least)..=Duration::from_secs(most);
        units::duration_key(format!("authentication.keys.{name}"), given, default, bounds, problems)
    };
    let options = KeyOptions {
        refresh: key("refresh", raw.refresh, defaults.refresh, 10, DAY),
        max_stale: key("maxStale", raw.max_stale, defaults.max_stale, 60, 30 * DAY),
        cool_down: key("coolDown", raw.cool_down, defaults.cool_down, 5, 3600),
    };
    if options.max_stale < options.refresh {
        problems.add("authentication.keys.maxStale", "must not be shorter than `refresh`");
    }
    options
}

/// Two issuers must never be able to name the same user.
fn distinct(issuers: &[Issuer], problems: &mut Problems) {
    for (i, one) in issuers.iter().enumerate() {
        for (j, other) in issuers.iter().enumerate().take(i) {
            if one.url == other.url {
                problems.add(
                    format!("authentication.jwt[{i}].issuer.url"),
                    format!(
                        "is the same as that of jwt[{j}]; each issuer is listed \
                         once, with all its audiences"
                    ),
                );
            } else if one.username.prefix == other.username.prefix {
                problems.add(
                    format!("authentication.jwt[{i}].claimMappings.username.prefix"),
                    format!(
                        "is the same as that of jwt[{j}]; with several issuers each \
                         needs its own, or one could name the other's users"
                    ),
                );
            }
        }
    }
}

fn issuer(path: &str, given: Value, directory: &Path, problems: &mut Problems) -> Option<Issuer> {
    let raw: raw::Jwt = problems.shape(path, given)?;
    let issuer_path = format!("{path}.issuer");
    let issuer: Option<raw::Issuer> =
        problems.required(&issuer_path, raw.issuer, "write {url: https://…, audiences: […]}");
    let mappings_path = format!("{path}.claimMappings");
    let mappings: Option<raw::ClaimMappings> = problems.required(
        &mappings_path,
        raw.claim_mappings,
        "write {username: {claim: sub, prefix: \"\"}}",
    );
    let rules = raw
        .claim_validation_rules
        .into_iter()
        .enumerate()
        .filter_map(|(i, v)| rule(&format!("{path}.claimValidationRules[{i}]"), v, problems))
        .collect();
    if !raw.user_validation_rules.is_empty() {
        problems.add(format!("{path}.userValidationRules"), format!("CEL rules {CEL_UNSUPPORTED}"));
    }
    let algorithms = algorithms(path, raw.algorithms, problems);
    let allowed_system_prefixes = system_prefixes(
        &format!("{path}.allowedSystemPrefixes"),
        raw.allowed_system_prefixes,
        problems,
    );
    let (issuer, mappings) = (issuer?, mappings?);
    let username = prefixed(&format!("{mappings_path}.username"), mappings.username, problems);
    if username.is_none() {
        problems.add(
            format!("{mappings_path}.username"),
            "is required: write {claim: sub, prefix: \"\"}",
        );
    }
    let groups = prefixed(&format!("{mappings_path}.groups"), mappings.groups, problems);
    let uid = uid(&format!("{mappings_path}.uid"), mappings.uid, problems);
    let extra = extras(&format!("{mappings_path}.extra"), mappings.extra, problems);
    let discovery_url = urls(&issuer_path, &issuer, problems);
    audiences(&issuer_path, &issuer, problems);
    let certificate_authority = issuer.certificate_authority.and_then(|value| {
        Certificates::configured(&value, directory)
            .map_err(|m| problems.add(format!("{issuer_path}.certificateAuthority"), m))
            .ok()
    });
    Some(Issuer {
        url: issuer.url,
        discovery_url: discovery_url?,
        audiences: issuer.audiences,
        certificate_authority,
        algorithms,
        username: username?,
        groups,
        uid,
        extra,
        rules,
        allowed_system_prefixes,
    })
}

/// The rules of Kubernetes for both URLs; gives the URL of the metadata.
fn urls(path: &str, issuer: &raw::Issuer, problems: &mut Problems) -> Option<Url> {
    if issuer.egress_selector_type.is_some() {
        problems.add(format!("{path}.egressSelectorType"), "is not supported; remove the key");
    }
    let url = https_url(&format!("{path}.url"), &issuer.url, problems);
    match &issuer.discovery_url {
        Some(given) => {
            if *given == issuer.url {
                problems
                    .add(format!("{path}.discoveryURL"), "is the same as `url`; remove the key");
            }
            https_url(&format!("{path}.discoveryURL"), given, problems)
        }
        None => {
            url?;
            let text =
                format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/'));
            Url::parse(&text).ok()
        }
    }
}

pub(super) fn https_url(path: &str, given: &str, problems: &mut Problems) -> Option<Url> {
    let url = match Url::parse(given) {
        Ok(url) => url,
        Err(error) => {
            problems.add(path, format!("`{given}` is not a URL: {error}"));
            return None;
        }
    };
    let wrong = if url.scheme() != "https" {
        "must begin with https://"
    } else if !url.username().is_empty() || url.password().is_some() {
        // The text is not repeated: it holds a credential.
        "must not hold a user name or password"
    } else if url.query().is_some() || url.fragment().is_some() {
        "must not have a query or fragment"
    } else {
        return Some(url);
    };
    problems.add(path, wrong);
    None
}

fn audiences(path: &str, issuer: &raw::Issuer, problems: &mut Problems) {
    let audiences = &issuer.audiences;
    let key = format!("{path}.audiences");
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        problems.add(&key, "must name at least one audience, none of them empty");
    }
    if let Some(twice) = repeated(audiences) {
        problems.add(&key, format!("names `{twice}` twice"));
    }
    let policy = issuer.audience_match_policy.as_deref();
    let key = format!("{path}.audienceMatchPolicy");
    match policy {
        Some("MatchAny") => {}
        None | Some("") if audiences.len() <= 1 => {}
        None | Some("") => problems.add(key, "must be MatchAny with several audiences"),
        Some(other) => problems.add(key, format!("`{other}` is not supported; use MatchAny")),
    }
}

fn repeated(values: &[String]) -> Option<&String> {
    values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)).map(|(_, v)| v)
}

fn algorithms(path: &str, given: Option<Vec<String>>, problems: &mut Problems) -> Vec<Algorithm> {
    let Some(given) = given else { return DEFAULT_ALGORITHMS.to_vec() };
    let path = format!("{path}.algorithms");
    if given.is_empty() {
        problems.add(&path, "must name at least one algorithm, or be left out");
    }
    if let Some(twice) = repeated(&given) {
        problems.add(&path, format!("names `{twice}` twice"));
    }
    let mut algorithms = Vec::new();
    for name in given {
        match name.parse::<Algorithm>() {
            Ok(algorithm) if algorithm.family() != jsonwebtoken::AlgorithmFamily::Hmac => {
                algorithms.push(algorithm);
            }
            _ => problems.add(
                &path,
                format!(
                    "`{name}` is not supported; use asymmetric ones: \
                     RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512, EdDSA"
                ),
            ),
        }
    }
    algorithms
}

/// What the API server accepts by default, but for ES512, which the JWT library lacks.
const DEFAULT_ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

const DAY: u64 = 86_400;
/// Kubernetes has the same bound; more is refused.
const ISSUERS_MAX: usize = 64;

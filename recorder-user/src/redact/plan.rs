//! What happens to a body, decided from the heads alone.

use super::rules::{Rules, Sensitive};
use crate::{
    model::{Level, Obligations, RequestHead, RequestInfo, ResponseHead},
    wire::Media,
};

/// What happens to one body. Made before its first byte.
#[derive(Clone, Debug)]
pub struct BodyPlan {
    pub(super) action: Action,
    /// The `Content-Encoding` as sent.
    pub(super) encoding: String,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Stored as it is.
    Pass,
    /// Not stored, for this reason.
    Withhold(&'static str),
    /// Stored without what the rules name.
    Redact { format: Format, gzip: bool, rules: Rules },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Protobuf,
}

/// Subresources whose bodies are streams, not objects; `@redact` paths do not reach into them.
const STREAMS: [&str; 5] = ["exec", "attach", "portforward", "proxy", "log"];

impl BodyPlan {
    /// For a request's body.
    #[must_use]
    pub fn request(info: &RequestInfo, head: &RequestHead, obligations: &Obligations) -> Self {
        let stored = obligations.level >= Level::Request;
        Self::new(info, &head.headers, stored, false, obligations)
    }

    /// For a response's body.
    #[must_use]
    pub fn response(
        info: &RequestInfo,
        request: &RequestHead,
        head: &ResponseHead,
        obligations: &Obligations,
    ) -> Self {
        let stored = obligations.level >= Level::Full;
        // Answers to what the server could not accept may quote it.
        let sent = !matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        let quotes = sent && matches!(head.status, 400 | 413 | 415 | 422 | 500);
        Self::new(info, &head.headers, stored, quotes, obligations)
    }

    /// A body that passes whatever it holds: for what is known not to be an object.
    #[must_use]
    pub fn pass() -> Self {
        Self { action: Action::Pass, encoding: String::new() }
    }

    /// Whether the body is stored as it is.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        matches!(self.action, Action::Pass)
    }

    fn new(
        info: &RequestInfo,
        headers: &[(String, String)],
        stored: bool,
        messages: bool,
        obligations: &Obligations,
    ) -> Self {
        let encodings = tokens(headers, "content-encoding");
        let encoding = encodings.join(", ");
        if !stored {
            return Self { action: Action::Withhold("policy"), encoding };
        }
        let sensitive = sensitive(info);
        let is_object = info.is_resource_request && !STREAMS.contains(&info.subresource.as_str());
        let rules = Rules::new(sensitive, messages, is_object.then_some(obligations));
        let action = if rules.is_empty() {
            Action::Pass
        } else {
            let content_type = headers.iter().find(|(name, _)| name == "content-type");
            redact(rules, content_type.map(|(_, value)| value.as_str()), &encodings)
        };
        Self { action, encoding }
    }
}

fn redact(rules: Rules, content_type: Option<&str>, encodings: &[String]) -> Action {
    let gzip = match encodings {
        [] => false,
        [one] if one == "gzip" || one == "x-gzip" => true,
        _ => return Action::Withhold("unknown_encoding"),
    };
    let format = match Media::of(content_type) {
        Media::Json | Media::Yaml => Format::Json,
        // `@redact` paths are names; protobuf has only numbers, and no schema for every kind.
        Media::Protobuf if !rules.paths.is_empty() => return Action::Withhold("undecodable"),
        Media::Protobuf => Format::Protobuf,
        Media::Other => return Action::Withhold("unknown_content_type"),
    };
    Action::Redact { format, gzip, rules }
}

/// The codings of a body, lower case, without `identity`.
fn tokens(headers: &[(String, String)], name: &str) -> Vec<String> {
    let values = headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
    let tokens = values.flat_map(|value| value.split(','));
    let tokens = tokens.map(|token| token.trim().to_ascii_lowercase());
    tokens.filter(|token| !token.is_empty() && token != "identity").collect()
}

/// What the resource makes secret. The group is not asked for `secrets`: one in another group most
/// likely copies or makes real ones.
fn sensitive(info: &RequestInfo) -> Sensitive {
    if !info.is_resource_request {
        return Sensitive::No;
    }
    if info.subresource == "proxy" {
        // A service or pod behind the proxy may be an API server too (virtual clusters).
        let names = |name: &str| info.parts.iter().skip(3).any(|part| part == name);
        return match () {
            () if names("secrets") => Sensitive::Secrets,
            () if names("token") || names("tokenreviews") => Sensitive::Tokens,
            () => Sensitive::No,
        };
    }
    match (info.resource.as_str(), info.subresource.as_str()) {
        ("secrets", _) => Sensitive::Secrets,
        ("serviceaccounts", "token") | ("tokenreviews", _) => Sensitive::Tokens,
        _ => Sensitive::No,
    }
}

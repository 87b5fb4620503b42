//! Why nobody was identified, and what the client is told.

/// Whose fault it is; decides the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request's: 401.
    Client,
    /// The issuer's: 503.
    Upstream,
}

/// Nobody was identified. The texts are for clients: they never hold any part of the token, and of
/// its claims nothing but their configured names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    /// No `Authorization` header.
    #[error("no bearer token; anonymous requests are not accepted")]
    Missing,
    /// More than one credential.
    #[error("several Authorization headers; send exactly one bearer token")]
    Several,
    /// Basic, Negotiate, …
    #[error("the Authorization scheme is not supported; send a bearer token")]
    Scheme,
    /// Over the bound.
    #[error("the token is larger than 8 KiB")]
    TooLarge,
    /// Not a signed JWT.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Not one of ours.
    #[error("the token's issuer is not accepted here")]
    UnknownIssuer,
    /// Not allowed for the issuer.
    #[error("the token's signature algorithm is not accepted")]
    Algorithm,
    /// The issuer has no such key.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// Forged or damaged.
    #[error("the token's signature is not valid")]
    Signature,
    /// For someone else.
    #[error("the token's audience is not accepted here")]
    Audience,
    /// Past `exp` and leeway.
    #[error("the token has expired")]
    Expired,
    /// Before `nbf` less leeway.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim that is needed is missing, has another type, or may not be used.
    #[error("the token's claim `{claim}` {problem}")]
    Claim {
        /// The claim's name, from the configuration or a standard.
        claim: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The issuer could not be asked for its keys, or not for too long.
    #[error("the token's issuer cannot be reached to verify it; try again")]
    KeysUnavailable,
}

impl IdentifyError {
    /// Whose fault it is.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::KeysUnavailable => Class::Upstream,
            _ => Class::Client,
        }
    }

    /// A word for metrics: one of a fixed few.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Several | Self::Scheme => "credential",
            Self::TooLarge | Self::Malformed(_) => "malformed",
            Self::UnknownIssuer => "issuer",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "key",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Claim { .. } => "claim",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }

    /// HTTP status, Kubernetes `Status` reason and message.
    #[must_use]
    pub fn status(&self) -> (u16, &'static str, String) {
        match self.class() {
            Class::Client => (401, "Unauthorized", self.to_string()),
            Class::Upstream => (503, "ServiceUnavailable", self.to_string()),
        }
    }
}

//! Who acts, and the session that groups what they do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AccountState, ExchangeSettled, SessionId, Timestamp, is_false};

/// Who a token proves: never the token itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// The token's `iss`.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
    /// The username as mapped and prefixed by the configuration.
    pub username: String,
    /// The groups as mapped and prefixed by the configuration.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Present only where `claimMappings.uid` is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Extra attributes mapped by the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What is kept of a token: enough to tell tokens apart, nothing to use one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenFacts {
    /// The `jti` claim, or the first 16 hexadecimal digits of a BLAKE3 hash of the token.
    pub id: String,
    /// The `exp` claim.
    pub expires: Option<Timestamp>,
    /// The `iat` claim.
    pub issued: Option<Timestamp>,
}

/// What makes two exchanges part of one session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionKey {
    /// The principal's issuer.
    pub issuer: String,
    /// The principal's subject.
    pub subject: String,
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// The label that the client gave; never input to a permit by itself.
    pub task: Option<String>,
}

/// A session began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionOpened {
    /// The session.
    pub session: SessionId,
    /// When its first exchange was received.
    pub time: Timestamp,
    /// What groups its exchanges.
    pub key: SessionKey,
    /// Who acts; of a session of kind `bypass` nobody is known by name.
    pub principal: Principal,
    /// How what it does came to be known.
    #[serde(default, skip_serializing_if = "SessionKind::is_api")]
    pub kind: SessionKind,
}

/// How what a session did came to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// Through the gateway.
    #[default]
    Api,
    /// Round the gateway; seen by the witness alone.
    Bypass,
}

impl SessionKind {
    /// The word as written in listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Bypass => "bypass",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
    const fn is_api(&self) -> bool {
        matches!(self, Self::Api)
    }
}

/// A session's state after this instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionChanged {
    /// The session.
    pub session: SessionId,
    /// When this was decided.
    pub time: Timestamp,
    /// The new state. `Incomplete` stays, also if the session goes on.
    pub state: SessionState,
    /// When the session ended; none if it goes on.
    pub ended: Option<Timestamp>,
    /// The local user who asked for it, where somebody did: `uid 0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What that user gave as the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The session's account up to this instant; none where the gateway that knew it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<SessionAccount>,
}

/// The accounts of a session's exchanges in one. Those of its connections come when they close, which may be
/// after the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionAccount {
    /// Any gap is a gap, else any unwitnessed is unwitnessed, else complete.
    pub state: AccountState,
    /// Every exchange's account is kernel-verified.
    #[serde(default, skip_serializing_if = "is_false")]
    pub kernel_verified: bool,
    /// What the exchanges add up to.
    #[serde(flatten)]
    pub totals: SessionTotals,
}

/// What a session's exchanges add up to, of those that have an outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionTotals {
    /// Exchanges whose account is complete.
    pub complete: u64,
    /// Those of them that are kernel-verified.
    pub kernel_verified_exchanges: u64,
    /// Exchanges whose account has a gap.
    pub gaps: u64,
    /// Exchanges whose account is unwitnessed.
    pub unwitnessed: u64,
    /// Bytes of all gaps.
    pub gap_bytes: u64,
    /// Bytes of the requests' bodies, before redaction.
    pub request_bytes: u64,
    /// Bytes of the responses' bodies, before redaction.
    pub response_bytes: u64,
    /// Bytes that the kernel received from the client for exchanges that had its connection to themselves, up to
    /// each outcome.
    pub client_in_bytes: u64,
    /// Bytes that the kernel sent to the client, likewise.
    pub client_out_bytes: u64,
    /// Exchanges that shared the client's connection, whose bytes are not in the two sums before.
    pub interleaved: u64,
}

impl SessionTotals {
    /// What one outcome adds.
    #[must_use]
    pub fn of(settled: &ExchangeSettled) -> Self {
        let account = &settled.account;
        let one_if = |state| u64::from(account.state == state);
        let span = account.client.as_ref().and_then(|client| client.span.as_ref());
        let own = span.filter(|span| !span.interleaved);
        Self {
            complete: one_if(AccountState::Complete),
            kernel_verified_exchanges: account.kernel_verified.into(),
            gaps: one_if(AccountState::Gap),
            unwitnessed: one_if(AccountState::Unwitnessed),
            gap_bytes: account.gap_bytes,
            request_bytes: settled.request.bytes,
            response_bytes: settled.response.bytes,
            client_in_bytes: own.map_or(0, |span| span.in_to.saturating_sub(span.in_from)),
            client_out_bytes: own.map_or(0, |span| span.out_to.saturating_sub(span.out_from)),
            interleaved: span.is_some_and(|span| span.interleaved).into(),
        }
    }

    /// The numbers in the order of the fields.
    #[must_use]
    pub const fn to_array(self) -> [u64; Self::LENGTH] {
        [
            self.complete,
            self.kernel_verified_exchanges,
            self.gaps,
            self.unwitnessed,
            self.gap_bytes,
            self.request_bytes,
            self.response_bytes,
            self.client_in_bytes,
            self.client_out_bytes,
            self.interleaved,
        ]
    }

    /// The counterpart of [`Self::to_array`].
    #[must_use]
    pub const fn from_array(numbers: [u64; Self::LENGTH]) -> Self {
        let [
            complete,
            kernel_verified_exchanges,
            gaps,
            unwitnessed,
            gap_bytes,
            request_bytes,
            response_bytes,
            client_in_bytes,
            client_out_bytes,
            interleaved,
        ] = numbers;
        Self {
            complete,
            kernel_verified_exchanges,
            gaps,
            unwitnessed,
            gap_bytes,
            request_bytes,
            response_bytes,
            client_in_bytes,
            client_out_bytes,
            interleaved,
        }
    }

    /// How many numbers there are.
    pub const LENGTH: usize = 10;

    /// Takes more into the sums.
    pub fn add(&mut self, more: &Self) {
        let mut numbers = self.to_array();
        for (number, more) in numbers.iter_mut().zip(more.to_array()) {
            *number = number.saturating_add(more);
        }
        *self = Self::from_array(numbers);
    }

    /// The account that these sums make.
    #[must_use]
    pub fn account(self) -> SessionAccount {
        let all = self.complete + self.gaps + self.unwitnessed;
        let state = match (self.gaps, self.unwitnessed) {
            (0, 0) if all > 0 => AccountState::Complete,
            (0, _) => AccountState::Unwitnessed,
            _ => AccountState::Gap,
        };
        let kernel_verified = all > 0 && self.kernel_verified_exchanges == all;
        SessionAccount { state, kernel_verified, totals: self }
    }
}

/// The states of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum SessionState {
    /// Goes on.
    Open,
    /// Asked for, or idle.
    Ended,
    /// A live stream was cut by anything but its two ends; the first reason stays.
    Incomplete(IncompleteReason),
}

/// Why a session is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncompleteReason {
    /// The token expired during a live stream.
    TokenExpired,
    /// The token was revoked during a live stream.
    TokenRevoked,
    /// The grant ended during a live stream.
    GrantEnded,
    /// Someone killed the session.
    Killed,
    /// A live stream was idle or lasted longer than the configuration allows.
    LimitReached,
    /// The client left an upload, a response or an exec half-way.
    ClientLost,
    /// The API server left half-way.
    UpstreamLost,
    /// The recorder could not keep up or could not write.
    RecorderFailed,
    /// The gateway ended without sealing; found at restart.
    GatewayLost,
}

impl IncompleteReason {
    /// The reason as it is written in listings and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::GrantEnded => "grant_ended",
            Self::Killed => "killed",
            Self::LimitReached => "limit_reached",
            Self::ClientLost => "client_lost",
            Self::UpstreamLost => "upstream_lost",
            Self::RecorderFailed => "recorder_failed",
            Self::GatewayLost => "gateway_lost",
        }
    }
}

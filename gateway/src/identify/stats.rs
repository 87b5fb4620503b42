//! What metrics show of this phase. No user, token or claim is part of it.

/// Counters since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// One for each configured issuer, in the configuration's order.
    pub issuers: Vec<IssuerStats>,
    /// Tokens that were known, as good or as refused.
    pub cache_hits: u64,
    /// Tokens that had to be verified.
    pub cache_misses: u64,
    /// Verified tokens that are kept.
    pub cache_entries: u64,
}

/// One issuer's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerStats {
    /// Its URL.
    pub url: String,
    /// How often its keys were asked for.
    pub fetches: u64,
    /// How often that failed.
    pub failures: u64,
    /// How many usable keys are held.
    pub keys: u64,
    /// Seconds since they were fetched; none while there are none.
    pub keys_age_seconds: Option<u64>,
}

//! The columns of the tables: a contract, documented in `docs/store.md`.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, TimeUnit};
use recorder_user::model::Timestamp;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// A row for a session and each segment that changed it: the one with the greatest `segment` holds.
    Sessions,
    /// A row for each exchange that came to its end.
    Exchanges,
    /// A row for each object that an exchange changed, and for each command that it ran.
    Effects,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sessions, Self::Exchanges, Self::Effects];

    /// The name in paths and queries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Exchanges => "exchanges",
            Self::Effects => "effects",
        }
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8.
    Text,
    /// A whole number of 64 bits.
    Int,
    /// An instant in UTC, in microseconds.
    Time,
    /// A list of UTF-8.
    Texts,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
    /// Whether it may hold nothing.
    pub nullable: bool,
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// Nothing.
    Null,
    /// UTF-8.
    Text(&'a str),
    /// A number.
    Int(i64),
    /// An instant.
    Time(Timestamp),
    /// A list of UTF-8.
    Texts(&'a [String]),
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Cell<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [String]> for Cell<'a> {
    fn from(texts: &'a [String]) -> Self {
        Self::Texts(texts)
    }
}

impl From<u64> for Cell<'_> {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for Cell<'_> {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<Timestamp> for Cell<'_> {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The columns of a table in their order, without the partitions `day` and `cluster`.
#[must_use]
pub const fn columns(table: Table) -> &'static [ColumnSpec] {
    match table {
        Table::Sessions => SESSIONS,
        Table::Exchanges => EXCHANGES,
        Table::Effects => EFFECTS,
    }
}

/// The same as an Arrow schema.
#[must_use]
pub fn arrow_schema(table: Table) -> Arc<Schema> {
    let field = |column: &ColumnSpec| {
        let kind = match column.kind {
            ColumnKind::Text => DataType::Utf8,
            ColumnKind::Int => DataType::Int64,
            ColumnKind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnKind::Texts => DataType::new_list(DataType::Utf8, true),
        };
        Field::new(column.name, kind, column.nullable)
    };
    Arc::new(Schema::new(columns(table).iter().map(field).collect::<Vec<_>>()))
}

const fn text(name: &'static str) -> ColumnSpec {
    ColumnSpec { name, kind: ColumnKind::Text, nullable: false }
}

const fn text_or_null(name: &'static str) -> ColumnSpec {
    ColumnSpec { name, kind: ColumnKind::Text, nullable: true }
}

const fn int(name: &'static str) -> ColumnSpec {
    ColumnSpec { name, kind: ColumnKind::Int, nullable: false }
}

const fn int_or_null(name: &'static str) -> ColumnSpec {
    ColumnSpec { name, kind: ColumnKind::Int, nullable: true }
}

const fn time(name: &'static str) -> ColumnSpec {
    ColumnSpec { name, kind: ColumnKind::Time, nullable: false }
}

const fn time_or_null(name: &'static str) -> ColumnSpec {
    ColumnSpec { name, kind: ColumnKind::Time, nullable: true }
}

const fn texts(name: &'static str) -> ColumnSpec {
    ColumnSpec { name, kind: ColumnKind::Texts, nullable: false }
}

const SESSIONS: &[ColumnSpec] = &[
    text("session"),
    text("segment"),
    text("gateway"),
    text("kind"),
    text("state"),
    text_or_null("reason"),
    text_or_null("task"),
    text("issuer"),
    text("subject"),
    text("username"),
    texts("groups"),
    time("started"),
    time_or_null("ended"),
    time("last_activity"),
    int("exchanges"),
    int("denied"),
    int("created"),
    int("modified"),
    int("deleted"),
    text("account_state"),
    int("account_gap_bytes"),
    text_or_null("account_reason"),
];

const EXCHANGES: &[ColumnSpec] = &[
    text("exchange"),
    text_or_null("session"),
    text("segment"),
    text("gateway"),
    text_or_null("command"),
    text_or_null("command_name"),
    time("time"),
    text_or_null("task"),
    text("username"),
    text("subject"),
    text("verb"),
    text("api_group"),
    text("api_version"),
    text("resource"),
    text("subresource"),
    text("namespace"),
    text("name"),
    text("path"),
    text("user_agent"),
    text_or_null("verdict"),
    texts("policies"),
    text("policy_set"),
    text_or_null("refusal_phase"),
    text_or_null("refusal_reason"),
    int("suppressed"),
    int_or_null("status"),
    text_or_null("ending"),
    text("effect"),
    int("objects"),
    text_or_null("audit_id"),
    int("request_bytes"),
    int("response_bytes"),
    int("identify_us"),
    int("authorize_us"),
    int("open_us"),
    int("upstream_us"),
    int("total_us"),
    text("account_state"),
    int("account_gap_bytes"),
    text_or_null("account_reason"),
];

const EFFECTS: &[ColumnSpec] = &[
    text("exchange"),
    text_or_null("session"),
    text("segment"),
    text("gateway"),
    text_or_null("command"),
    text_or_null("command_name"),
    time("time"),
    text_or_null("task"),
    text("username"),
    text("subject"),
    text("verb"),
    text("api_group"),
    text("resource"),
    text("subresource"),
    text("change"),
    text("kind"),
    text("namespace"),
    text("name"),
    text("uid"),
];

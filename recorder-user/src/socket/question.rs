//! A search as the query of a URL: the names of the options of `recorder search`, each at most once.

use serde::{Deserialize, Serialize, de::IntoDeserializer as _};
use serde_json::{Map, Value};

use crate::{
    model::{Decision, Effect, ExchangeId, SessionId, Timestamp},
    store::Query,
};

/// The text asks for something that is not understood.
#[derive(Debug, thiserror::Error)]
pub enum BadQuestion {
    /// A name is there twice.
    #[error("{0:?} is there twice")]
    Twice(String),
    /// A name or value is not understood.
    #[error("not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
    /// The status is none.
    #[error(transparent)]
    Status(#[from] crate::store::ParseStatusFilterError),
    /// The limit is no number.
    #[error("the limit is not a number")]
    Limit(#[from] std::num::ParseIntError),
}

/// A search in words. All values are text.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Words {
    session: Option<SessionId>,
    principal: Option<String>,
    task: Option<String>,
    verb: Option<String>,
    resource: Option<String>,
    api_group: Option<String>,
    cluster: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    user_agent: Option<String>,
    verdict: Option<Decision>,
    status: Option<String>,
    effect: Option<Effect>,
    command: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: Option<String>,
    after: Option<ExchangeId>,
}

/// The search as text.
#[must_use]
pub fn to_text(query: &Query) -> String {
    // Named one by one: a condition that is added to a search and not sent would give wrong rows.
    let Query {
        session,
        principal,
        task,
        verb,
        resource,
        api_group,
        cluster,
        namespace,
        name,
        uid,
        user_agent,
        verdict,
        status,
        effect,
        command,
        since,
        until,
        limit,
        after,
    } = query.clone();
    let status = status.map(|status| status.to_string());
    let limit = (limit != 0).then(|| limit.to_string());
    let words = Words {
        session,
        principal,
        task,
        verb,
        resource,
        api_group,
        cluster,
        namespace,
        name,
        uid,
        user_agent,
        verdict,
        status,
        effect,
        command,
        since,
        until,
        limit,
        after,
    };
    let Ok(Value::Object(fields)) = serde_json::to_value(words) else { return String::new() };
    let mut text = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &fields {
        if let Value::String(value) = value {
            text.append_pair(name, value);
        }
    }
    text.finish()
}

/// The search that a text means.
///
/// # Errors
/// When a part of it is not understood: ignoring it would give other rows than were asked for.
pub fn from_text(text: &str) -> Result<Query, BadQuestion> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let value = Value::String(value.into_owned());
        if fields.insert(name.to_string(), value).is_some() {
            return Err(BadQuestion::Twice(name.into_owned()));
        }
    }
    let words = Words::deserialize(fields.into_deserializer())?;
    Ok(Query {
        session: words.session,
        principal: words.principal,
        task: words.task,
        verb: words.verb,
        resource: words.resource,
        api_group: words.api_group,
        cluster: words.cluster,
        namespace: words.namespace,
        name: words.name,
        uid: words.uid,
        user_agent: words.user_agent,
        verdict: words.verdict,
        status: words.status.map(|status| status.parse()).transpose()?,
        effect: words.effect,
        command: words.command,
        since: words.since,
        until: words.until,
        limit: words.limit.map_or(Ok(0), |limit| limit.parse())?,
        after: words.after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StatusFilter;

    fn check(query: &Query) {
        let text = to_text(query);
        assert_eq!(&from_text(&text).expect(&text), query, "{text}");
    }

    #[test]
    fn every_condition_survives() {
        check(&Query::default());
        let text = || Some("a&b=c+d %\u{e9}\u{1b}".to_owned());
        check(&Query {
            session: Some(SessionId::new()),
            principal: text(),
            task: text(),
            verb: text(),
            resource: text(),
            api_group: text(),
            cluster: text(),
            namespace: text(),
            name: text(),
            uid: text(),
            user_agent: text(),
            verdict: Some(Decision::Deny),
            status: Some(StatusFilter::Class(4)),
            effect: Some(Effect::Deleted),
            command: text(),
            since: Some(Timestamp::from_micros(1_790_000_000_000_001)),
            until: Some(Timestamp::from_micros(1_790_000_000_999_999)),
            limit: 7,
            after: Some(ExchangeId::new()),
        });
        check(&Query { api_group: Some(String::new()), ..Query::default() });
        check(&Query { status: Some(StatusFilter::Exact(404)), ..Query::default() });
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in
            ["later=1", "verb=get&verb=list", "status=9xx", "limit=x", "session=abc", "effect=x"]
        {
            assert!(from_text(bad).is_err(), "{bad}");
        }
    }
}

//! Terms: what an exchange can be found by, and which of them a query asks for.
//!
//! A term is small whatever it was made of, since it is a hash: what is found by terms is looked at again before
//! it is an answer. Texts that are searched for a part of them have their trigrams as terms.

use std::collections::BTreeSet;

use crate::{
    model::{Decision, Effect, ObjectChange},
    store::rows::{ExchangeRow, Query, StatusFilter},
};

/// What a term is of. The codes are on disk.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Field {
    Session = 1,
    Principal = 2,
    Task = 3,
    Cluster = 4,
    Verb = 5,
    Resource = 6,
    Subresource = 7,
    ApiGroup = 8,
    Namespace = 9,
    Name = 10,
    Uid = 11,
    Verdict = 12,
    Status = 13,
    Effect = 14,
    CommandId = 15,
    /// Trigrams of the command's name and of the command line.
    Command = 16,
    /// Trigrams.
    UserAgent = 17,
    /// Its command line is longer than what trigrams are made of: it may hold anything.
    LongCommand = 18,
}

/// A field and the hash of a text, or three bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Term {
    length: u8,
    bytes: [u8; Self::BYTES_MAX],
}

impl Term {
    pub(super) const BYTES_MAX: usize = 1 + HASH_BYTES;

    fn of(field: Field, text: &[u8]) -> Self {
        Self::new(field, &blake3::hash(text).as_bytes()[..HASH_BYTES])
    }

    fn new(field: Field, payload: &[u8]) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[0] = field as u8;
        bytes[1..=payload.len()].copy_from_slice(payload);
        Self { length: 1 + payload.len() as u8, bytes }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Terms of one exchange.
pub(super) type Terms = BTreeSet<Term>;

/// What of a row does not change, user agent and command name apart.
pub(super) fn of_intent(row: &ExchangeRow) -> Terms {
    let mut terms = Terms::new();
    let texts = [
        (Field::Principal, &row.username),
        (Field::Principal, &row.subject),
        (Field::Cluster, &row.cluster),
        (Field::Verb, &row.verb),
        (Field::Resource, &row.resource),
        (Field::Subresource, &row.subresource),
        (Field::ApiGroup, &row.api_group),
        (Field::Namespace, &row.namespace),
        (Field::Name, &row.name),
    ];
    terms.extend(texts.map(|(field, text)| Term::of(field, text.as_bytes())));
    terms.extend(row.session.map(|session| Term::of(Field::Session, session.as_bytes())));
    terms.extend(row.task.as_ref().map(|task| Term::of(Field::Task, task.as_bytes())));
    terms.extend(row.command.as_ref().map(|id| Term::of(Field::CommandId, id.as_bytes())));
    terms.extend(row.verdict.map(verdict));
    if let Some(line) = &row.command_line {
        trigrams(Field::Command, line.as_bytes(), &mut terms);
    }
    terms
}

/// What a user agent, which many rows share, adds to that.
pub(super) fn of_user_agent(user_agent: &str) -> Terms {
    let mut terms = Terms::new();
    trigrams(Field::UserAgent, user_agent.as_bytes(), &mut terms);
    terms
}

/// The same of a command's name.
pub(super) fn of_command_name(name: &str) -> Terms {
    let mut terms = Terms::new();
    trigrams(Field::Command, name.as_bytes(), &mut terms);
    terms
}

/// What of a row the outcome decides.
pub(super) fn of_outcome(row: &ExchangeRow) -> Terms {
    let mut terms = of_objects(&row.objects);
    terms.insert(effect(row.effect));
    if let Some(status) = row.status {
        terms.insert(exact(status));
        terms.insert(class(status / 100));
    }
    terms
}

/// The objects that an exchange changed.
pub(super) fn of_objects(objects: &[ObjectChange]) -> Terms {
    let terms = objects.iter().flat_map(|object| {
        [(Field::Name, &object.name), (Field::Uid, &object.uid)]
            .map(|(field, text)| Term::of(field, text.as_bytes()))
    });
    terms.collect()
}

/// A command line that a row had no room for.
pub(super) fn of_command_line(line: &str) -> Terms {
    let mut terms = Terms::new();
    let text = &line.as_bytes()[..line.len().min(TEXT_BYTES_MAX)];
    trigrams(Field::Command, text, &mut terms);
    if text.len() < line.len() || terms.len() > TRIGRAMS_MAX {
        terms = terms.into_iter().take(TRIGRAMS_MAX).collect();
        terms.insert(Term::new(Field::LongCommand, b""));
    }
    terms
}

fn verdict(decision: Decision) -> Term {
    Term::of(Field::Verdict, decision.as_str().as_bytes())
}

fn effect(effect: Effect) -> Term {
    Term::of(Field::Effect, effect.as_str().as_bytes())
}

fn exact(status: u16) -> Term {
    Term::new(Field::Status, &status.to_be_bytes())
}

fn class(hundred: u16) -> Term {
    Term::new(Field::Status, &[hundred as u8])
}

/// Every place of a text begins a trigram; the last two are filled up with zeros.
fn trigrams(field: Field, text: &[u8], terms: &mut Terms) {
    for start in 0..text.len() {
        let mut three = [0; 3];
        let rest = &text[start..text.len().min(start + 3)];
        three[..rest.len()].copy_from_slice(rest);
        terms.insert(Term::new(field, &three));
    }
}

/// What the terms of an exchange must fulfil.
#[derive(Clone, Debug)]
pub(super) enum Clause {
    /// This one is among them.
    Term(Term),
    /// One that begins with this is among them.
    Prefix(Vec<u8>),
    /// All of these hold.
    All(Vec<Clause>),
    /// One of these holds.
    Any(Vec<Clause>),
}

/// What an exchange that the query selects fulfils; the converse need not hold. The clauses that few exchanges
/// fulfil come first, as a rule.
pub(super) fn of_query(query: &Query) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let mut texts = |wanted: &[(Field, &Option<String>)]| {
        for (field, text) in wanted {
            let text = text.as_ref();
            clauses.extend(text.map(|text| Clause::Term(Term::of(*field, text.as_bytes()))));
        }
    };
    texts(&[(Field::Uid, &query.uid), (Field::Name, &query.name)]);
    texts(&[(Field::Task, &query.task), (Field::Principal, &query.principal)]);
    texts(&[(Field::Namespace, &query.namespace), (Field::Verb, &query.verb)]);
    texts(&[(Field::ApiGroup, &query.api_group), (Field::Cluster, &query.cluster)]);
    if let Some(wanted) = query.resource() {
        clauses.push(Clause::Term(Term::of(Field::Resource, wanted.resource.as_bytes())));
        for (field, text) in
            [(Field::ApiGroup, wanted.group), (Field::Subresource, wanted.subresource)]
        {
            clauses.extend(text.map(|text| Clause::Term(Term::of(field, text.as_bytes()))));
        }
    }
    clauses.extend(
        query.session.map(|session| Clause::Term(Term::of(Field::Session, session.as_bytes()))),
    );
    clauses.extend(query.effect.map(|wanted| Clause::Term(effect(wanted))));
    clauses.extend(query.verdict.map(|wanted| Clause::Term(verdict(wanted))));
    clauses.extend(query.status.map(|status| {
        Clause::Term(match status {
            StatusFilter::Exact(status) => exact(status),
            StatusFilter::Class(hundred) => class(hundred),
        })
    }));
    if let Some(text) = &query.command
        && let Some(contains) = contains(Field::Command, text)
    {
        clauses.push(Clause::Any(vec![
            Clause::Term(Term::of(Field::CommandId, text.as_bytes())),
            contains,
            Clause::Term(Term::new(Field::LongCommand, b"")),
        ]));
    }
    clauses.extend(query.user_agent.as_ref().and_then(|text| contains(Field::UserAgent, text)));
    clauses
}

/// What a text that contains this one fulfils; none where that is every text.
fn contains(field: Field, part: &str) -> Option<Clause> {
    let part = part.as_bytes();
    match part.len() {
        0 => None,
        1 | 2 => Some(Clause::Prefix([&[field as u8], part].concat())),
        _ => {
            let all: BTreeSet<_> = part.windows(3).map(|three| Term::new(field, three)).collect();
            Some(Clause::All(all.into_iter().take(ASKED_MAX).map(Clause::Term).collect()))
        }
    }
}

const HASH_BYTES: usize = 8;
/// Trigrams are made of so much of a command line; more of them than `TRIGRAMS_MAX` are left out.
const TEXT_BYTES_MAX: usize = 64 << 10;
const TRIGRAMS_MAX: usize = 4096;
/// So many trigrams of the text that is looked for are asked for.
const ASKED_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn fulfils(clause: &Clause, terms: &Terms) -> bool {
        match clause {
            Clause::Term(term) => terms.contains(term),
            Clause::Prefix(prefix) => terms.iter().any(|term| term.as_bytes().starts_with(prefix)),
            Clause::All(all) => all.iter().all(|clause| fulfils(clause, terms)),
            Clause::Any(any) => any.iter().any(|clause| fulfils(clause, terms)),
        }
    }

    #[test]
    fn every_part_of_a_text_is_asked_for_by_its_trigrams() {
        let text = "sh -c 'rm -rf /tmp/ä'";
        let mut terms = Terms::new();
        trigrams(Field::Command, text.as_bytes(), &mut terms);
        let places: Vec<usize> = (0..=text.len()).filter(|i| text.is_char_boundary(*i)).collect();
        for from in &places {
            for to in places.iter().filter(|to| *to >= from) {
                let clause = contains(Field::Command, &text[*from..*to]);
                assert!(clause.is_none_or(|clause| fulfils(&clause, &terms)), "{from}..{to}");
            }
        }
        for absent in ["rmm", "z", "c'", "-rf  ", "/tmp/ä'x"] {
            let clause = contains(Field::Command, absent).expect("not every text has it");
            assert!(!fulfils(&clause, &terms), "{absent}");
        }
        let other_field = contains(Field::UserAgent, "rm -rf").expect("not every text has it");
        assert!(!fulfils(&other_field, &terms));
    }

    #[test]
    fn a_long_command_line_may_hold_anything() {
        let clauses =
            of_query(&Query { command: Some("needle in hay".into()), ..Query::default() });
        let found = |line: &str| fulfils(&clauses[0], &of_command_line(line));
        assert!(found("a needle in hay"));
        assert!(!found(&"hay".repeat(TEXT_BYTES_MAX / 3)));
        assert!(found(&"hay".repeat(TEXT_BYTES_MAX)));
        let diverse: String = (0_u32..3000).filter_map(|i| char::from_u32(0x4e00 + i)).collect();
        assert!(of_command_line(&diverse).len() <= TRIGRAMS_MAX + 1);
        assert!(found(&diverse));
    }
}

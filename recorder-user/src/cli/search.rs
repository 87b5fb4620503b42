//! `recorder search`: exchanges by what they were.

use super::{
    CliError, Outcome,
    json::ExchangeLine,
    library::{self, Library},
    screen::{Ink, Screen},
    search_bypass, text, units,
    verb_args::{EffectWord, KindWord, SearchArgs, VerdictWord},
};
use crate::{
    model::{Decision, Effect, Timestamp},
    replay::command_label,
    store::{ExchangeRow, Query},
};

/// Finds exchanges, oldest first.
pub(super) fn run(
    library: Library,
    args: &SearchArgs,
    now: Timestamp,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    if args.kind == KindWord::Bypass {
        return search_bypass::run(library, args, now, screen);
    }
    let mut query = query(&library, args, now)?;
    library.announce(library::scope(&query))?;
    let limit = query.limit;
    // One more than asked for tells whether there is more.
    query.limit = if limit == 0 { 0 } else { limit.saturating_add(1) };
    let mut rows = library.search(&query)?;
    let gateways: Vec<_> = rows.iter().map(|row| library.gateway(row.first)).collect();
    let is_merged = library.is_merged();
    drop(library);
    let more = limit > 0 && rows.len() > limit;
    if more {
        rows.truncate(limit);
    }
    if screen.json {
        for (row, gateway) in rows.iter().zip(gateways) {
            screen.object(&ExchangeLine::from(row).by(gateway))?;
        }
    } else if rows.is_empty() {
        writeln!(screen.err, "nothing found")?;
    } else {
        let mut header = vec![
            "EXCHANGE",
            "SESSION",
            "TIME (UTC)",
            "PRINCIPAL",
            "COMMAND",
            "REQUEST",
            "STATUS",
            "LATENCY",
            "OUTCOME",
            "ACCOUNT",
        ];
        let mut table: Vec<_> = rows.iter().map(cells).collect();
        if is_merged {
            header.push("GATEWAY");
            for (cells, gateway) in table.iter_mut().zip(gateways) {
                cells.push((text::gateway(gateway), Ink::Plain));
            }
        }
        screen.table(&header, table)?;
    }
    if let (true, Some(last)) = (more, rows.last()) {
        screen.out.flush()?;
        writeln!(screen.err, "there is more: --after {}", last.exchange)?;
    }
    Ok(Outcome::Fine)
}

fn query(library: &Library, args: &SearchArgs, now: Timestamp) -> Result<Query, CliError> {
    let bad =
        |option, text: &str, why: String| CliError::BadOption { option, text: text.into(), why };
    let session = match &args.session {
        Some(id) => Some(library.session_id(id)?),
        None => None,
    };
    let status = match &args.status {
        Some(text) => Some(
            text.parse().map_err(|_| bad("status", text, "expected such as 404 or 4xx".into()))?,
        ),
        None => None,
    };
    let after = match &args.after {
        Some(text) => Some(
            text.parse()
                .map_err(|_| bad("after", text, "expected the whole id of an exchange".into()))?,
        ),
        None => None,
    };
    Ok(Query {
        session,
        principal: args.principal.clone(),
        task: args.task.clone(),
        verb: args.verb.clone(),
        resource: args.resource.clone(),
        api_group: args.api_group.clone(),
        cluster: args.cluster.clone(),
        namespace: args.namespace.clone(),
        name: args.name.clone(),
        uid: args.uid.clone(),
        user_agent: args.user_agent.clone(),
        verdict: args.verdict.map(decision),
        status,
        effect: args.effect.map(effect),
        command: args.command.clone(),
        since: args.since.map(|when| when.resolve(now)),
        until: args.until.map(|when| when.resolve(now)),
        limit: args.limit,
        after,
    })
}

const fn decision(word: VerdictWord) -> Decision {
    match word {
        VerdictWord::Allow => Decision::Allow,
        VerdictWord::Deny => Decision::Deny,
        VerdictWord::Hold => Decision::Hold,
    }
}

const fn effect(word: EffectWord) -> Effect {
    match word {
        EffectWord::Created => Effect::Created,
        EffectWord::Modified => Effect::Modified,
        EffectWord::Deleted => Effect::Deleted,
        EffectWord::Executed => Effect::Executed,
        EffectWord::Read => Effect::Read,
        EffectWord::Nothing => Effect::Nothing,
        EffectWord::Unknown => Effect::Unknown,
    }
}

fn cells(row: &ExchangeRow) -> Vec<(String, Ink)> {
    let session = row.session.map_or_else(|| "-".into(), |session| text::short_id(&session));
    let (outcome, ink) = text::outcome(row, &row.objects);
    vec![
        (text::short_id(&row.exchange), Ink::Strong),
        (session, Ink::Plain),
        (units::short_time(row.time), Ink::Plain),
        (text::short(&row.username, 40), Ink::Plain),
        (text::short(&command_label(row), 40), Ink::Plain),
        (text::short(&text::request(row, 0), 80), Ink::Plain),
        text::status(row.status),
        (text::latency(row), Ink::Plain),
        (text::short(&outcome, 120), ink),
        text::account(&row.account),
    ]
}

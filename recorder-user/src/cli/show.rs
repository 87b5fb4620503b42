//! `recorder show`: one session with its exchanges, or one exchange with all that is kept of it.

use super::{
    CliError, Outcome, escape,
    json::{ExchangeLine, SessionLine},
    library::{Found, Library, failed},
    replay,
    screen::{Ink, Look, Screen},
    show_evidence as evidence,
    show_json::{ExchangeShown, SessionShown},
    show_seen,
    show_stream::StreamLoaded,
    text, units,
};
use crate::{
    model::{
        BodyFacts, Direction, ExchangeEnd, ExchangeOpened, Principal, SessionKind, TokenFacts,
    },
    replay::{
        BODY_BYTES_MAX, Connections, Form, WholeSession, assemble, connections, indent_json,
        is_stream, readable, stream::may_be_stream, watch_frames,
    },
    store::{ExchangeRecords, ExchangeRow, Query, SessionView},
};

/// Shows what an id names.
pub(super) fn run(
    library: Library,
    id: &str,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    match library.find(id)? {
        Found::Session(whole) => session(library, &whole, screen)?,
        Found::Exchange(row) => exchange(library, &row, screen)?,
    }
    Ok(Outcome::Fine)
}

fn session(
    library: Library,
    whole: &WholeSession,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let WholeSession { view, tracks } = whole;
    let query = Query { session: Some(view.session), ..Query::default() };
    let rows = library.search(&query)?;
    let witness = library.witness_before(view.first);
    let readers: Vec<_> =
        tracks.iter().map(|track| (library.reader(track.view.first), &track.view)).collect();
    let gateways: Vec<_> = rows.iter().map(|row| library.gateway(row.first)).collect();
    drop(library);
    let mut seen = Connections::default();
    for (reader, track) in readers {
        let directory = reader.directory().to_owned();
        let read = connections(&reader, track, &mut seen);
        read.map_err(|error| failed("read the connections in", &directory, error))?;
    }
    if screen.json {
        let lines = rows.iter().zip(gateways);
        let lines = lines.map(|(row, gateway)| ExchangeLine::from(row).by(gateway));
        let (session, exchange_rows) = (SessionLine::new(view, tracks), lines.collect());
        screen.object(&SessionShown {
            session,
            exchange_rows,
            connections: &seen.seen,
            connections_left_out: seen.left_out,
        })?;
        return Ok(());
    }
    for line in replay::header(view, witness.as_ref(), screen.look) {
        screen.line(&line)?;
    }
    let principal = &view.principal;
    for line in replay::tracks(tracks) {
        screen.line(&line)?;
    }
    if view.kind == SessionKind::Bypass {
        return show_seen::print(view, &seen, screen);
    }
    screen.line(&format!("subject {}", text::short(&principal.subject, 120)))?;
    if !principal.groups.is_empty() {
        screen.line(&format!("groups  {}", text::short(&principal.groups.join(", "), 400)))?;
    }
    for line in evidence::totals(&view.totals) {
        screen.line(&line)?;
    }
    screen.line("")?;
    let mut header = vec!["EXCHANGE", "AT", "REQUEST", "STATUS", "LATENCY", "OUTCOME", "ACCOUNT"];
    let mut table: Vec<_> = rows.iter().map(|row| cells(view, row)).collect();
    if tracks.len() > 1 {
        header.push("GATEWAY");
        for (cells, gateway) in table.iter_mut().zip(gateways) {
            cells.push((text::gateway(gateway), Ink::Plain));
        }
    }
    screen.table(&header, table)?;
    show_seen::print(view, &seen, screen)
}

fn cells(view: &SessionView, row: &ExchangeRow) -> Vec<(String, Ink)> {
    let (outcome, ink) = text::outcome(row, &row.objects);
    vec![
        (text::short_id(&row.exchange), Ink::Strong),
        (units::offset(row.time.micros_since(view.started)), Ink::Plain),
        (text::short(&text::request(row, 0), 80), Ink::Plain),
        text::status(row.status),
        (text::latency(row), Ink::Plain),
        (text::short(&outcome, 120), ink),
        text::account(&row.account),
    ]
}

fn exchange(library: Library, row: &ExchangeRow, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let stream = may_be_stream(row);
    let records = if stream { library.heads(row)? } else { library.records(row)? };
    let reader = library.reader(row.first);
    drop(library);
    let Some(records) = records else {
        return Err(CliError::Damaged(row.exchange));
    };
    let end = evidence::response_end(&reader, row, &records);
    let stream = if stream { StreamLoaded::load(&reader, row, screen.json)? } else { None };
    if screen.json {
        screen.object(&ExchangeShown::new(row, &records, end, stream))?;
        return Ok(());
    }
    for (key, value) in facts(row, &records, end.as_ref(), screen.look) {
        screen.line(&format!("{key:10} {value}"))?;
    }
    let Some(stream) = stream else {
        request(&records, screen)?;
        return response(row, &records, screen);
    };
    request_head(&records, screen)?;
    response_head(&records, screen)?;
    stream.print(row, screen)
}

fn facts(
    row: &ExchangeRow,
    records: &ExchangeRecords,
    end: Option<&ExchangeEnd>,
    look: Look,
) -> Vec<(&'static str, String)> {
    let opened = &records.opened;
    let timing = &row.timing_us;
    let mut facts = vec![("exchange", row.exchange.to_string())];
    if let Some(session) = row.session {
        facts.push(("session", session.to_string()));
    }
    facts.push(("time", row.time.to_string()));
    facts.push(("who", who(opened)));
    if let Some(acting) = &opened.acting_as {
        facts.push(("acting as", principal(acting)));
    }
    if let Some(token) = &opened.token {
        facts.push(("token", token_text(token)));
    }
    facts.push((
        "from",
        format!("{}  {}", text::short(&opened.peer, 80), text::short(&row.user_agent, 200)),
    ));
    if let Some(command) = &opened.command {
        let words = format!("{} ({})", command.name, command.id);
        facts.push(("command", text::short(&words, 200)));
    }
    if let Some(task) = &row.task {
        facts.push(("task", text::short(task, 64)));
    }
    facts.push(("request", text::short(&text::request(row, 0), 400)));
    facts.push(("verdict", verdict(row, opened)));
    let (outcome, ink) = text::outcome(row, &row.objects);
    facts
        .push(("outcome", format!("{} {}", text::status(row.status).0, look.paint(ink, &outcome))));
    if let Some(refusal) = &opened.refusal {
        facts.push(("told", text::short(&refusal.message, 400)));
    }
    if row.status.is_some() {
        facts.push((
            "took",
            format!(
                "{} (identify {}, authorize {}, open {}, upstream {})",
                units::latency(timing.total),
                units::latency(timing.identify),
                units::latency(timing.authorize),
                units::latency(timing.open),
                units::latency(timing.upstream),
            ),
        ));
    }
    let settled = records.settled.as_ref();
    if let Some(spent) = settled.and_then(|settled| settled.spent_us) {
        facts.push(("spent", evidence::spent(&spent)));
    }
    if let Some(audit_id) = &row.audit_id {
        facts.push(("audit id", text::short(audit_id, 80)));
    }
    let (account, ink) = text::account(&row.account);
    facts.push(("account", look.paint(ink, &account)));
    if let Some(settled) = settled {
        let lines = evidence::lines(&settled.account, end);
        facts.extend(lines.into_iter().map(|line| ("", line)));
    }
    facts
}

fn who(opened: &ExchangeOpened) -> String {
    opened.principal.as_deref().map_or_else(|| "nobody was identified".into(), principal)
}

fn principal(who: &Principal) -> String {
    let groups = match who.groups.as_slice() {
        [] => String::new(),
        groups => format!(", groups {}", groups.join(", ")),
    };
    let words =
        format!("{} (issuer {}, subject {}{groups})", who.username, who.issuer, who.subject);
    text::short(&words, 400)
}

fn token_text(token: &TokenFacts) -> String {
    let expires = token
        .expires
        .map_or_else(String::new, |time| format!(", expires {}", units::short_time(time)));
    format!("id {}{expires}", text::short(&token.id, 120))
}

fn verdict(row: &ExchangeRow, opened: &ExchangeOpened) -> String {
    let Some(verdict) = &opened.verdict else { return "policy was not asked".into() };
    let by = match verdict.policies.as_slice() {
        [] => "no policy applied".into(),
        policies => format!("by {}", text::short(&policies.join(", "), 400)),
    };
    let mut words = format!(
        "{} {by} (policy set {})",
        verdict.decision.as_str(),
        text::short(&row.policy_set, 80)
    );
    for error in &verdict.errors {
        words = format!("{words}; error: {}", text::short(error, 200));
    }
    words
}

fn request_head(records: &ExchangeRecords, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let Some(head) = &records.opened.head else { return Ok(()) };
    screen.line("")?;
    let first = format!("{} {} {}", head.method, head.target, head.version);
    let first = text::short(&first, HEADER_CHARS_MAX);
    screen.line(&format!("> {}", screen.look.paint(Ink::Strong, &first)))?;
    headers(">", &head.headers, screen)
}

fn request(records: &ExchangeRecords, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let Some(head) = &records.opened.head else { return Ok(()) };
    request_head(records, screen)?;
    let facts = body_facts(records, Direction::Request);
    body(records, Direction::Request, head.header("content-type"), &facts, screen)
}

fn response_head(records: &ExchangeRecords, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let Some(started) = &records.response_started else { return Ok(()) };
    let head = &started.head;
    screen.line("")?;
    screen.line(&format!("< {}", screen.look.paint(Ink::Strong, &head.status.to_string())))?;
    headers("<", &head.headers, screen)
}

fn response(
    row: &ExchangeRow,
    records: &ExchangeRecords,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let Some(started) = &records.response_started else { return Ok(()) };
    let head = &started.head;
    response_head(records, screen)?;
    let facts = body_facts(records, Direction::Response);
    let content_type = head.header("content-type");
    if !is_stream(row) {
        return body(records, Direction::Response, content_type, &facts, screen);
    }
    let frames = watch_frames(&records.chunks, content_type, &facts.encoding);
    screen.line("")?;
    for frame in &frames.frames {
        let at = units::offset(i64::try_from(frame.at_us).unwrap_or(i64::MAX));
        screen.line(&format!("{at}  {}", text::frame(frame, &row.resource)))?;
    }
    let rest = text::frames_rest(&frames);
    if !rest.is_empty() {
        screen.line(&format!("…{}", rest.trim_start_matches(',')))?;
    }
    facts_lines(&facts, screen)
}

/// What is known of a body: from the outcome, else from what came before it.
pub(super) fn body_facts(records: &ExchangeRecords, direction: Direction) -> BodyFacts {
    let settled = records.settled.as_ref();
    let (facts, headers) = match direction {
        Direction::Request => (
            settled
                .map(|settled| &settled.request)
                .or(records.request_ended.as_ref().map(|ended| &ended.body)),
            records.opened.head.as_ref().and_then(|head| head.header("content-encoding")),
        ),
        Direction::Response => (
            settled.map(|settled| &settled.response),
            records
                .response_started
                .as_ref()
                .and_then(|started| started.head.header("content-encoding")),
        ),
    };
    facts.cloned().unwrap_or_else(|| BodyFacts {
        encoding: headers.unwrap_or_default().into(),
        ..BodyFacts::default()
    })
}

fn headers(
    mark: &str,
    headers: &[(String, String)],
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    for (name, value) in headers {
        screen.line(&format!(
            "{mark} {}",
            text::short(&format!("{name}: {value}"), HEADER_CHARS_MAX)
        ))?;
    }
    Ok(())
}

fn body(
    records: &ExchangeRecords,
    direction: Direction,
    content_type: Option<&str>,
    facts: &BodyFacts,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let stored = assemble(&records.chunks, direction, BODY_BYTES_MAX);
    let shown = readable(&stored.bytes, content_type, &facts.encoding);
    let text = match shown.form {
        Form::Empty => String::new(),
        Form::Text(text) => indent_json(&text).unwrap_or(text),
        Form::Protobuf(summary, _) => summary,
        Form::Binary(bytes) => format!("{} of binary data", units::bytes(bytes.len() as u64)),
    };
    if !text.is_empty() {
        screen.line("")?;
        let part = escape::clip(&text, BODY_CHARS_MAX);
        screen.line(&escape::block(&part))?;
        if part.len() < text.len() {
            screen.line("… cut for reading; --json gives it whole")?;
        }
    }
    if shown.cut {
        screen.line("… it could not be unpacked to its end")?;
    }
    let missing = stored.missing_bytes(facts.stored_bytes);
    if stored.left_out_bytes > 0 || records.truncated {
        screen.line("… more is stored than can be shown")?;
    } else if missing > 0 {
        let missing = units::bytes(missing);
        screen.line(&format!("… {missing} of it are not there any more, see: recorder verify"))?;
    }
    facts_lines(facts, screen)
}

fn facts_lines(facts: &BodyFacts, screen: &mut Screen<'_>) -> Result<(), CliError> {
    for removed in &facts.removed {
        let line = format!("removed: {} × {}", removed.count, text::short(&removed.path, 200));
        screen.line(&screen.look.paint(Ink::Faint, &line))?;
    }
    if let Some(withheld) = &facts.withheld {
        let why = text::short(&withheld.reason, 80);
        let line = format!("withheld: {} ({why})", units::bytes(withheld.bytes));
        screen.line(&screen.look.paint(Ink::Warn, &line))?;
    }
    Ok(())
}

/// Longer header lines are cut for reading.
const HEADER_CHARS_MAX: usize = 1000;

/// Longer bodies are cut for reading.
const BODY_CHARS_MAX: usize = 64 << 10;

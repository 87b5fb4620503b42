//! `recorder replay`: a session as it went.

use std::fmt::Write as _;

use super::{
    CliError, Outcome,
    library::{Found, Library},
    replay_json,
    screen::{Ink, Look, Screen},
    seen,
    stream::{self, Playing},
    text, units,
    verb_args::ReplayArgs,
    watch,
};
use crate::{
    model::{CapabilityRecord, Ending, SessionKind, StreamRequest, Tier},
    replay::{
        Detail, ObjectHistory, Pace, Player, Summary, Timeline, Track, What, is_stream,
        stream::{command_line, is_log, may_be_stream},
    },
    store::{ExchangeRow, SessionView},
    wire::tar::copied,
};

/// Tells a session in its own time.
pub(super) fn run(
    library: Library,
    args: &ReplayArgs,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let speed = match (args.at_once, args.speed, screen.look.terminal) {
        (true, ..) => None,
        (false, Some(speed), _) => Some(speed),
        (false, None, terminal) => terminal.then_some(1.0),
    };
    let pace = Pace { speed, wait_max: args.max_wait };
    let session = match library.find(&args.id)? {
        Found::Session(session) => session,
        Found::Exchange(row) => {
            let playing = Playing { pace, seek: args.seek, stdin: args.stdin };
            return exchange(library, &row, &playing, screen);
        }
    };
    let timeline = library.timeline(*session)?;
    drop(library);
    if screen.json {
        replay_json::play(&timeline, pace, screen)?;
    } else {
        play(&timeline, pace, screen)?;
    }
    Ok(Outcome::Fine)
}

/// Plays one exchange that has a course in time.
fn exchange(
    library: Library,
    row: &ExchangeRow,
    playing: &Playing,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let reader = library.reader(row.first);
    drop(library);
    if is_stream(row) {
        watch::play(&reader, row, playing, screen)?;
    } else if may_be_stream(row) || is_log(row) {
        stream::play(&reader, row, playing, screen)?;
    } else {
        return Err(CliError::not_a_stream(row));
    }
    Ok(Outcome::Fine)
}

/// Names and requests longer than these are cut, so that one hostile name cannot widen every line.
const COMMAND_CHARS_MAX: usize = 28;
const REQUEST_CHARS_MAX: usize = 72;

/// Longer command lines of streams are cut.
const STREAM_CHARS_MAX: usize = 160;

/// The widths of the columns, known before the first line: all events are at hand.
struct Columns {
    command: usize,
    verb: usize,
    request: usize,
    latency: usize,
    account: usize,
}

impl Columns {
    fn of(timeline: &Timeline) -> Self {
        let width = |text: &str| text.chars().count();
        let verb = timeline.exchanges.iter().map(|row| width(&row.verb)).max().unwrap_or(0).min(16);
        let mut columns = Self { command: 0, verb, request: 0, latency: 0, account: 0 };
        for row in &timeline.exchanges {
            let request = width(&text::request(row, verb));
            columns.request = columns.request.max(request).min(REQUEST_CHARS_MAX);
            columns.latency = columns.latency.max(width(&text::latency(row)));
            columns.account = columns.account.max(width(&text::account(&row.account).0));
        }
        for command in &timeline.commands {
            let command = width(&text::short(&command.label, COMMAND_CHARS_MAX));
            columns.command = columns.command.max(command);
        }
        columns
    }
}

fn play(timeline: &Timeline, pace: Pace, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let look = screen.look;
    for line in header(&timeline.session, timeline.witness.as_ref(), look) {
        screen.line(&line)?;
    }
    for line in tracks(&timeline.tracks) {
        screen.line(&line)?;
    }
    let columns = Columns::of(timeline);
    let commands = timeline.command_indices();
    let mut last_command = None;
    for (wait, event) in Player::new(timeline.events.iter(), pace) {
        if !wait.is_zero() {
            screen.out.flush()?;
            (screen.sleep)(wait);
        }
        let at = units::offset(event.time.micros_since(timeline.session.started));
        let body = match event.what {
            What::Exchange(index) => {
                let command = commands[index];
                let label = (last_command != Some(command))
                    .then(|| text::short(&timeline.commands[command].label, COMMAND_CHARS_MAX));
                last_command = Some(command);
                exchange_line(timeline, index, label.as_deref().unwrap_or(""), &columns, look)
            }
            What::Frame(index, number) => timeline
                .frame(index, number)
                .map(|frame| text::frame(frame, &timeline.exchanges[index].resource))
                .map(|frame| format!("{:w$}  ~ {frame}", "", w = columns.command))
                .unwrap_or_default(),
            What::Stream(index) => {
                let text = stream_text(timeline, index);
                format!("{:w$}  ~ {text}", "", w = columns.command)
            }
            What::Ended(index) => {
                let text = ended_text(timeline, index);
                format!("{:w$}  ~ {}", "", look.paint(Ink::Faint, &text), w = columns.command)
            }
            What::SessionEnded => look.paint(Ink::Faint, "session ended"),
        };
        screen.line(&format!(" {}  {body}", look.paint(Ink::Faint, &at)))?;
    }
    screen.line("")?;
    closing(timeline, &timeline.summary(), screen)
}

/// Who, where, for what, and how far the record can be trusted.
pub(super) fn header(
    view: &SessionView,
    witness: Option<&CapabilityRecord>,
    look: Look,
) -> Vec<String> {
    let (state, ink) = text::state(view);
    let principal = &view.principal;
    let who = match (view.kind, &view.seen) {
        (SessionKind::Api, _) => {
            let username = text::short(&principal.username, 80);
            let issuer = text::short(&principal.issuer, 120);
            format!("{} ({issuer})", look.paint(Ink::Strong, &username))
        }
        (SessionKind::Bypass, Some(seen)) => look.paint(Ink::Strong, &seen::who(&seen.origin)),
        (SessionKind::Bypass, None) => "unknown process".to_owned(),
    };
    let mut first =
        format!("session {}  {who}  cluster {}", view.session, text::short(&view.cluster, 80));
    if let Some(task) = &view.task {
        write!(first, "  task {}", text::short(task, 64)).expect("a String takes all text");
    }
    let (account, account_ink) = text::session_account(view);
    let mut second = format!(
        "started {} UTC  {}  account {}",
        units::short_time(view.started),
        look.paint(ink, &state),
        look.paint(account_ink, &account),
    );
    let trust = witness.map(witness_words);
    let reason = view.account.reason.as_deref().map(|reason| text::short(reason, 120));
    let remarks: Vec<_> = trust.into_iter().chain(reason).collect();
    if !remarks.is_empty() {
        write!(second, " ({})", remarks.join("; ")).expect("a String takes all text");
    }
    let mut lines = vec![first, second];
    if let Some(seen) = view.seen.as_ref().filter(|_| view.kind == SessionKind::Api) {
        let more = match view.clients {
            0 | 1 => String::new(),
            clients => format!("  (the first of {clients} connections)"),
        };
        lines.push(format!("client  {} {}{more}", seen::who(&seen.origin), seen::row(seen)));
    }
    if view.other_connections > 0 {
        lines.push(format!("        {} other connections meanwhile", view.other_connections));
    }
    lines
}

/// Who wrote what of it, where there are several.
pub(super) fn tracks(tracks: &[Track]) -> Vec<String> {
    let lines = tracks.iter().filter(|_| tracks.len() > 1).map(|Track { gateway, view }| {
        format!(
            "track   gateway {}  session {}  started {} UTC  {}  {}  account {}",
            text::gateway(*gateway),
            view.session,
            units::short_time(view.started),
            text::state(view).0,
            units::count(view.exchanges, "exchange"),
            text::account(&view.account).0,
        )
    });
    lines.collect()
}

fn witness_words(witness: &CapabilityRecord) -> String {
    match witness.tier {
        Tier::Off => "no witness".into(),
        Tier::T5 => "TCP_INFO witness, tier T5".into(),
        tier if witness.self_test => format!("eBPF witness, tier {tier:?}"),
        tier => format!("tier {tier:?}, self-test not passed"),
    }
}

fn exchange_line(
    timeline: &Timeline,
    index: usize,
    command: &str,
    columns: &Columns,
    look: Look,
) -> String {
    let row = &timeline.exchanges[index];
    let request = text::short(&text::request(row, columns.verb), REQUEST_CHARS_MAX);
    let (status, status_ink) = text::status(row.status);
    let (account, account_ink) = text::account(&row.account);
    let (outcome, outcome_ink) = text::outcome(row, &timeline.objects_of(row));
    let latency = text::latency(row);
    // Padded before they are painted: colours have no width.
    let cells = [
        look.paint(Ink::Strong, &format!("{command:0$}", columns.command)),
        format!("{request:0$}", columns.request),
        look.paint(status_ink, &format!("{status:>3}")),
        format!("{latency:>0$}", columns.latency),
        look.paint(account_ink, &format!("{account:0$}", columns.account)),
        look.paint(outcome_ink, &outcome),
    ];
    let by = timeline.gateway_of(row).map(|id| format!("by {}", text::short_id(&id)));
    cells.into_iter().chain(by).collect::<Vec<_>>().join("  ")
}

/// What a stream was asked for, and how to see it.
fn stream_text(timeline: &Timeline, index: usize) -> String {
    let row = &timeline.exchanges[index];
    let Some(request) = timeline.details.get(&row.exchange).and_then(|d| d.stream.as_ref()) else {
        return String::new();
    };
    let mut words = request.kind.as_str().to_owned();
    if let Some(command) = command_line(request) {
        write!(words, " {command}").expect("a String takes all text");
    }
    if let Some(container) = &request.container {
        write!(words, " in container {container}").expect("a String takes all text");
    }
    let mut words = text::short(&words, STREAM_CHARS_MAX);
    if let Some(copied) = copied(&request.command) {
        write!(words, " ({})", text::copy(&copied)).expect("a String takes all text");
    }
    format!("{words}; see it with: recorder replay {}", text::short_id(&row.exchange))
}

fn ended_text(timeline: &Timeline, index: usize) -> String {
    let row = &timeline.exchanges[index];
    if let Some(detail) = timeline.details.get(&row.exchange)
        && let Some(request) = &detail.stream
    {
        return stream_ended_text(row, request, detail);
    }
    let how = row.ending.map_or("no outcome recorded", text::ending);
    let request = text::short(&text::request(row, 0), REQUEST_CHARS_MAX);
    let detail = timeline.details.get(&row.exchange);
    let rest = detail.map_or_else(String::new, |detail| text::frames_rest(&detail.frames));
    format!("{request} {how}, {} received{rest}", units::bytes(row.response_bytes))
}

fn stream_ended_text(row: &ExchangeRow, request: &StreamRequest, detail: &Detail) -> String {
    let mut how = match row.ending {
        None => "no outcome recorded".to_owned(),
        Some(Ending::Finished) => "ended".into(),
        Some(ending) => text::ending(ending).into(),
    };
    if let Some(facts) = &detail.stream_facts {
        match facts.exit_code {
            Some(code) => how = format!("{how}, exit code {code}"),
            None if !facts.status.is_empty() => {
                how = format!("{how}, {}", text::short(&facts.status, 120));
            }
            None => {}
        }
    }
    format!(
        "{} {how}; {} sent, {} received in {}",
        request.kind.as_str(),
        units::bytes(row.request_bytes),
        units::bytes(row.response_bytes),
        units::latency(row.timing_us.total),
    )
}

/// The most lines that each part of the summary has; the rest is counted.
const SUMMARY_LINES_MAX: usize = 200;

fn closing(
    timeline: &Timeline,
    summary: &Summary,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let view = &timeline.session;
    let changed = match text::effects(view.effects).as_str() {
        "-" => "nothing changed".to_owned(),
        effects => format!("objects: {effects}"),
    };
    let commands = u64::try_from(timeline.commands.len()).unwrap_or(u64::MAX);
    screen.line(&format!(
        "{} in {}; {changed}; {} denied",
        units::count(view.exchanges, "exchange"),
        units::count(commands, "command"),
        view.denied,
    ))?;
    if timeline.is_cut {
        let told = timeline.exchanges.len();
        screen.line(&format!("only the first {told} exchanges are told; search has the rest"))?;
    }
    let mut lines = Vec::new();
    for history in &summary.objects {
        lines.push(history_text(history));
    }
    part(&lines, "objects", screen)?;
    if summary.objects_unnamed > 0 {
        screen.line(&format!("  and {} objects that are not named", summary.objects_unnamed))?;
    }
    let told = |index: &usize| {
        let row = &timeline.exchanges[*index];
        let at = units::offset(row.time.micros_since(view.started));
        let request = text::short(&text::request(row, 0), REQUEST_CHARS_MAX);
        (row, format!("{at} {request}"))
    };
    let mut lines = Vec::new();
    for (row, told) in summary.denied.iter().map(told) {
        lines.push(format!("{told}: {}", text::outcome(row, &[]).0));
    }
    for (_, told) in summary.unknown.iter().map(told) {
        lines.push(format!("{told}: no outcome recorded, effect unknown"));
    }
    part(&lines, "refused or unknown", screen)?;
    let (account, ink) = text::account(&view.account);
    screen.line(&format!("account {}", screen.look.paint(ink, &account)))?;
    let mut lines = Vec::new();
    for (row, told) in summary.gaps.iter().map(told) {
        let gaps = timeline.details.get(&row.exchange).map_or(&[][..], |detail| &detail.gaps);
        lines.push(format!("{told}: {} missing", units::bytes(row.account.gap_bytes)));
        lines.extend(gaps.iter().map(|gap| format!("  {}", text::gap(gap))));
    }
    if summary.connection_gap_bytes > 0 {
        let missing = units::bytes(summary.connection_gap_bytes);
        lines.push(format!("connections, after their last exchange: {missing} missing"));
    }
    part(&lines, "gaps", screen)
}

fn part(lines: &[String], what: &str, screen: &mut Screen<'_>) -> Result<(), CliError> {
    for line in lines.iter().take(SUMMARY_LINES_MAX) {
        screen.line(&format!("  {line}"))?;
    }
    if let Some(rest) = lines.len().checked_sub(SUMMARY_LINES_MAX).filter(|rest| *rest > 0) {
        screen.line(&format!("  … {rest} more lines on {what}; --json has all"))?;
    }
    Ok(())
}

fn history_text(history: &ObjectHistory) -> String {
    let changes: Vec<_> = history.changes.iter().map(|change| text::change(*change)).collect();
    format!("{} {}", changes.join(", "), text::object(&history.object))
}

//! Phrases that several verbs share. Everything that comes from a record leaves here escaped.

use super::{
    escape::{clip, line},
    screen::Ink,
    units,
};
use crate::{
    model::{
        AccountState, Change, Decision, Direction, Effect, Ending, Gap, GapStep, GatewayId,
        IncompleteReason, ObjectChange, SessionKind,
    },
    replay::{
        Frame, Frames, Track, is_refused,
        stream::{CopiedFile, CopiedFiles},
    },
    store::{AccountRow, EffectCounts, ExchangeRow, SessionView, StateWord},
    wire::{
        stream::{Agreement, Protocol, Transport},
        tar::{self, Copied},
    },
};

/// The last digits of an id: they differ most, and any verb takes them.
pub(super) fn short_id(id: &impl std::fmt::Display) -> String {
    let id = id.to_string();
    id.get(id.len().saturating_sub(8)..).unwrap_or(&id).into()
}

/// The ends of the ids of the gateways that wrote a session.
pub(super) fn gateways(tracks: &[Track]) -> String {
    let mut ids: Vec<_> = tracks.iter().map(|track| gateway(track.gateway)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.join(" ")
}

pub(super) fn gateway(id: Option<GatewayId>) -> String {
    id.map_or_else(|| "-".into(), |id| short_id(&id))
}

/// `ended`, or `incomplete: client_lost (goes on)`.
pub(super) fn state(view: &SessionView) -> (String, Ink) {
    let mut text = view.state.as_str().to_owned();
    if let Some(reason) = view.reason.map(IncompleteReason::as_str) {
        text = format!("{text}: {reason}");
    }
    if view.state == StateWord::Incomplete && view.ended.is_none() {
        text.push_str(" (goes on)");
    }
    let ink = match view.state {
        StateWord::Open => Ink::Strong,
        StateWord::Ended => Ink::Plain,
        StateWord::Incomplete => Ink::Warn,
    };
    (text, ink)
}

/// `kernel-verified`, `complete`, `gap 120 B`, `unwitnessed`.
pub(super) fn account(account: &AccountRow) -> (String, Ink) {
    match account.state {
        AccountState::Complete if account.kernel_verified => ("kernel-verified".into(), Ink::Good),
        AccountState::Complete => ("complete".into(), Ink::Good),
        AccountState::Gap => (format!("gap {}", units::bytes(account.gap_bytes)), Ink::Bad),
        AccountState::Unwitnessed => ("unwitnessed".into(), Ink::Warn),
    }
}

/// As [`account`] of all that a session did; `bypass 4.5 KiB` of what went round the gateway.
pub(super) fn session_account(view: &SessionView) -> (String, Ink) {
    if view.kind == SessionKind::Api {
        return account(&view.account);
    }
    let bytes = view.seen.as_ref().map_or(0, |seen| {
        seen.sent_bytes.unwrap_or(0).saturating_add(seen.received_bytes.unwrap_or(0))
    });
    (format!("bypass {}", units::bytes(bytes)), Ink::Bad)
}

/// `2 created, 1 deleted`; `-` when nothing was changed.
pub(super) fn effects(counts: EffectCounts) -> String {
    let parts: Vec<_> =
        [(counts.created, "created"), (counts.modified, "modified"), (counts.deleted, "deleted")]
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
    if parts.is_empty() { "-".into() } else { parts.join(", ") }
}

/// Verb and object, as an operator would say it: `patch  apps/v1 deployments shop/web`.
pub(super) fn request(row: &ExchangeRow, verb_width: usize) -> String {
    let verb = line(&row.verb);
    if row.resource.is_empty() {
        return format!("{verb:verb_width$} {}", line(&row.path));
    }
    let group = match (row.api_group.as_str(), row.api_version.as_str()) {
        ("", version) => version.to_owned(),
        (group, version) => format!("{group}/{version}"),
    };
    let mut resource = row.resource.clone();
    if !row.subresource.is_empty() {
        resource = format!("{resource}/{}", row.subresource);
    }
    let place = match (row.namespace.as_str(), row.name.as_str()) {
        ("", "") => String::new(),
        ("", name) => format!(" {name}"),
        (namespace, "") => format!(" in {namespace}"),
        (namespace, name) => format!(" {namespace}/{name}"),
    };
    format!("{verb:verb_width$} {}", line(&format!("{group} {resource}{place}")))
}

/// `Deployment shop/web uid 3f…`.
pub(super) fn object(object: &ObjectChange) -> String {
    let name = match object.namespace.as_str() {
        "" => object.name.clone(),
        namespace => format!("{namespace}/{}", object.name),
    };
    let uid = if object.uid.is_empty() { String::new() } else { format!(" uid {}", object.uid) };
    line(&format!("{} {name}{uid}", object.kind)).into_owned()
}

/// The change's word.
pub(super) const fn change(change: Change) -> &'static str {
    match change {
        Change::Created => "created",
        Change::Modified => "modified",
        Change::Deleted => "deleted",
    }
}

/// How an exchange ended, where that is worth a word.
pub(super) const fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Finished => "finished",
        Ending::TokenExpired => "cut: the token expired",
        Ending::TokenRevoked => "cut: the token was revoked",
        Ending::GrantEnded => "cut: policy permits it no more",
        Ending::Killed => "cut: the session was killed",
        Ending::LimitReached => "cut: a limit was reached",
        Ending::ClientLost => "cut: the client left half-way",
        Ending::UpstreamLost => "cut: the API server left half-way",
        Ending::RecorderFailed => "cut: the recorder failed",
        Ending::GatewayStopped => "cut: the gateway was stopped",
    }
}

/// The most objects that one line of a replay names.
const OBJECTS_ON_A_LINE_MAX: usize = 3;

/// What came of an exchange, in a few words.
pub(super) fn outcome(row: &ExchangeRow, objects: &[ObjectChange]) -> (String, Ink) {
    if is_refused(row) {
        return (refused(row), Ink::Bad);
    }
    if row.status.is_none() {
        return ("no outcome recorded".into(), Ink::Warn);
    }
    let mut parts = Vec::new();
    for item in objects.iter().take(OBJECTS_ON_A_LINE_MAX) {
        parts.push(format!("{} {}", change(item.change), object(item)));
    }
    let named = u64::try_from(parts.len()).unwrap_or(u64::MAX);
    let known = u64::try_from(row.objects.len()).unwrap_or(u64::MAX);
    let all = known.saturating_add(row.objects_omitted);
    if parts.is_empty() {
        parts.push(row.effect.as_str().into());
    } else if all > named {
        parts.push(format!("and {} more", all - named));
    }
    if let Some(how) = row.ending.filter(|how| *how != Ending::Finished) {
        parts.push(ending(how).into());
        return (parts.join(", "), Ink::Warn);
    }
    let ink = match row.effect {
        Effect::Created | Effect::Modified | Effect::Executed => Ink::Strong,
        Effect::Deleted | Effect::Unknown => Ink::Warn,
        Effect::Read | Effect::Nothing => Ink::Plain,
    };
    (parts.join(", "), ink)
}

/// `DENIED by production.cedar/no-deletes`, or which phase refused and why.
fn refused(row: &ExchangeRow) -> String {
    let decided = row.verdict == Some(Decision::Deny);
    let mut text = match (&row.refusal, decided) {
        (_, true) if !row.policies.is_empty() => {
            format!("DENIED by {}", line(&row.policies.join(", ")))
        }
        (_, true) => "DENIED: no policy permits it".into(),
        (Some(refusal), false) => {
            format!("REFUSED at {}: {}", line(&refusal.phase), line(&refusal.reason))
        }
        (None, false) => "REFUSED".into(),
    };
    if row.suppressed > 0 {
        text = format!("{text} (and {} like it before)", row.suppressed);
    }
    text
}

/// How long the client waited; `-` while there is no outcome.
pub(super) fn latency(row: &ExchangeRow) -> String {
    row.status.map_or_else(|| "-".into(), |_| units::latency(row.timing_us.total))
}

/// The status that the client saw, and its colour.
pub(super) fn status(status: Option<u16>) -> (String, Ink) {
    match status {
        None => ("-".into(), Ink::Warn),
        Some(code @ 400..) => (code.to_string(), Ink::Bad),
        Some(code) => (code.to_string(), Ink::Plain),
    }
}

/// One line of at most so many characters, escaped.
pub(super) fn short(text: &str, chars: usize) -> String {
    clip(&line(text), chars).into_owned()
}

/// `ADDED Pod shop/web-0`; the resource stands in where the event does not carry the kind.
pub(super) fn frame(frame: &Frame, resource: &str) -> String {
    let name = match (frame.namespace.as_str(), frame.name.as_str()) {
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    let kind = if frame.kind.is_empty() { resource } else { &frame.kind };
    let words =
        [if frame.event.is_empty() { "?" } else { &frame.event }, kind, &name, &frame.reason];
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    short(&words.join(" "), 160)
}

/// What of a watch is not told event by event: empty, or with a comma before it.
pub(super) fn frames_rest(frames: &Frames) -> String {
    let mut rest = String::new();
    if frames.left_out > 0 {
        rest = format!(", {} more events", frames.left_out);
    }
    if frames.undecoded_bytes > 0 {
        rest = format!("{rest}, {} that are no whole event", units::bytes(frames.undecoded_bytes));
    }
    rest
}

/// `kernel, response: 120 B at 4096..4216`.
pub(super) fn gap(gap: &Gap) -> String {
    let step = match gap.step {
        GapStep::Kernel if gap.tcp => "TCP's count against ciphertext",
        GapStep::Kernel => "kernel against ciphertext",
        GapStep::Plaintext => "plaintext against HTTP",
        GapStep::Body => "body against record",
    };
    let way = match gap.direction {
        Direction::Request => "request",
        Direction::Response => "response",
    };
    format!("{step}, {way}: {} B at {}..{}", gap.bytes, gap.from, gap.to)
}

/// `exec protocol 5 over WebSocket`.
pub(super) fn agreement(agreement: &Agreement) -> String {
    let protocol = match agreement.protocol {
        Protocol::RemoteCommand { version, base64: false } => format!("channel protocol {version}"),
        Protocol::RemoteCommand { version, base64: true } => {
            format!("channel protocol {version} in base64")
        }
        Protocol::PortForward => "port-forward".into(),
        Protocol::PortForwardChannels { .. } => "port-forward by channels".into(),
        Protocol::PortForwardTunnel => "port-forward, SPDY tunnelled".into(),
        Protocol::Opaque => "a protocol that is not decoded".into(),
    };
    match agreement.transport {
        Transport::Spdy => format!("{protocol} over SPDY"),
        Transport::WebSocket => format!("{protocol} over WebSocket"),
        Transport::Other => protocol,
    }
}

/// `kubectl cp into /srv: 3 files, 12.0 KiB`.
pub(super) fn copied(copied: &CopiedFiles) -> String {
    let files = u64::try_from(copied.files.len()).unwrap_or(u64::MAX) + copied.left_out;
    let mut words = format!(
        "{}: {files} {}, {}",
        copy(&copied.copied),
        if files == 1 { "entry" } else { "entries" },
        units::bytes(copied.content_bytes),
    );
    if let Some(error) = &copied.error {
        words = format!("{words}; not listed further: {}", short(error, 120));
    } else if !copied.is_complete() {
        words.push_str("; the end of the archive is missing");
    }
    words
}

/// `kubectl cp into /srv`.
pub(super) fn copy(copied: &Copied) -> String {
    let way = match copied.direction {
        tar::Direction::IntoContainer => "into",
        tar::Direction::OutOfContainer => "out of",
    };
    format!("kubectl cp {way} {}", short(&copied.path, 160))
}

/// `12.0 KiB  srv/index.html`, `symlink  srv/link to index.html`.
pub(super) fn copied_file(file: &CopiedFile) -> String {
    let size = if file.kind == "file" { units::bytes(file.bytes) } else { file.kind.into() };
    let link = file.link.as_ref().map_or_else(String::new, |link| format!(" to {link}"));
    format!("{size:>10}  {}", short(&format!("{}{link}", file.path), 400))
}

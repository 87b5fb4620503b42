//! `recorder ls`: the sessions.

use super::{
    CliError, Outcome,
    json::SessionLine,
    library::Library,
    screen::{Ink, Screen},
    seen, text, units,
    verb_args::KindWord,
};
use crate::{
    model::{AccessScope, SessionKind},
    store::SessionView,
};

/// Lists sessions, oldest first.
pub(super) fn run(
    library: Library,
    kind: Option<KindWord>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    library.announce(AccessScope::default())?;
    let mut sessions = library.sessions()?;
    sessions.retain(|whole| kind.is_none_or(|kind| whole.view.kind == kind.session_kind()));
    let is_merged = library.is_merged();
    drop(library);
    if screen.json {
        for whole in &sessions {
            screen.object(&SessionLine::new(&whole.view, &whole.tracks))?;
        }
        return Ok(Outcome::Fine);
    }
    if sessions.is_empty() {
        writeln!(screen.err, "no sessions yet")?;
        return Ok(Outcome::Fine);
    }
    let mut header = vec![
        "SESSION",
        "STATE",
        "PRINCIPAL",
        "CLUSTER",
        "TASK",
        "STARTED (UTC)",
        "LASTED",
        "EXCHANGES",
        "DENIED",
        "EFFECTS",
        "ACCOUNT",
    ];
    let mut rows: Vec<_> = sessions.iter().map(|whole| cells(&whole.view)).collect();
    if is_merged {
        header.push("GATEWAYS");
        for (row, whole) in rows.iter_mut().zip(&sessions) {
            row.push((text::gateways(&whole.tracks), Ink::Plain));
        }
    }
    screen.table(&header, rows)?;
    Ok(Outcome::Fine)
}

fn cells(view: &SessionView) -> Vec<(String, Ink)> {
    let lasted = view.ended.unwrap_or(view.last_activity).micros_since(view.started);
    let principal = match (view.kind, &view.seen) {
        (SessionKind::Api, _) => {
            (text::short(&view.principal.username, NAME_CHARS_MAX), Ink::Plain)
        }
        (SessionKind::Bypass, Some(seen)) => (seen::who(&seen.origin), Ink::Bad),
        (SessionKind::Bypass, None) => ("unknown process".to_owned(), Ink::Bad),
    };
    let denied = if view.denied > 0 { Ink::Bad } else { Ink::Plain };
    vec![
        (text::short_id(&view.session), Ink::Strong),
        text::state(view),
        principal,
        (text::short(&view.cluster, NAME_CHARS_MAX), Ink::Plain),
        (text::short(view.task.as_deref().unwrap_or("-"), NAME_CHARS_MAX), Ink::Plain),
        (units::short_time(view.started), Ink::Plain),
        (units::offset(lasted), Ink::Plain),
        (view.exchanges.to_string(), Ink::Plain),
        (view.denied.to_string(), denied),
        (text::effects(view.effects), Ink::Plain),
        text::session_account(view),
    ]
}

/// Longer names are cut in tables; `--json` has them whole.
const NAME_CHARS_MAX: usize = 40;

//! `recorder search --kind bypass`: what went round the gateway. These are sessions without exchanges, so that most
//! conditions of a search do not apply; one that does not is an error, not nothing found.

use super::{
    CliError, Outcome,
    json::SessionLine,
    library::{self, Library},
    screen::{Ink, Screen},
    seen, text, units,
    verb_args::SearchArgs,
};
use crate::{
    model::{AccessScope, PodFacts, SessionId, SessionKind, Timestamp},
    store::{Query, SessionView},
};

/// Finds sessions of kind `bypass`, oldest first.
pub(super) fn run(
    library: Library,
    args: &SearchArgs,
    now: Timestamp,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let wanted = Wanted::new(&library, args, now)?;
    library.announce(wanted.scope())?;
    let mut found = library.sessions()?;
    drop(library);
    found.retain(|whole| wanted.matches(&whole.view));
    let more = args.limit > 0 && found.len() > args.limit;
    if more {
        found.truncate(args.limit);
    }
    if screen.json {
        for whole in &found {
            screen.object(&SessionLine::new(&whole.view, &whole.tracks))?;
        }
    } else if found.is_empty() {
        writeln!(screen.err, "nothing found")?;
    } else {
        let header =
            ["SESSION", "STATE", "BEGAN (UTC)", "LASTED", "WHO", "EXECUTABLE", "WHAT", "CLUSTER"];
        screen.table(&header, found.iter().map(|whole| cells(&whole.view)).collect())?;
    }
    if let (true, Some(last)) = (more, found.last()) {
        screen.out.flush()?;
        writeln!(screen.err, "there is more: --after {}", last.view.session)?;
    }
    Ok(Outcome::Fine)
}

/// The conditions, all of which must hold.
struct Wanted<'a> {
    session: Option<SessionId>,
    after: Option<SessionId>,
    cluster: Option<&'a str>,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    command: Option<&'a str>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl<'a> Wanted<'a> {
    fn new(library: &Library, args: &'a SearchArgs, now: Timestamp) -> Result<Self, CliError> {
        for (option, given) in [
            ("principal", args.principal.as_deref()),
            ("task", args.task.as_deref()),
            ("verb", args.verb.as_deref()),
            ("resource", args.resource.as_deref()),
            ("api-group", args.api_group.as_deref()),
            ("uid", args.uid.as_deref()),
            ("user-agent", args.user_agent.as_deref()),
            ("status", args.status.as_deref()),
            ("verdict", args.verdict.map(|_| "")),
            ("effect", args.effect.map(|_| "")),
        ] {
            if let Some(text) = given {
                let why = "nothing of that is known of what went round the gateway".into();
                return Err(CliError::BadOption { option, text: text.into(), why });
            }
        }
        let after = match &args.after {
            Some(text) => Some(text.parse().map_err(|_| CliError::BadOption {
                option: "after",
                text: text.clone(),
                why: "expected the whole id of a session".into(),
            })?),
            None => None,
        };
        let session = args.session.as_ref().map(|id| library.session_id(id)).transpose()?;
        Ok(Self {
            session,
            after,
            cluster: args.cluster.as_deref(),
            namespace: args.namespace.as_deref(),
            name: args.name.as_deref(),
            command: args.command.as_deref(),
            since: args.since.map(|when| when.resolve(now)),
            until: args.until.map(|when| when.resolve(now)),
        })
    }

    /// The same as text, for the record that it was searched for.
    fn scope(&self) -> AccessScope {
        let scope = library::scope(&Query {
            session: self.session,
            cluster: self.cluster.map(str::to_owned),
            namespace: self.namespace.map(str::to_owned),
            name: self.name.map(str::to_owned),
            command: self.command.map(str::to_owned),
            since: self.since,
            until: self.until,
            ..Query::default()
        });
        let rest = scope.query.unwrap_or_default();
        AccessScope { query: Some(format!("kind=bypass&{rest}")), ..AccessScope::default() }
    }

    fn matches(&self, view: &SessionView) -> bool {
        view.kind == SessionKind::Bypass
            && self.session.is_none_or(|session| view.session == session)
            && self.after.is_none_or(|after| view.session > after)
            && self.cluster.is_none_or(|cluster| view.cluster == cluster)
            && self.since.is_none_or(|since| view.started >= since)
            && self.until.is_none_or(|until| view.started < until)
            && self.pod_matches(view.seen.as_ref().and_then(|seen| seen.origin.pod.as_ref()))
            && self.command.is_none_or(|part| {
                view.seen.as_ref().is_some_and(|seen| {
                    let process = &seen.origin.process;
                    let executable = process.executable.as_deref().unwrap_or_default();
                    process.comm.contains(part) || executable.contains(part)
                })
            })
    }

    fn pod_matches(&self, pod: Option<&PodFacts>) -> bool {
        let is = |wanted: Option<&str>, found: fn(&PodFacts) -> Option<&str>| {
            wanted.is_none_or(|wanted| pod.and_then(found) == Some(wanted))
        };
        is(self.namespace, |pod| pod.namespace.as_deref())
            && is(self.name, |pod| pod.name.as_deref())
    }
}

fn cells(view: &SessionView) -> Vec<(String, Ink)> {
    let lasted = view.ended.unwrap_or(view.last_activity).micros_since(view.started);
    let seen = view.seen.as_ref();
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let executable = seen.and_then(|seen| seen.origin.process.executable.as_deref());
    vec![
        (text::short_id(&view.session), Ink::Strong),
        text::state(view),
        (units::short_time(view.started), Ink::Plain),
        (units::offset(lasted), Ink::Plain),
        (or_unknown(seen.map(|seen| seen::who(&seen.origin))), Ink::Bad),
        (or_unknown(executable.map(|path| text::short(path, 48))), Ink::Plain),
        (or_unknown(seen.map(seen::row)), Ink::Plain),
        (text::short(&view.cluster, 40), Ink::Plain),
    ]
}

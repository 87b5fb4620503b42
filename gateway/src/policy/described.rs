//! A request as the operator's tests and `gateway policy explain` describe it.

use http::Method;
use recorder_user::model::{Principal, RequestInfo, StreamKind, StreamRequest};
use serde::Deserialize;

use super::Question;
use crate::attribute;

/// What a stream asks for, beside what the query of its request says. Whatever is given here counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamDescription {
    /// The argument vector of an exec.
    pub command: Vec<String>,
    /// The container of an exec or an attach.
    pub container: Option<String>,
    /// Whether stdin is carried.
    pub stdin: bool,
    /// Whether there is a terminal.
    pub tty: bool,
    /// The ports of a port-forward, as its query would name them.
    pub ports: Vec<u16>,
}

/// A request that can be asked about.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) principal: Principal,
    pub(super) info: RequestInfo,
    stream: Option<StreamRequest>,
    cluster: String,
    task: Option<String>,
    pub(super) upgraded: bool,
}

/// Why there is nothing to ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotDescribed {
    /// It cannot be attributed: the gateway denies it without asking.
    Denied(String),
    /// The description does not make sense.
    Wrong(String),
}

impl NotDescribed {
    pub(super) fn text(self) -> String {
        match self {
            Self::Denied(text) | Self::Wrong(text) => text,
        }
    }
}

/// The parts of a description, as they were written.
pub(super) struct Words<'a> {
    pub(super) user: &'a str,
    pub(super) groups: &'a [String],
    pub(super) cluster: &'a str,
    pub(super) task: Option<&'a str>,
    pub(super) upgraded: bool,
    /// `METHOD /path?query`.
    pub(super) request: &'a str,
    pub(super) stream: &'a StreamDescription,
}

impl Words<'_> {
    pub(super) fn read(&self) -> Result<Described, NotDescribed> {
        let (method, target) = self
            .request
            .split_once(' ')
            .ok_or_else(|| wrong("a request is a method, a space and a path"))?;
        let method = Method::from_bytes(method.as_bytes()).map_err(wrong)?;
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let denied = |error: attribute::AttributeError| NotDescribed::Denied(error.status().2);
        let info = attribute::request_info(&method, path, query).map_err(denied)?;
        let mut stream = attribute::stream_request(&info, query, self.upgraded).map_err(denied)?;
        self.stream.put_into(stream.as_mut())?;
        let (username, groups) = (self.user.to_owned(), self.groups.to_vec());
        Ok(Described {
            principal: Principal { username, groups, ..Principal::default() },
            info,
            stream,
            cluster: self.cluster.to_owned(),
            task: self.task.map(str::to_owned),
            upgraded: self.upgraded,
        })
    }
}

impl Described {
    pub(super) fn question(&self) -> Question<'_> {
        Question {
            principal: &self.principal,
            info: &self.info,
            stream: self.stream.as_ref(),
            cluster: &self.cluster,
            task: self.task.as_deref(),
            upgraded: self.upgraded,
        }
    }
}

impl StreamDescription {
    fn put_into(&self, asked: Option<&mut StreamRequest>) -> Result<(), NotDescribed> {
        let runs = self.container.is_some() || self.stdin || self.tty;
        let kind = asked.as_ref().map(|asked| asked.kind);
        let fits = |given: bool, kinds: &[StreamKind], what: &str| {
            if given && !kind.is_some_and(|kind| kinds.contains(&kind)) {
                return Err(wrong(what));
            }
            Ok(())
        };
        fits(!self.command.is_empty(), &[StreamKind::Exec], "only pods/exec has a command")?;
        fits(
            runs,
            &[StreamKind::Exec, StreamKind::Attach],
            "only pods/exec and pods/attach have a container, stdin and tty",
        )?;
        fits(
            !self.ports.is_empty(),
            &[StreamKind::PortForward],
            "only pods/portforward has ports",
        )?;
        let Some(asked) = asked else { return Ok(()) };
        if !self.command.is_empty() {
            asked.command.clone_from(&self.command);
        }
        if self.container.is_some() {
            asked.container.clone_from(&self.container);
        }
        if !self.ports.is_empty() {
            asked.ports.clone_from(&self.ports);
        }
        asked.stdin |= self.stdin;
        asked.tty |= self.tty;
        Ok(())
    }
}

fn wrong(what: impl ToString) -> NotDescribed {
    NotDescribed::Wrong(what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: &str, stream: &StreamDescription) -> Result<Described, NotDescribed> {
        let (user, groups, cluster, task) = ("ada", &[][..], "c", None);
        Words { user, groups, cluster, task, upgraded: false, request, stream }.read()
    }

    #[test]
    fn what_is_given_counts_over_the_query() {
        let given = StreamDescription {
            command: vec!["ls".into()],
            tty: true,
            ..StreamDescription::default()
        };
        let exec = "POST /api/v1/namespaces/n/pods/p/exec?command=rm&container=c&stdin=1";
        let described = read(exec, &given).expect("an exec");
        let stream = described.question().stream.expect("a stream");
        assert_eq!(
            (stream.command.as_slice(), stream.container.as_deref()),
            (&["ls".into()][..], Some("c"))
        );
        assert!(stream.stdin && stream.tty);
        let described = read("GET /version", &StreamDescription::default()).expect("a request");
        assert!(described.question().stream.is_none());
    }

    #[test]
    fn what_does_not_fit_is_wrong() {
        let command = StreamDescription { command: vec!["ls".into()], ..Default::default() };
        let tty = StreamDescription { tty: true, ..Default::default() };
        let ports = StreamDescription { ports: vec![80], ..Default::default() };
        let pod = |tail: &str| format!("POST /api/v1/namespaces/n/pods/p/{tail}");
        for (tail, given) in [
            ("attach", &command),
            ("log", &command),
            ("portforward", &tty),
            ("log", &tty),
            ("exec", &ports),
            ("proxy/x", &tty),
        ] {
            let error = read(&pod(tail), given).expect_err(tail);
            assert!(matches!(error, NotDescribed::Wrong(_)), "{tail}: {error:?}");
        }
        for (tail, given) in [("exec", &command), ("attach", &tty), ("portforward", &ports)] {
            assert!(read(&pod(tail), given).is_ok(), "{tail}");
        }
        let none = StreamDescription::default();
        assert!(matches!(read(&pod("exec?command=%ff"), &none), Err(NotDescribed::Denied(_))));
        assert!(matches!(read("GET", &none), Err(NotDescribed::Wrong(_))));
    }
}

//! What a stream was asked for and how it came to its end.

use std::sync::Arc;

use crate::{
    model::{
        Ending, ExchangeId, ExchangeOpened, ExchangeSettled, Principal, ResponseStarted, SessionId,
        StdinRecord, StreamFacts, StreamKind, StreamRequest, Timestamp,
    },
    store::{ExchangeRow, RunEnd},
    wire::stream::{Agreement, Asked, Protocol},
};

/// What is known when a stream begins.
#[derive(Clone, Debug)]
pub struct StreamHead {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Its session.
    pub session: Option<SessionId>,
    /// When the request was received: times of frames count from here.
    pub started: Timestamp,
    /// The cluster.
    pub cluster: String,
    /// Who asked.
    pub principal: Option<Arc<Principal>>,
    /// The pod's namespace; empty where there is none.
    pub namespace: String,
    /// The pod, or what else was asked for.
    pub name: String,
    /// What an upgraded connection asked for; none for a log.
    pub request: Option<StreamRequest>,
    /// What both ends agreed on; none for a log.
    pub agreement: Option<Agreement>,
    /// Whether stdin was reduced to its sizes.
    pub stdin: StdinRecord,
}

impl StreamHead {
    pub(super) fn new(
        opened: &ExchangeOpened,
        started: &ResponseStarted,
        facts: Option<&StreamFacts>,
    ) -> Self {
        let request = opened.stream.clone();
        let agreement = (started.head.status == SWITCHING_PROTOCOLS)
            .then(|| agreement(request.as_ref(), started, facts));
        let info = opened.request.as_ref();
        let asked = opened.verdict.as_ref().map(|verdict| verdict.obligations.stdin);
        let was_masked = facts.is_some_and(|facts| facts.stdin_masked_bytes > 0);
        let stdin = if was_masked { StdinRecord::Sizes } else { asked.unwrap_or_default() };
        Self {
            exchange: opened.exchange,
            session: opened.session,
            started: opened.time,
            cluster: opened.cluster.clone(),
            principal: opened.principal.clone(),
            namespace: info.map_or_else(String::new, |info| info.namespace.clone()),
            name: info.map_or_else(String::new, |info| info.name.clone()),
            request,
            agreement,
            stdin,
        }
    }

    /// Whether there was a terminal: then bytes are drawn, not listed.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.tty)
    }

    /// Whether its bytes are those of a command: stdin, stdout, stderr.
    #[must_use]
    pub fn has_channels(&self) -> bool {
        match &self.agreement {
            Some(agreement) => matches!(agreement.protocol, Protocol::RemoteCommand { .. }),
            None => true,
        }
    }

    /// The argument vector as a shell would take it; none where there is none.
    #[must_use]
    pub fn command_line(&self) -> Option<String> {
        command_line(self.request.as_ref()?)
    }

    /// `exec shop/web, container app`.
    #[must_use]
    pub fn title(&self) -> String {
        let place = match (self.namespace.as_str(), self.name.as_str()) {
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        let container = self.request.as_ref().and_then(|request| request.container.as_ref());
        let container = container.map_or_else(String::new, |name| format!(", container {name}"));
        format!("{} {place}{container}", self.kind())
    }

    /// `exec`, `attach`, `portforward`, `proxy`, `other`, or `log`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.request {
            Some(request) => request.kind.as_str(),
            None if self.agreement.is_some() => StreamKind::Other.as_str(),
            None => "log",
        }
    }
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Its outcome is on record.
    Settled {
        /// When.
        time: Timestamp,
        /// How.
        ending: Ending,
        /// What was seen while it lasted; none for a log.
        facts: Option<StreamFacts>,
    },
    /// The gateway that carried it ended without recording an outcome.
    GatewayLost,
    /// Nothing more is on record so far.
    Open,
}

impl StreamEnd {
    pub(super) fn new(settled: Option<&ExchangeSettled>, run: RunEnd) -> Self {
        match (settled, run) {
            (Some(settled), _) => Self::Settled {
                time: settled.time,
                ending: settled.ending,
                facts: settled.stream.clone(),
            },
            (None, RunEnd::GatewayEnded) => Self::GatewayLost,
            (None, _) => Self::Open,
        }
    }
}

/// Whether the row is of a request for a pod's log.
#[must_use]
pub fn is_log(row: &ExchangeRow) -> bool {
    row.api_group.is_empty() && row.resource == "pods" && row.subresource == "log"
}

/// Whether the row may be of an upgraded connection. Only the record says for sure.
#[must_use]
pub fn may_be_stream(row: &ExchangeRow) -> bool {
    let asks = matches!(row.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    row.status == Some(SWITCHING_PROTOCOLS) || (row.status.is_none() && asks)
}

/// The status of an upgraded connection.
pub(super) const SWITCHING_PROTOCOLS: u16 = 101;

/// The argument vector as a shell would take it; none where there is none.
#[must_use]
pub fn command_line(request: &StreamRequest) -> Option<String> {
    let words: Vec<_> = request.command.iter().map(|word| quoted(word)).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// A word as a POSIX shell would take it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// What the 101 says; where a header was not kept, what the gateway noted.
fn agreement(
    request: Option<&StreamRequest>,
    started: &ResponseStarted,
    facts: Option<&StreamFacts>,
) -> Agreement {
    let head = &started.head;
    let noted = |text: fn(&StreamFacts) -> &String| {
        facts.map(text).map(String::as_str).filter(|text| !text.is_empty())
    };
    let upgrade = head.header("upgrade").or_else(|| match noted(|facts| &facts.transport)? {
        "spdy" => Some("SPDY/3.1"),
        other => Some(other),
    });
    let subprotocol = head
        .header("sec-websocket-protocol")
        .or_else(|| head.header("x-stream-protocol-version"))
        .or_else(|| noted(|facts| &facts.protocol));
    let asked = match request.map(|request| request.kind) {
        Some(StreamKind::Exec | StreamKind::Attach) => Asked::Command,
        Some(StreamKind::PortForward) => Asked::PortForward,
        Some(StreamKind::Proxy | StreamKind::Other) | None => Asked::Other,
    };
    let ports = request.map_or(&[][..], |request| &request.ports);
    Agreement::of(asked, upgrade.unwrap_or_default(), subprotocol, ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ExchangeId, ResponseHead},
        wire::stream::Transport,
    };

    fn agreed(headers: &[(&str, &str)], transport: &str, protocol: &str) -> Agreement {
        let request = StreamRequest {
            kind: StreamKind::Exec,
            container: None,
            command: Vec::new(),
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
            ports: Vec::new(),
        };
        let headers =
            headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let head = ResponseHead { status: SWITCHING_PROTOCOLS, headers };
        let started = ResponseStarted { exchange: ExchangeId::new(), at_us: 0, head };
        let facts = StreamFacts {
            transport: transport.into(),
            protocol: protocol.into(),
            ..StreamFacts::default()
        };
        agreement(Some(&request), &started, Some(&facts))
    }

    #[test]
    fn the_head_tells_the_protocol_and_else_what_was_noted() {
        let command = |version, base64| Protocol::RemoteCommand { version, base64 };
        let spdy = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];
        let found = agreed(&spdy, "websocket", "v5.channel.k8s.io");
        assert_eq!((found.transport, found.protocol), (Transport::Spdy, command(4, false)));
        let found = agreed(&[], "spdy", "v4.channel.k8s.io");
        assert_eq!((found.transport, found.protocol), (Transport::Spdy, command(4, false)));
        let found = agreed(&[], "websocket", "v4.base64.channel.k8s.io");
        assert_eq!((found.transport, found.protocol), (Transport::WebSocket, command(4, true)));
        assert_eq!(agreed(&[], "", "").protocol, Protocol::Opaque);
    }

    #[test]
    fn command_lines_are_quoted_as_for_a_shell() {
        for (word, want) in [("ls", "ls"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")] {
            assert_eq!(quoted(word), want);
        }
    }
}

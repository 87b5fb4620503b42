//! `--json`: a line for what the stream was, one for each frame, one for its end.

use serde::Serialize;

use super::View;
use crate::{
    cli::{CliError, escape, frame_json::FrameShown, outlet::Outlet, screen::Screen},
    model::{Ending, ExchangeId, MicrosSince, SessionId, StreamFacts, StreamRequest, Timestamp},
    replay::stream::{ChannelTotal, Connection, StreamEnd, StreamFrame, StreamHead, StreamSummary},
};

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum EventLine<'a> {
    /// The first line.
    #[serde(rename_all = "camelCase")]
    Stream {
        exchange: ExchangeId,
        session: Option<SessionId>,
        started: Timestamp,
        cluster: &'a str,
        username: &'a str,
        namespace: &'a str,
        name: &'a str,
        kind: &'static str,
        request: Option<&'a StreamRequest>,
    },
    /// A frame.
    Frame {
        exchange: ExchangeId,
        #[serde(flatten)]
        frame: Box<FrameShown>,
    },
    /// The last line.
    #[serde(rename_all = "camelCase")]
    Ended {
        exchange: ExchangeId,
        at_us: MicrosSince,
        time: Option<Timestamp>,
        ending: Option<Ending>,
        gateway_lost: bool,
        exit_code: Option<i32>,
        facts: Option<&'a StreamFacts>,
        channels: &'a [ChannelTotal],
        connections: &'a [Connection],
        connections_left_out: u64,
        undecoded_bytes: u64,
        missing_bytes: u64,
    },
}

pub(super) struct Json {
    exchange: ExchangeId,
}

impl Json {
    pub(super) fn new(head: &StreamHead, screen: &mut Screen<'_>) -> Result<Self, CliError> {
        screen.object(&EventLine::Stream {
            exchange: head.exchange,
            session: head.session,
            started: head.started,
            cluster: &head.cluster,
            username: head.principal.as_deref().map_or("", |principal| &principal.username),
            namespace: &head.namespace,
            name: &head.name,
            kind: head.kind(),
            request: head.request.as_ref(),
        })?;
        Ok(Self { exchange: head.exchange })
    }
}

impl View for Json {
    fn frame(
        &mut self,
        frame: &StreamFrame,
        outlet: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        if matches!(outlet, Outlet::Muted) {
            return Ok(());
        }
        let frame = Box::new(FrameShown::new(frame));
        let line = serde_json::to_string(&EventLine::Frame { exchange: self.exchange, frame });
        let line = line.map_err(std::io::Error::from)?;
        outlet.line(&escape::json(&line), screen)
    }

    fn finish(
        self: Box<Self>,
        summary: &StreamSummary,
        end: &StreamEnd,
        _: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        let (time, ending, facts) = match end {
            StreamEnd::Settled { time, ending, facts } => {
                (Some(*time), Some(*ending), facts.as_ref())
            }
            StreamEnd::GatewayLost | StreamEnd::Open => (None, None, None),
        };
        let seen = summary.status.as_ref().and_then(|status| status.exit_code);
        screen.object(&EventLine::Ended {
            exchange: self.exchange,
            at_us: summary.last_at_us,
            time,
            ending,
            gateway_lost: *end == StreamEnd::GatewayLost,
            exit_code: seen.or(facts.and_then(|facts| facts.exit_code)),
            facts,
            channels: &summary.channels,
            connections: &summary.connections.told,
            connections_left_out: summary.connections.left_out,
            undecoded_bytes: summary.raw_bytes,
            missing_bytes: summary.missing_bytes,
        })?;
        Ok(())
    }
}

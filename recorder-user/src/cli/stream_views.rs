//! How a stream is shown: drawn, as the lines it left, as lines in time, by connection, or as JSON.

use super::{CliError, outlet::Outlet, screen::Screen, stream};
use crate::{
    replay::stream::{StreamEnd, StreamFrame, StreamHead, StreamSummary},
    wire::stream::Protocol,
};

mod json;
mod lines;
mod ports;
mod remarks;
mod screen;
mod transcript;

pub(super) use ports::table as connections;
pub(super) use remarks::closing;

/// One way to show a stream.
pub(super) trait View {
    /// Takes a frame.
    fn frame(
        &mut self,
        frame: &StreamFrame,
        outlet: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError>;

    /// For a second or more the stream was silent: what was begun may be all that comes.
    fn idle(&mut self, _: &mut Outlet, _: &mut Screen<'_>) -> Result<(), CliError> {
        Ok(())
    }

    /// The reader gets time to look.
    fn draw(&mut self, _: &mut Outlet, _: &mut Screen<'_>) -> Result<(), CliError> {
        Ok(())
    }

    /// The stream is over, or what is on record of it.
    fn finish(
        self: Box<Self>,
        summary: &StreamSummary,
        end: &StreamEnd,
        outlet: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError>;
}

/// Prints what the stream was, and gives the view that suits it.
pub(super) fn of(
    head: &StreamHead,
    stdin: bool,
    screen: &mut Screen<'_>,
) -> Result<Box<dyn View>, CliError> {
    if screen.json {
        return Ok(Box::new(json::Json::new(head, screen)?));
    }
    for line in stream::header(head, screen.look) {
        screen.line(&line)?;
    }
    screen.line("")?;
    let ports = head.agreement.as_ref().is_some_and(|agreement| {
        matches!(
            agreement.protocol,
            Protocol::PortForward
                | Protocol::PortForwardChannels { .. }
                | Protocol::PortForwardTunnel
        )
    });
    Ok(match head.has_terminal() {
        _ if ports => Box::new(ports::Ports::default()),
        true if screen.look.redraw => Box::new(screen::Drawn::new(stdin)),
        true => Box::new(transcript::Transcript::new(stdin)),
        false => Box::new(lines::TimedLines::new(head, stdin)),
    })
}

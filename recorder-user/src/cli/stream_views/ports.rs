//! A port-forward: its connections as they come and go.

use super::{View, remarks};
use crate::{
    cli::{
        CliError,
        outlet::Outlet,
        screen::{Ink, Screen},
        text, units,
    },
    replay::stream::{
        CONNECTIONS_MAX, Connection, Connections, FrameKind, StreamEnd, StreamFrame, StreamSummary,
    },
    wire::stream::{Channel, Side},
};

#[derive(Default)]
pub(super) struct Ports {
    connections: Connections,
}

impl View for Ports {
    fn frame(
        &mut self,
        frame: &StreamFrame,
        outlet: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        let known = self.connections.told.len();
        self.connections.push(frame);
        if let Some(begun) = self.connections.told.get(known) {
            let line = named(begun, "opened");
            tell(frame, &line, outlet, screen)?;
        }
        let word = match &frame.kind {
            FrameKind::Closed(Channel::Port(port)) => {
                let who = if frame.side == Side::Client { "client" } else { "pod" };
                self.connections.find(*port).map(|connection| {
                    (connection, format!("the {who} sends no more: {}", carried(connection)))
                })
            }
            FrameKind::Data { channel: Channel::PortError(port), .. } => self
                .connections
                .find(*port)
                .map(|connection| (connection, format!("error: {}", connection.error))),
            FrameKind::Reset {
                channel: Channel::Port(port) | Channel::PortError(port), ..
            } => self
                .connections
                .find(*port)
                .map(|connection| (connection, format!("error: {}", connection.error))),
            _ => {
                if let Some(remark) = remarks::of(frame) {
                    remarks::print(frame.at_us, &remark, outlet, screen)?;
                }
                None
            }
        };
        match word {
            Some((connection, word)) => tell(frame, &named(connection, &word), outlet, screen),
            None => Ok(()),
        }
    }

    fn finish(
        self: Box<Self>,
        summary: &StreamSummary,
        end: &StreamEnd,
        _: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        screen.line("")?;
        table(&self.connections, screen)?;
        remarks::closing(summary, end, screen)
    }
}

fn tell(
    frame: &StreamFrame,
    line: &str,
    outlet: &mut Outlet,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let at = screen.look.paint(Ink::Faint, &remarks::at(frame.at_us));
    outlet.line(&format!(" {at}  {}", text::short(line, 400)), screen)
}

fn named(connection: &Connection, word: &str) -> String {
    format!("#{} to port {}  {word}", connection.request, connection.port)
}

fn carried(connection: &Connection) -> String {
    let (sent, received) =
        (units::bytes(connection.sent_bytes), units::bytes(connection.received_bytes));
    format!("{sent} sent, {received} received")
}

/// A line for each connection.
pub(in crate::cli) fn table(
    connections: &Connections,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let header = ["CONNECTION", "PORT", "FROM", "TO", "SENT", "RECEIVED", "STATE"];
    let rows = connections.told.iter().take(ROWS_MAX).map(|connection| {
        let (state, ink) =
            match (connection.error.as_str(), connection.client_closed, connection.server_closed) {
                ("", true, true) => ("closed".into(), Ink::Plain),
                ("", true, false) => ("closed by the client".into(), Ink::Plain),
                ("", false, true) => ("closed by the pod".into(), Ink::Plain),
                ("", false, false) => ("open at the end".into(), Ink::Plain),
                (error, ..) => (text::short(error, 120), Ink::Bad),
            };
        vec![
            (format!("#{}", connection.request), Ink::Strong),
            (connection.port.to_string(), Ink::Plain),
            (remarks::at(connection.opened_at_us), Ink::Plain),
            (remarks::at(connection.last_at_us), Ink::Plain),
            (units::bytes(connection.sent_bytes), Ink::Plain),
            (units::bytes(connection.received_bytes), Ink::Plain),
            (state, ink),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        screen.line("no connection was made")?;
        return Ok(());
    }
    screen.table(&header, rows)?;
    let told = connections.told.len().min(ROWS_MAX);
    let rest = connections.told.len() - told;
    let rest = connections.left_out + u64::try_from(rest).unwrap_or(u64::MAX);
    if rest > 0 {
        screen.line(&format!("… {rest} more; show --json names up to {CONNECTIONS_MAX}"))?;
    }
    Ok(())
}

/// More connections are counted, not listed.
const ROWS_MAX: usize = 200;

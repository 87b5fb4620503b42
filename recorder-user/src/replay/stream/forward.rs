//! The connections that a port-forward carried.

use std::collections::HashMap;

use serde::Serialize;

use super::frame::{FrameKind, StreamFrame};
use crate::{
    model::MicrosSince,
    wire::stream::{Channel, PortStream, Side},
};

/// Of one port-forward so many connections are told one by one; the others are counted.
pub const CONNECTIONS_MAX: usize = 10_000;

/// What the server says about a connection is kept up to here.
const ERROR_BYTES_MAX: usize = 1024;

/// One forwarded connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The client's number of it, or the index of the port.
    pub request: u32,
    /// The port in the pod.
    pub port: u16,
    /// When it was first heard of, since the request was received.
    pub opened_at_us: MicrosSince,
    /// When its last frame passed.
    pub last_at_us: MicrosSince,
    /// Bytes to the pod.
    pub sent_bytes: u64,
    /// Bytes from the pod.
    pub received_bytes: u64,
    /// Whether the client sends nothing more.
    pub client_closed: bool,
    /// Whether the pod sends nothing more.
    pub server_closed: bool,
    /// What the server said went wrong, or how a side gave up.
    pub error: String,
}

/// The connections of a port-forward, in the order in which they began.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// At most [`CONNECTIONS_MAX`].
    pub told: Vec<Connection>,
    /// How many are over the bound.
    pub left_out: u64,
    places: HashMap<PortStream, usize>,
    errors: HashMap<PortStream, Vec<u8>>,
}

impl Connections {
    /// Takes a frame; frames of other channels are passed over.
    pub fn push(&mut self, frame: &StreamFrame) {
        let (channel, bytes) = match &frame.kind {
            FrameKind::Data { channel, data } => {
                (*channel, u64::try_from(data.len()).unwrap_or(u64::MAX))
            }
            FrameKind::Opened(channel)
            | FrameKind::Closed(channel)
            | FrameKind::Reset { channel, .. } => (*channel, 0),
            _ => return,
        };
        let (Channel::Port(port) | Channel::PortError(port)) = channel else { return };
        let Some(place) = self.place(port, frame) else { return };
        let connection = &mut self.told[place];
        connection.last_at_us = connection.last_at_us.max(frame.at_us);
        match (&frame.kind, channel, frame.side) {
            (FrameKind::Data { .. }, Channel::Port(_), Side::Client) => {
                connection.sent_bytes += bytes;
            }
            (FrameKind::Data { .. }, Channel::Port(_), Side::Server) => {
                connection.received_bytes += bytes;
            }
            (FrameKind::Data { data, .. }, ..) => {
                let error = self.errors.entry(port).or_default();
                let room = ERROR_BYTES_MAX.saturating_sub(error.len()).min(data.len());
                error.extend_from_slice(&data[..room]);
                connection.error = String::from_utf8_lossy(error).into_owned();
            }
            (FrameKind::Closed(_), Channel::Port(_), Side::Client) => {
                connection.client_closed = true;
            }
            (FrameKind::Closed(_), Channel::Port(_), Side::Server) => {
                connection.server_closed = true;
            }
            (FrameKind::Reset { code, .. }, ..) if connection.error.is_empty() => {
                let who = if frame.side == Side::Client { "client" } else { "API server" };
                connection.error = format!("the {who} gave up (status {code})");
            }
            _ => {}
        }
    }

    /// A connection that is told.
    #[must_use]
    pub fn find(&self, port: PortStream) -> Option<&Connection> {
        self.told.get(*self.places.get(&port)?)
    }

    fn place(&mut self, port: PortStream, frame: &StreamFrame) -> Option<usize> {
        if let Some(place) = self.places.get(&port) {
            return Some(*place);
        }
        if self.told.len() == CONNECTIONS_MAX {
            // Each begins with one such frame where streams are opened; channels are never so many.
            let begins = matches!(frame.kind, FrameKind::Opened(Channel::Port(_)));
            self.left_out += u64::from(begins);
            return None;
        }
        self.told.push(Connection {
            request: port.request,
            port: port.port,
            opened_at_us: frame.at_us,
            last_at_us: frame.at_us,
            sent_bytes: 0,
            received_bytes: 0,
            client_closed: false,
            server_closed: false,
            error: String::new(),
        });
        self.places.insert(port, self.told.len() - 1);
        Some(self.told.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(at_us: MicrosSince, side: Side, kind: FrameKind) -> StreamFrame {
        StreamFrame { at_us, side, kind }
    }

    fn data(channel: Channel, data: &'static [u8]) -> FrameKind {
        FrameKind::Data { channel, data: Bytes::from_static(data) }
    }

    #[test]
    fn bytes_are_counted_by_connection_and_side() {
        let (one, two) = (PortStream { request: 0, port: 80 }, PortStream { request: 1, port: 80 });
        let mut found = Connections::default();
        for frame in [
            frame(1, Side::Client, FrameKind::Opened(Channel::PortError(one))),
            frame(2, Side::Client, FrameKind::Opened(Channel::Port(one))),
            frame(3, Side::Client, data(Channel::Port(one), b"GET")),
            frame(4, Side::Client, FrameKind::Opened(Channel::Port(two))),
            frame(5, Side::Server, data(Channel::Port(one), b"hello")),
            frame(6, Side::Server, FrameKind::Closed(Channel::Port(one))),
            frame(7, Side::Server, data(Channel::PortError(two), b"connection ")),
            frame(8, Side::Server, data(Channel::PortError(two), b"refused")),
            frame(9, Side::Server, data(Channel::Stdout, b"not of a port")),
        ] {
            found.push(&frame);
        }
        let [first, second] = found.told.as_slice() else { panic!("{found:?}") };
        assert_eq!((first.opened_at_us, first.last_at_us), (1, 6));
        assert_eq!((first.sent_bytes, first.received_bytes), (3, 5));
        assert_eq!((first.client_closed, first.server_closed), (false, true));
        assert_eq!((second.request, second.error.as_str()), (1, "connection refused"));
    }

    #[test]
    fn connections_over_the_bound_are_counted() {
        let mut found = Connections::default();
        let all = u32::try_from(CONNECTIONS_MAX).expect("fits") + 5;
        for request in 0..all {
            let port = Channel::Port(PortStream { request, port: 1 });
            found.push(&frame(1, Side::Client, FrameKind::Opened(port)));
            found.push(&frame(2, Side::Client, data(port, b"x")));
        }
        assert_eq!((found.told.len(), found.left_out), (CONNECTIONS_MAX, 5));
    }
}

//! What an upgrade's two heads agree on.

use super::event::{Agreement, Protocol, Transport};

/// What a request asks for, as far as its bytes are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// exec and attach.
    Command,
    /// port-forward.
    PortForward,
    /// Anything else, for example what is behind a proxy.
    Other,
}

/// What WebSocket subprotocols that carry port-forward's SPDY frames begin with.
const TUNNEL_PREFIX: &str = "SPDY/3.1+";

impl Agreement {
    /// Reads what the 101 says. `upgrade` is its `Upgrade` token; `subprotocol` is its
    /// `Sec-WebSocket-Protocol` or, of SPDY, its `X-Stream-Protocol-Version`; `ports` are those of the
    /// request's query, in order.
    ///
    /// Without a subprotocol the server speaks version 1, in binary. What it answers that nobody here
    /// knows is [`Protocol::Opaque`].
    #[must_use]
    pub fn of(asked: Asked, upgrade: &str, subprotocol: Option<&str>, ports: &[u16]) -> Self {
        let subprotocol = subprotocol.unwrap_or_default().trim();
        let transport = transport(upgrade.trim());
        let protocol = match (asked, transport) {
            (Asked::Command, Transport::Spdy) => command(subprotocol).filter(|(_, b64)| !b64),
            (Asked::Command, Transport::WebSocket) => command(subprotocol),
            _ => None,
        };
        let protocol = match (asked, transport) {
            (Asked::Command, _) => {
                protocol.map(|(version, base64)| Protocol::RemoteCommand { version, base64 })
            }
            (Asked::PortForward, Transport::Spdy) => {
                matches!(subprotocol, "" | "portforward.k8s.io").then_some(Protocol::PortForward)
            }
            (Asked::PortForward, Transport::WebSocket) => port_forward(subprotocol),
            _ => None,
        };
        Self { transport, protocol: protocol.unwrap_or(Protocol::Opaque), ports: ports.to_vec() }
    }
}

fn transport(upgrade: &str) -> Transport {
    if upgrade.eq_ignore_ascii_case("SPDY/3.1") {
        Transport::Spdy
    } else if upgrade.eq_ignore_ascii_case("websocket") {
        Transport::WebSocket
    } else {
        Transport::Other
    }
}

/// Version, and whether it is a base64 form.
fn command(subprotocol: &str) -> Option<(u8, bool)> {
    match subprotocol {
        "" | "channel.k8s.io" => Some((1, false)),
        "base64.channel.k8s.io" => Some((1, true)),
        "v2.channel.k8s.io" => Some((2, false)),
        "v3.channel.k8s.io" => Some((3, false)),
        "v4.channel.k8s.io" => Some((4, false)),
        "v4.base64.channel.k8s.io" => Some((4, true)),
        "v5.channel.k8s.io" => Some((5, false)),
        _ => None,
    }
}

fn port_forward(subprotocol: &str) -> Option<Protocol> {
    match subprotocol {
        "" | "v4.channel.k8s.io" => Some(Protocol::PortForwardChannels { base64: false }),
        "v4.base64.channel.k8s.io" => Some(Protocol::PortForwardChannels { base64: true }),
        "v2.portforward.k8s.io" => Some(Protocol::PortForwardTunnel),
        other => {
            let tunnelled = other.strip_prefix(TUNNEL_PREFIX)?;
            (tunnelled == "portforward.k8s.io").then_some(Protocol::PortForwardTunnel)
        }
    }
}

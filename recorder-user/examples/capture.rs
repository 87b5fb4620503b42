//! `cargo run -p recorder-user --example capture -- STORE EXCHANGE`: an upgraded exchange of a store as a
//! capture for `tests/captures`, without its `expected`, which only whoever typed and read can say.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use recorder_user::{
    model::{Direction, ExchangeId, Record, StreamKind},
    store::Reader,
};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let [store, exchange] = <[String; 2]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: capture STORE EXCHANGE")?;
    let capture = capture(Path::new(&store), exchange.parse()?)?;
    println!("{}", serde_json::to_string_pretty(&capture)?);
    Ok(())
}

fn capture(store: &Path, exchange: ExchangeId) -> Result<Value, Failure> {
    let mut capture = json!({"about": "", "expected": {}, "parts": []});
    let mut parts = Vec::new();
    for stored in Reader::open(store)?.records() {
        let record = stored?.record;
        if record.exchange() != Some(exchange) {
            continue;
        }
        match record {
            Record::ExchangeOpened(opened) => {
                let stream = opened.stream.as_ref().ok_or("no stream")?;
                capture["asked"] = json!(match stream.kind {
                    StreamKind::Exec | StreamKind::Attach => "command",
                    StreamKind::PortForward => "portForward",
                    StreamKind::Proxy | StreamKind::Other => "other",
                });
                let ports = Some(&stream.ports).filter(|ports| !ports.is_empty());
                capture["ports"] = json!(ports);
            }
            Record::ResponseStarted(started) => {
                let head = &started.head;
                let protocol = head.header("sec-websocket-protocol");
                let protocol = protocol.or_else(|| head.header("x-stream-protocol-version"));
                capture["upgrade"] = json!(head.header("upgrade"));
                capture["subprotocol"] = json!(protocol);
            }
            Record::Chunk(chunk) => {
                let side = match chunk.direction {
                    Direction::Request => "client",
                    Direction::Response => "server",
                };
                let base64 = BASE64_STANDARD.encode(&chunk.data);
                parts.push(json!({"side": side, "base64": base64}));
            }
            _ => {}
        }
    }
    capture["parts"] = Value::Array(parts);
    Ok(capture)
}

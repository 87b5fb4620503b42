//! An export plays in asciinema's player: others see what the recorded terminal showed, and nothing in a
//! recording reaches out of it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use recorder_user::model::{
    Chunk, Direction, ExchangeId, ExchangeOpened, ExchangeSettled, Principal, Record, RequestInfo,
    ResponseHead, ResponseStarted, StreamFacts, StreamKind, StreamRequest, Timestamp,
};
use recorder_user::store::{Need, Store, StoreOptions, system_clock};
use rig::player::Player;
use rig::recorder::Recorder;

use crate::runner::{Scenario, scenario};
use crate::scene::Scene;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario!("exports-play-in-a-browser", exports_play_in_a_browser, 900)]
}

/// A session on a terminal of 40 × 6 that becomes 50 × 8, with characters cut in two, and with what a
/// hostile program would send: a title, a clipboard, a link, a request for an answer, markup.
const OUTPUT: [(u64, &[u8]); 6] = [
    (20_000, b"$ kubectl version\r\n"),
    (300_000, b"\x1b[1;34mClient\x1b[0m: 1.36 \xe2\x9c"),
    (310_000, b"\x94\r\n"),
    (400_000, b"\x1b]0;evil\x07\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://evil.example/\x1b\\link\x1b]8;;\x1b\\\x1b[6n\r\n"),
    (900_000, b"<img src=http://evil.example/x onerror=alert(1)>\r\n"),
    (1_000_000, b" 10 %\r100 %\r\n$ "),
];

async fn exports_play_in_a_browser(scene: Rc<Scene>) -> Result<()> {
    let player = tokio::task::spawn_blocking(Player::install).await??;
    let directory = scene.directory().join("recording");
    let exchange = record(&directory).await?.to_string();
    let recorder = Recorder::over(&directory)?;
    for format in ["asciicast-v2", "asciicast-v3"] {
        let cast = scene.directory().join(format!("{format}.cast"));
        let output = cast.to_str().context("a path in UTF-8")?;
        let exported =
            recorder.run(&["export", &exchange, "--format", format, "--output", output]).await?;
        ensure!(exported.success() && exported.stderr.is_empty(), "{}", exported.stderr);
        let played = player.play(&cast, &screenshot(&scene, format)).await?;
        let lines: Vec<_> = played.lines.iter().map(|line| line.trim_end()).collect();
        let expected = [
            "$ kubectl version",
            "Client: 1.36 ✔",
            "link",
            "<img src=http://evil.example/x onerror=alert(1)>",
            "100 %",
            "$",
            "",
            "",
        ];
        ensure!(lines == expected, "{format}: {lines:?}");
        ensure!(played.problems.is_empty(), "{format}: {:?}", played.problems);
        ensure!(played.links.is_empty(), "{format} links to {:?}", played.links);
        ensure!(played.title == "player", "{format} set the title {:?}", played.title);
    }
    Ok(())
}

/// Where a picture is left: with the scenario's other files, kept by `--keep`.
fn screenshot(scene: &Scene, format: &str) -> PathBuf {
    scene.directory().join(format!("{format}.png"))
}

/// A store with one exec in it, as the gateway records it.
async fn record(directory: &Path) -> Result<ExchangeId> {
    let options = StoreOptions::new(directory.to_owned());
    let (store, _) = Store::open(options, system_clock())?;
    let (exchange, time) = (ExchangeId::new(), Timestamp::now());
    let request = StreamRequest {
        kind: StreamKind::Exec,
        container: Some("app".into()),
        command: vec!["bash".into()],
        stdin: true,
        stdout: true,
        stderr: false,
        tty: true,
        ports: Vec::new(),
    };
    let headers = vec![
        ("upgrade".into(), "websocket".into()),
        ("sec-websocket-protocol".into(), "v5.channel.k8s.io".into()),
    ];
    let mut records = vec![
        Record::ExchangeOpened(Box::new(ExchangeOpened {
            exchange,
            time,
            cluster: "rig".into(),
            principal: Some(Arc::new(Principal {
                username: "alice".into(),
                ..Principal::default()
            })),
            request: Some(RequestInfo {
                verb: "create".into(),
                resource: "pods".into(),
                subresource: "exec".into(),
                namespace: "shop".into(),
                name: "web-0".into(),
                ..RequestInfo::default()
            }),
            stream: Some(request),
            ..ExchangeOpened::default()
        })),
        Record::ResponseStarted(ResponseStarted {
            exchange,
            at_us: 10_000,
            head: ResponseHead { status: 101, headers },
        }),
    ];
    let sizes = [(10_000, 40, 6), (500_000, 50, 8)].map(|(at_us, columns, rows)| {
        let size = format!(r#"{{"Width":{columns},"Height":{rows}}}"#);
        (at_us, Direction::Request, message(4, size.as_bytes(), true))
    });
    let output = OUTPUT.map(|(at_us, data)| (at_us, Direction::Response, message(1, data, false)));
    let mut parts: Vec<_> = sizes.into_iter().chain(output).collect();
    parts.sort_by_key(|part| part.0);
    let (mut sent, mut received) = (0, 0);
    for (at_us, direction, data) in parts {
        let offset = if direction == Direction::Request { &mut sent } else { &mut received };
        let (at, length) = (*offset, data.len() as u64);
        *offset += length;
        let data = Bytes::from(data);
        records.push(Record::Chunk(Chunk { exchange, direction, at_us, offset: at, data }));
    }
    records.push(Record::ExchangeSettled(Box::new(ExchangeSettled {
        exchange,
        time: time.plus_micros(1_100_000),
        status: 101,
        stream: Some(StreamFacts { exit_code: Some(0), ..StreamFacts::default() }),
        ..ExchangeSettled::default()
    })));
    store.recorder().append_all(records, Need::Durable).await?;
    store.close().await?;
    Ok(exchange)
}

/// A binary WebSocket message (RFC 6455 §5.2) of at most 125 bytes.
fn message(channel: u8, data: &[u8], masked: bool) -> Vec<u8> {
    let length = u8::try_from(data.len() + 1).expect("short");
    let flag = if masked { 0x80 } else { 0 };
    let mut frame = vec![0x82, flag | length];
    // A key of zeros is a key.
    frame.extend(std::iter::repeat_n(0, if masked { 4 } else { 0 }));
    frame.push(channel);
    frame.extend_from_slice(data);
    frame
}

//! What `show` tells of the kernel's evidence: spans, where a response ended, where time went, what was not seen.

mod cli_support;

use cli_support::{Fixture, Made, alice, exchange, opened, recorder, witness};
use recorder_user::model::{
    AccountState, ConnectionClosed, Direction, ExchangeEnd, ExchangeSettled, ExchangeSpan, Gap,
    GapStep, GatewayStarted, Record, SocketEvidence, Spent, Tier, Timestamp, WitnessChanged,
    WitnessEvent,
};
use serde_json::json;
use tempfile::TempDir;

const COOKIE: u64 = 77;

fn at(us: i64) -> Option<Timestamp> {
    Some(Timestamp::from_micros(1_790_000_000_000_000 + us))
}

fn span() -> ExchangeSpan {
    ExchangeSpan {
        in_from: 600,
        in_to: 900,
        out_from: 1_200,
        out_to: 1_200,
        first_in: at(0),
        last_in: at(2_000),
        queue_us: Some(40),
        retransmits: 2,
        rtt_us: Some(300),
        ..ExchangeSpan::default()
    }
}

/// One exchange of which all is known, on a connection that is closed later.
fn store(change: impl FnOnce(&mut ExchangeSettled)) -> TempDir {
    let mut made = Made::new(1, 0, "kubectl get", "get", "/version").settled(|settled| {
        settled.spent_us =
            Some(Spent { queue: Some(40), client: 0, upstream: 9_000, gateway: 1_500 });
        settled.account.kernel_verified = true;
        settled.account.client = Some(SocketEvidence {
            cookie: COOKIE,
            kernel_in_bytes: Some(900),
            kernel_out_bytes: Some(1_200),
            gateway_in_bytes: 900,
            gateway_out_bytes: 1_200,
            span: Some(span()),
            ..SocketEvidence::default()
        });
        change(settled);
    });
    made.opened.client_cookie = COOKIE;
    let fixture = Fixture::new();
    fixture.append(vec![opened(1, alice(), None)]);
    fixture.append(made.into_records());
    let closed = |cookie, exchange| {
        Record::ConnectionClosed(Box::new(ConnectionClosed {
            time: Timestamp::from_micros(1_790_000_001_000_000),
            role: "client".into(),
            peer: "192.0.2.7:4711".into(),
            evidence: SocketEvidence { cookie, ..SocketEvidence::default() },
            account: Default::default(),
            exchanges: 1,
            sessions: vec![],
            ends: vec![ExchangeEnd { exchange, out_to: 1_800, last_out: at(11_000) }],
        }))
    };
    fixture.append(vec![closed(1, exchange(9)), closed(COOKIE, exchange(1))]);
    fixture.close()
}

fn facts(store: &TempDir) -> String {
    let ran = recorder(store.path(), &["show", "ec01"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let facts = ran.out.split("\n\n").next().expect("facts come first");
    let begin = facts.find("took").expect("it took some time");
    facts[begin..].to_owned()
}

#[test]
fn show_tells_spans_and_where_time_went() {
    let store = store(|_| ());
    assert_eq!(
        facts(&store),
        "\
took       12.3 ms (identify 10 µs, authorize 20 µs, open 300 µs, upstream 9.0 ms)
spent      kernel queue 40 µs, client 0 µs, gateway 1.5 ms, API server 9.0 ms
audit id   audit-1
account    kernel-verified
           client socket 77: kernel 900 B in, 1200 B out; gateway 900 B in, 1200 B out; plaintext 0 B in, 0 B out
             300 B in at 600..900 (2026-09-21T14:13:20.000000Z for 2.0 ms), 0 B out at 1200..1200
             response over at 1800 B out, last byte 2026-09-21T14:13:20.011000Z
             round trip 300 µs, in the kernel's queue 40 µs, 2 segments sent again"
    );
    let shown = recorder(store.path(), &["show", "ec01", "--json"]).objects().remove(0);
    assert_eq!(shown["responseEnd"]["outTo"], 1_800);
    assert_eq!(
        shown["spentUs"],
        json!({"queue": 40, "client": 0, "upstream": 9_000, "gateway": 1_500})
    );
    assert_eq!(shown["evidence"]["client"]["span"]["retransmits"], 2);
    assert_eq!(shown["account"]["kernelVerified"], true);
}

#[test]
fn show_tells_what_is_shared_and_what_was_not_seen() {
    let store = store(|settled| {
        let account = &mut settled.account;
        (account.state, account.kernel_verified) = (AccountState::Unwitnessed, false);
        account.reason = Some("the witness was blind (detached): why".into());
        account.unseen = vec![Gap {
            step: GapStep::Kernel,
            direction: Direction::Request,
            bytes: 300,
            from: 600,
            to: 900,
            cookie: Some(COOKIE),
            tcp: false,
        }];
        account.unseen_bytes = 300;
        let span = account.client.as_mut().and_then(|client| client.span.as_mut());
        let span = span.expect("a span");
        (span.interleaved, span.inexact) = (true, true);
        settled.spent_us.as_mut().expect("times").queue = None;
    });
    let facts = facts(&store);
    for line in [
        "spent      kernel queue not known, client 0 µs,",
        "account    unwitnessed",
        "the witness was blind (detached): why",
        "out at 1200..1200, shared with other exchanges, taken during a call",
        "not seen, request: 300 B at 600..900",
    ] {
        assert!(facts.contains(line), "{line:?} is not in\n{facts}");
    }
}

#[test]
fn a_session_shows_what_its_exchanges_add_up_to() {
    let store = store(|settled| settled.response.bytes = 2_048);
    let ran = recorder(store.path(), &["show", "a501"]);
    for line in [
        "totals  1 outcomes: 1 complete (1 kernel-verified), 0 with gaps, 0 unwitnessed",
        "bytes   bodies 0 B in, 2.0 KiB out; kernel 300 B in, 0 B out until each outcome",
    ] {
        assert!(ran.out.contains(line), "{line:?} is not in\n{}", ran.out);
    }
    let session = recorder(store.path(), &["ls", "--json"]).objects().remove(0);
    assert_eq!(session["account"]["kernelVerified"], true, "{session}");
    assert_eq!(session["totals"]["clientInBytes"], 300, "{session}");
}

#[test]
fn witness_tells_what_became_of_it() {
    let store = Fixture::new();
    let gateway = store.store.gateway_id();
    let time = Timestamp::from_micros(1_790_000_000_000_000);
    let changed = |after_us, event, blind, detail: &str| {
        let (time, detail) = (time.plus_micros(after_us), detail.to_owned());
        Record::WitnessChanged(WitnessChanged {
            time,
            event,
            tier: Tier::T1,
            blind,
            uncounted: false,
            lost: 0,
            detail,
        })
    };
    let cut = "the program on sock_send_length is cut off";
    store.append(vec![
        changed(-1, WitnessEvent::Overflow, false, "of the run before"),
        Record::GatewayStarted(GatewayStarted {
            gateway,
            time,
            version: "0.1.0".into(),
            witness: witness(),
            clusters: vec![],
            policy_set: String::new(),
        }),
        changed(1_000_000, WitnessEvent::Detached, true, cut),
        changed(2_000_000, WitnessEvent::Recovered, false, "over"),
    ]);
    let store = store.close();
    let ran = recorder(store.path(), &["witness"]);
    let table = ran.out.split("CHANGED").nth(1).expect("changes");
    assert!(table.contains(&format!("2026-09-21 14:13:21  detached   no    {cut}")), "{}", ran.out);
    assert!(table.contains("2026-09-21 14:13:22  recovered  yes   over"), "{}", ran.out);
    assert!(!ran.out.contains("run before"), "{}", ran.out);
    let shown = recorder(store.path(), &["witness", "--json"]).objects().remove(0);
    assert_eq!(shown["changes"][0]["event"], "detached", "{shown}");
    assert_eq!(
        (&shown["changes"][0]["blind"], &shown["witness"]["tier"]),
        (&json!(true), &json!("T1"))
    );
}

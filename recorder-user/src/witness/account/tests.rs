use super::*;

fn capability(tier: Tier) -> CapabilityRecord {
    CapabilityRecord {
        tier,
        kernel: "6.18.0".to_owned(),
        hooks: vec![],
        self_test: true,
        reason: None,
    }
}

fn socket(cookie: u64, inbound: u64, outbound: u64) -> SocketEvidence {
    SocketEvidence {
        cookie,
        gateway_in_bytes: inbound,
        gateway_out_bytes: outbound,
        kernel_in_bytes: Some(inbound),
        kernel_out_bytes: Some(outbound),
        plain_in_bytes: inbound - 100,
        plain_out_bytes: outbound - 100,
        http_in_bytes: Some(inbound - 100),
        http_out_bytes: Some(outbound - 100),
        ..SocketEvidence::default()
    }
}

fn body(bytes: u64) -> BodyFacts {
    BodyFacts { bytes, recorded_bytes: bytes, ended: true, ..BodyFacts::default() }
}

struct Exchange {
    client: SocketEvidence,
    upstream: SocketEvidence,
    request: BodyFacts,
    response: BodyFacts,
}

impl Exchange {
    fn sound() -> Self {
        Self {
            client: socket(11, 1_000, 9_000),
            upstream: socket(22, 9_500, 1_400),
            request: body(600),
            response: body(8_000),
        }
    }

    fn account(&self, tier: Tier) -> Account {
        let bodies = [&self.request, &self.response];
        account_exchange(Some(&self.client), Some(&self.upstream), bodies, &capability(tier))
    }
}

#[test]
fn equal_counts_are_complete_in_every_tier() {
    for tier in [Tier::T1, Tier::T2, Tier::T3, Tier::T4, Tier::T5] {
        let exchange = Exchange::sound();
        let account = exchange.account(tier);
        assert_eq!(account.state, AccountState::Complete, "{tier:?}: {account:?}");
        assert_eq!((account.gap_bytes, account.reason), (0, None));
        assert_eq!(account.client, Some(exchange.client));
        assert_eq!(account.upstream, Some(exchange.upstream));
    }
}

/// Every counter that can lose bytes, with the gap that the loss must show as.
#[test]
fn a_loss_in_each_step_and_direction_is_a_gap_of_that_size() {
    use Direction::{Request, Response};
    use GapStep::{Body, Kernel, Plaintext};
    type Injection = (&'static str, fn(&mut Exchange), GapStep, Direction, Option<u64>);
    let injections: [Injection; 12] = [
        ("client read", |e| e.client.gateway_in_bytes -= 7, Kernel, Request, Some(11)),
        ("client write", |e| e.client.gateway_out_bytes -= 7, Kernel, Response, Some(11)),
        ("upstream read", |e| e.upstream.gateway_in_bytes -= 7, Kernel, Response, Some(22)),
        ("upstream write", |e| e.upstream.gateway_out_bytes -= 7, Kernel, Request, Some(22)),
        ("behind our back", |e| add(&mut e.upstream.kernel_out_bytes), Kernel, Request, Some(22)),
        ("never sent", |e| e.client.gateway_out_bytes += 7, Kernel, Response, Some(11)),
        ("client plain in", |e| add(&mut e.client.http_in_bytes), Plaintext, Request, Some(11)),
        ("client plain out", |e| e.client.plain_out_bytes -= 7, Plaintext, Response, Some(11)),
        ("upstream plain in", |e| e.upstream.plain_in_bytes -= 7, Plaintext, Response, Some(22)),
        (
            "upstream plain out",
            |e| add(&mut e.upstream.http_out_bytes),
            Plaintext,
            Request,
            Some(22),
        ),
        ("request body", |e| e.request.recorded_bytes -= 7, Body, Request, None),
        ("response body", |e| e.response.recorded_bytes -= 7, Body, Response, None),
    ];
    for (what, inject, step, direction, cookie) in injections {
        let mut exchange = Exchange::sound();
        inject(&mut exchange);
        let account = exchange.account(Tier::T1);
        assert_eq!(account.state, AccountState::Gap, "{what}");
        assert_eq!(account.gap_bytes, 7, "{what}");
        let [gap] = &account.gaps[..] else { panic!("{what}: {:?}", account.gaps) };
        assert_eq!((gap.step, gap.direction, gap.cookie), (step, direction, cookie), "{what}");
        assert_eq!((gap.bytes, gap.to - gap.from), (7, 7), "{what}");
    }
}

fn add(count: &mut Option<u64>) {
    *count = count.map(|bytes| bytes + 7);
}

#[test]
fn a_gap_is_located_after_the_bytes_that_agree() {
    let mut exchange = Exchange::sound();
    exchange.response.recorded_bytes = 5_000;
    let account = exchange.account(Tier::T1);
    assert_eq!((account.gaps[0].from, account.gaps[0].to), (5_000, 8_000));
}

#[test]
fn bytes_from_nowhere_are_a_gap_even_where_http_is_not_counted_apart() {
    let mut exchange = Exchange::sound();
    for socket in [&mut exchange.client, &mut exchange.upstream] {
        (socket.http_in_bytes, socket.http_out_bytes) = (None, None);
    }
    assert_eq!(exchange.account(Tier::T1).state, AccountState::Complete);

    // More plaintext than ciphertext.
    exchange.client.plain_in_bytes = 1_003;
    let account = exchange.account(Tier::T1);
    assert_eq!((account.gap_bytes, account.gaps[0].step), (3, GapStep::Plaintext));

    // More body than plaintext: 900 came in through the client's TLS.
    exchange.client.plain_in_bytes = 900;
    exchange.request = body(905);
    let account = exchange.account(Tier::T1);
    assert_eq!((account.gap_bytes, account.gaps[0].direction), (5, Direction::Request));
}

#[test]
fn only_tcp_info_is_allowed_the_byte_of_a_fin_and_only_inbound() {
    let with_fin = SocketEvidence { kernel_in_bytes: Some(1_001), ..socket(11, 1_000, 9_000) };
    let compare =
        |evidence, tier| compare_socket(Role::Client, evidence, &capability(tier)).gap_bytes;
    assert_eq!(compare(&with_fin, Tier::T5), 0);
    assert_eq!(compare(&with_fin, Tier::T1), 1);
    let two = SocketEvidence { kernel_in_bytes: Some(1_002), ..with_fin.clone() };
    assert_eq!(compare(&two, Tier::T5), 2);
    let fewer = SocketEvidence { kernel_in_bytes: Some(999), ..with_fin.clone() };
    assert_eq!(compare(&fewer, Tier::T5), 1);
    let out = SocketEvidence { kernel_out_bytes: Some(9_001), ..socket(11, 1_000, 9_000) };
    assert_eq!(compare(&out, Tier::T5), 1);
}

#[test]
fn what_was_not_seen_is_unwitnessed_with_the_reason() {
    let exchange = Exchange::sound();
    let off = CapabilityRecord {
        reason: Some("switched off".to_owned()),
        self_test: false,
        ..capability(Tier::Off)
    };
    let account = compare_socket(Role::Client, &exchange.client, &off);
    assert_eq!(account.state, AccountState::Unwitnessed);
    assert_eq!(account.reason.as_deref(), Some("switched off"));

    let untested = CapabilityRecord { self_test: false, ..capability(Tier::T1) };
    let account = compare_socket(Role::Client, &exchange.client, &untested);
    assert_eq!(account.state, AccountState::Unwitnessed);

    let unseen = SocketEvidence { kernel_in_bytes: None, ..exchange.upstream.clone() };
    let account = compare_socket(Role::Upstream, &unseen, &capability(Tier::T1));
    assert_eq!(account.reason.as_deref(), Some("the upstream's socket is not witnessed"));

    let bodies = [&exchange.request, &exchange.response];
    let account = account_exchange(None, None, bodies, &capability(Tier::T1));
    assert_eq!(account.state, AccountState::Unwitnessed);
}

#[test]
fn a_gap_is_told_even_when_the_kernel_is_silent() {
    let mut exchange = Exchange::sound();
    exchange.client.kernel_in_bytes = None;
    exchange.request.recorded_bytes = 0;
    let account = exchange.account(Tier::T1);
    assert_eq!((account.state, account.gap_bytes), (AccountState::Gap, 600));
    assert!(account.reason.is_some());
}

#[test]
fn an_exchange_that_the_gateway_answered_needs_no_upstream() {
    let Exchange { client, request, response, .. } = Exchange::sound();
    let bodies = [&request, &response];
    let account = account_exchange(Some(&client), None, bodies, &capability(Tier::T1));
    assert_eq!(account.state, AccountState::Complete);
}

#[test]
fn lost_notices_are_told_and_harm_no_total() {
    let mut exchange = Exchange::sound();
    exchange.client.lost_events = 3;
    let account = exchange.account(Tier::T1);
    assert_eq!(account.state, AccountState::Complete);
    assert!(account.reason.is_some_and(|reason| reason.starts_with("3 kernel notices")));
}

#[test]
fn gaps_are_bounded_and_their_sum_is_not() {
    let mut exchange = Exchange::sound();
    for socket in [&mut exchange.client, &mut exchange.upstream] {
        socket.kernel_in_bytes = Some(socket.gateway_in_bytes + 10);
        socket.kernel_out_bytes = Some(socket.gateway_out_bytes + 10);
        socket.http_in_bytes = Some(socket.plain_in_bytes + 10);
        socket.http_out_bytes = Some(socket.plain_out_bytes + 10);
    }
    exchange.request.recorded_bytes -= 10;
    exchange.response.recorded_bytes -= 10;
    let account = exchange.account(Tier::T1);
    assert_eq!(account.gaps.len(), GAPS_MAX);
    assert_eq!(account.gap_bytes, 100);

    exchange.request.recorded_bytes = 0;
    exchange.request.bytes = u64::MAX;
    assert_eq!(exchange.account(Tier::T1).gap_bytes, u64::MAX, "saturates");
}

/// The hooks' count and TCP's own, when the connection closes.
#[test]
fn three_counts_agree_or_the_one_that_does_not_is_named() {
    let closed = SocketEvidence {
        tcp_in_bytes: Some(1_000),
        tcp_out_bytes: Some(9_000),
        ..socket(11, 1_000, 9_000)
    };
    let compare = |change: fn(&mut SocketEvidence)| {
        let mut evidence = closed.clone();
        change(&mut evidence);
        let account = compare_socket(Role::Client, &evidence, &capability(Tier::T1));
        account.gaps.iter().map(|gap| (gap.bytes, gap.tcp)).collect::<Vec<_>>()
    };
    assert_eq!(compare(|_| ()), []);
    assert_eq!(compare(|e| e.tcp_in_bytes = Some(1_001)), [], "a FIN");
    assert_eq!(compare(|e| e.tcp_out_bytes = Some(9_001)), [(1, true)], "we count no FIN of ours");
    assert_eq!(compare(|e| e.tcp_in_bytes = Some(1_007)), [(7, true)], "spliced out of the socket");
    assert_eq!(
        compare(|e| e.kernel_out_bytes = Some(8_990)),
        [(10, false)],
        "a hook missed a call"
    );
    let stolen = |e: &mut SocketEvidence| {
        e.kernel_in_bytes = Some(1_100);
        e.tcp_in_bytes = Some(1_101);
    };
    assert_eq!(
        compare(stolen),
        [(100, false)],
        "both say the same, and there was a FIN: told once"
    );
}

#[test]
fn what_a_blind_witness_missed_is_located_and_is_neither_complete_nor_a_gap() {
    let capability = capability(Tier::T1);
    let view = View { disturbed: true, blind: Some("the probe was lost"), ..(&capability).into() };
    let evidence = SocketEvidence {
        kernel_in_bytes: Some(400),
        tcp_in_bytes: Some(1_000),
        ..socket(11, 1_000, 9_000)
    };
    let account = compare_socket(Role::Client, &evidence, view);
    assert_eq!(account.state, AccountState::Unwitnessed);
    assert_eq!(account.reason.as_deref(), Some("the probe was lost"));
    let [unseen] = &account.unseen[..] else { panic!("{account:?}") };
    assert_eq!((unseen.direction, unseen.from, unseen.to), (Direction::Request, 400, 1_000));
    assert_eq!((account.unseen_bytes, account.gap_bytes), (600, 0));

    // A socket of which nothing was ever seen.
    let never = SocketEvidence { kernel_in_bytes: None, ..evidence.clone() };
    let account = compare_socket(Role::Client, &never, view);
    assert_eq!((account.state, account.unseen_bytes), (AccountState::Unwitnessed, 10_000));

    // What the kernel saw and we did not is a gap, however short-sighted it was.
    let more = SocketEvidence { kernel_out_bytes: Some(9_010), ..evidence };
    let account = compare_socket(Role::Client, &more, view);
    assert_eq!((account.state, account.gap_bytes), (AccountState::Gap, 10));
}

#[test]
fn only_an_undisturbed_complete_account_of_programs_is_kernel_verified() {
    let exchange = Exchange::sound();
    let verified = |exchange: &Exchange, tier, disturbed| {
        let capability = capability(tier);
        let view = View { disturbed, ..(&capability).into() };
        let bodies = [&exchange.request, &exchange.response];
        account_exchange(Some(&exchange.client), Some(&exchange.upstream), bodies, view)
            .kernel_verified
    };
    assert!(verified(&exchange, Tier::T1, false) && verified(&exchange, Tier::T4, false));
    assert!(!verified(&exchange, Tier::T5, false), "the gateway asked for these numbers itself");
    assert!(!verified(&exchange, Tier::T1, true));
    let untested = CapabilityRecord { self_test: false, ..capability(Tier::T1) };
    assert!(!compare_socket(Role::Client, &exchange.client, &untested).kernel_verified);
    let mut gap = Exchange::sound();
    gap.response.recorded_bytes -= 1;
    assert!(!verified(&gap, Tier::T1, false));
}

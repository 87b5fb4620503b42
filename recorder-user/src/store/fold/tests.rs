use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    model::{
        Command, Direction, Gap, GapStep, ObjectChange, Principal, Refusal, RequestHead,
        RequestInfo, SegmentId, SessionKey, StreamKind, StreamRequest, Verdict,
    },
    store::{memory::MemoryRows, rows::ROW_BYTES_MAX},
};

use super::*;

fn at(offset: u64) -> Position {
    Position { segment: SegmentId::from_bytes([0xff; 16]), offset }
}

fn opened_session(session: SessionId, text: &str) -> Record {
    let groups = vec![text.to_owned(); 40];
    let text = || text.to_owned();
    Record::SessionOpened(SessionOpened {
        session,
        time: Timestamp::EPOCH,
        key: SessionKey { issuer: text(), subject: text(), cluster: text(), task: Some(text()) },
        principal: Principal {
            issuer: text(),
            subject: text(),
            username: text(),
            groups,
            ..Principal::default()
        },
        kind: crate::model::SessionKind::Api,
    })
}

fn opened(session: SessionId, exchange: ExchangeId) -> ExchangeOpened {
    ExchangeOpened { exchange, session: Some(session), ..ExchangeOpened::default() }
}

fn settled(session: SessionId, exchange: ExchangeId, account: Account) -> Record {
    let session = Some(session);
    Record::ExchangeSettled(Box::new(ExchangeSettled {
        exchange,
        session,
        account,
        ..ExchangeSettled::default()
    }))
}

fn account(state: AccountState, gap_bytes: u64) -> Account {
    let reason = Some(format!("{} {gap_bytes}", state.as_str()));
    Account { state, gap_bytes, reason, ..Account::default() }
}

fn folded(records: &[Record]) -> MemoryRows {
    let (mut rows, mut fold) = (MemoryRows::default(), Fold::default());
    for (i, record) in records.iter().enumerate() {
        fold.apply(&mut rows, at(i as u64), record);
    }
    rows
}

#[test]
fn the_worst_account_and_the_first_reason_stay() {
    use AccountState::{Complete, Gap, Unwitnessed};
    let check = |accounts: &[Account], state, gap_bytes, reason: &str| {
        let session = SessionId::new();
        let mut records = vec![opened_session(session, "x")];
        for account in accounts {
            let exchange = ExchangeId::new();
            records.push(Record::ExchangeOpened(Box::new(opened(session, exchange))));
            records.push(settled(session, exchange, account.clone()));
        }
        let row = folded(&records).sessions[&session].view.account.clone();
        assert_eq!((row.state, row.gap_bytes), (state, gap_bytes), "{accounts:?}");
        assert_eq!(row.reason.as_deref(), Some(reason), "{accounts:?}");
    };
    check(&[], Unwitnessed, 0, "nothing was accounted for yet");
    check(&[account(Complete, 0)], Complete, 0, "complete 0");
    check(&[account(Complete, 0), account(Unwitnessed, 1)], Unwitnessed, 1, "unwitnessed 1");
    check(&[account(Gap, 5), account(Unwitnessed, 0), account(Gap, 7)], Gap, 12, "gap 5");
}

#[test]
fn a_session_is_kernel_verified_when_all_of_it_is() {
    let verified = || Account { kernel_verified: true, ..account(AccountState::Complete, 0) };
    let check = |accounts: &[Account], expected| {
        let session = SessionId::new();
        let mut records = vec![opened_session(session, "x")];
        for account in accounts {
            let exchange = ExchangeId::new();
            records.push(Record::ExchangeOpened(Box::new(opened(session, exchange))));
            records.push(settled(session, exchange, account.clone()));
        }
        let view = folded(&records).sessions[&session].view.clone();
        assert_eq!(view.account.kernel_verified, expected, "{accounts:?}");
        let sums = view.totals;
        assert_eq!(sums.complete + sums.gaps + sums.unwitnessed, accounts.len() as u64);
        assert_eq!(sums.gap_bytes, accounts.iter().map(|account| account.gap_bytes).sum::<u64>());
        assert_eq!(sums.account().kernel_verified, expected);
    };
    check(&[], false);
    check(&[verified(), verified()], true);
    check(&[verified(), account(AccountState::Complete, 0)], false);
    check(&[account(AccountState::Gap, 5), verified()], false);
}

#[test]
fn a_gap_that_an_exchange_and_its_connection_see_counts_once() {
    let (session, exchange) = (SessionId::new(), ExchangeId::new());
    let gaps = vec![Gap {
        step: GapStep::Kernel,
        direction: Direction::Response,
        bytes: 5,
        from: 0,
        to: 5,
        cookie: None,
        tcp: false,
    }];
    let gap = Account { gaps, ..account(AccountState::Gap, 5) };
    let rows = folded(&[
        opened_session(session, "x"),
        Record::ExchangeOpened(Box::new(opened(session, exchange))),
        settled(session, exchange, gap.clone()),
        Record::ConnectionClosed(Box::new(ConnectionClosed {
            time: Timestamp::EPOCH,
            role: "client".into(),
            peer: String::new(),
            evidence: crate::model::SocketEvidence::default(),
            account: gap,
            exchanges: 1,
            sessions: vec![session, SessionId::new()],
            ends: Vec::new(),
        })),
    ]);
    assert_eq!(rows.sessions[&session].view.account.gap_bytes, 5);
}

#[test]
fn refused_exchanges_are_settled_at_once() {
    for (phase, verdict) in [("attribute", Some(Decision::Deny)), ("identify", None)] {
        let (session, exchange) = (SessionId::new(), ExchangeId::new());
        let refusal = Refusal {
            phase: phase.into(),
            status: 403,
            reason: "Forbidden".into(),
            message: "no".into(),
        };
        let opened = ExchangeOpened { refusal: Some(refusal), ..opened(session, exchange) };
        let rows = folded(&[
            opened_session(session, "x"),
            Record::ExchangeOpened(Box::new(opened)),
            settled(session, exchange, account(AccountState::Complete, 0)),
        ]);
        let view = &rows.sessions[&session].view;
        assert_eq!((view.exchanges, view.denied), (1, u64::from(verdict.is_some())), "{phase}");
        assert_eq!(view.account.state, AccountState::Complete, "its outcome may follow");
        assert_eq!(rows.exchanges[&exchange].verdict, verdict, "{phase}");
    }
}

#[test]
fn a_record_that_comes_twice_counts_once() {
    let (session, exchange) = (SessionId::new(), ExchangeId::new());
    let records = [
        opened_session(session, "x"),
        Record::ExchangeOpened(Box::new(opened(session, exchange))),
        settled(session, exchange, account(AccountState::Gap, 5)),
    ];
    let once = folded(&records);
    let (mut rows, mut fold) = (MemoryRows::default(), Fold::default());
    for record in &records {
        for offset in [0, 1] {
            fold.apply(&mut rows, at(offset), record);
        }
    }
    let (a, b) = (&once.sessions[&session], &rows.sessions[&session]);
    assert_eq!((a.view.exchanges, &a.view.account), (b.view.exchanges, &b.view.account));
}

#[test]
fn the_first_reason_stays_and_a_session_may_go_on() {
    let session = SessionId::new();
    let changed = |state, ended| {
        let time = Timestamp::EPOCH;
        Record::SessionChanged(SessionChanged {
            session,
            time,
            state,
            ended,
            by: None,
            why: None,
            account: None,
        })
    };
    let ended = Some(Timestamp::from_micros(9));
    let rows = folded(&[
        opened_session(session, "x"),
        changed(SessionState::Incomplete(IncompleteReason::ClientLost), None),
        changed(SessionState::Incomplete(IncompleteReason::TokenExpired), None),
        changed(SessionState::Ended, ended),
    ]);
    let view = &rows.sessions[&session].view;
    assert_eq!(view.session_state(), SessionState::Incomplete(IncompleteReason::ClientLost));
    assert_eq!(view.ended, ended);
}

fn bypassed(session: SessionId) -> Record {
    let Record::SessionOpened(opened) = opened_session(session, "") else { unreachable!() };
    Record::SessionOpened(SessionOpened { kind: SessionKind::Bypass, ..opened })
}

fn seen_as(session: SessionId, relation: Relation, sent: u64, again: bool) -> Record {
    Record::ConnectionSeen(Box::new(ConnectionSeen {
        session,
        relation,
        again,
        time: Timestamp::from_micros(9),
        sent_bytes: Some(sent),
        connections: 1,
        ..ConnectionSeen::default()
    }))
}

#[test]
fn what_went_round_the_gateway_shows_what_was_last_seen_of_it() {
    let session = SessionId::new();
    let records = [
        bypassed(session),
        seen_as(session, Relation::Direct, 1, false),
        seen_as(session, Relation::Direct, 2, true),
    ];
    let view = &folded(&records).sessions[&session].view;
    assert_eq!((view.kind, view.exchanges), (SessionKind::Bypass, 0));
    assert_eq!(view.seen.as_ref().and_then(|seen| seen.sent_bytes), Some(2));
    assert_eq!((view.seen_last, view.last_activity), (Some(at(2)), Timestamp::from_micros(9)));
}

#[test]
fn a_session_shows_its_first_client_and_counts_the_rest() {
    let session = SessionId::new();
    let records = [
        opened_session(session, "x"),
        seen_as(session, Relation::Client, 1, false),
        seen_as(session, Relation::Client, 2, false),
        seen_as(session, Relation::Egress, 3, false),
        seen_as(session, Relation::Egress, 4, true),
        seen_as(SessionId::new(), Relation::Client, 5, false),
    ];
    let view = &folded(&records).sessions[&session].view;
    assert_eq!(view.seen.as_ref().and_then(|seen| seen.sent_bytes), Some(1));
    assert_eq!((view.clients, view.other_connections), (2, 1));
}

proptest! {
    /// Whatever a node's processes and pods are called, their rows fit.
    #[test]
    fn no_name_makes_a_session_too_large(
        unit in "[a\"\\\\\u{0}\u{1}äあ\u{10ffff}]{1,3}",
        count in 1_usize..3000,
        relation in prop::sample::select(vec![Relation::Direct, Relation::Client]),
    ) {
        let text = unit.repeat(count);
        let (session, some) = (SessionId::new(), || Some(text.clone()));
        let far = Timestamp::from_micros(i64::MAX);
        let pod = PodFacts {
            uid: text.clone(),
            namespace: some(),
            name: some(),
            container: some(),
            container_id: some(),
        };
        let process = ProcessFacts {
            pid: u32::MAX,
            comm: text.clone(),
            executable: some(),
            started: Some(far),
            uid: Some(u32::MAX),
        };
        let seen = ConnectionSeen {
            session,
            relation,
            origin: Origin { process, cgroup_id: u64::MAX, cgroup: some(), pod: Some(pod) },
            local: some(),
            remote: some(),
            sent_bytes: Some(u64::MAX),
            received_bytes: Some(u64::MAX),
            connections: 1 << 60,
            ..ConnectionSeen::default()
        };
        let principal = if relation == Relation::Client { text.as_str() } else { "" };
        let mut records = vec![opened_session(session, principal)];
        records.push(Record::ConnectionSeen(Box::new(seen)));
        let json = serde_json::to_string(&folded(&records).sessions[&session]).expect("plain data");
        prop_assert!(json.len() <= ROW_BYTES_MAX, "{} bytes", json.len());
    }

    /// Whatever a client sends, its rows fit: else the index would refuse them.
    #[test]
    fn no_text_makes_a_row_too_large(
        unit in "[a\"\\\\\u{0}\u{1}äあ\u{10ffff}]{1,3}",
        count in 1_usize..3000,
        short in 1_usize..100,
        number in prop::sample::select(vec![0, u64::MAX]),
    ) {
        let text = unit.repeat(count);
        let (session, exchange) = (SessionId::new(), ExchangeId::new());
        let mut intent = opened(session, exchange);
        let info = RequestInfo {
            path: text.clone(),
            verb: text.clone(),
            api_group: text.clone(),
            api_version: text.clone(),
            namespace: text.clone(),
            resource: text.clone(),
            subresource: text.clone(),
            name: text.clone(),
            ..RequestInfo::default()
        };
        intent.time = Timestamp::from_micros(i64::MAX);
        intent.cluster.clone_from(&text);
        intent.task = Some(text.clone());
        intent.command = Some(Command { id: text.clone(), name: text.clone() });
        intent.principal = Some(Arc::new(Principal {
            username: text.clone(),
            subject: text.clone(),
            ..Principal::default()
        }));
        intent.head = Some(RequestHead {
            headers: vec![("user-agent".into(), text.clone())],
            ..RequestHead::default()
        });
        intent.request = Some(info);
        intent.stream = Some(StreamRequest {
            kind: StreamKind::Exec,
            container: Some(text.clone()),
            command: vec![text.clone(); 3],
            stdin: true,
            stdout: true,
            stderr: true,
            tty: true,
            ports: Vec::new(),
        });
        intent.verdict = Some(Verdict {
            policies: vec![text.chars().take(short).collect(); 9],
            policy_set: text.clone(),
            ..Verdict::default()
        });
        intent.refusal = Some(Refusal {
            phase: text.clone(),
            status: 403,
            reason: text.clone(),
            message: text.clone(),
        });
        intent.suppressed = number;
        let object = ObjectChange {
            kind: "ConfigMap".into(),
            namespace: "n".into(),
            name: text.chars().take(short).collect(),
            uid: "u".repeat(36),
            change: Change::Modified,
        };
        let outcome = ExchangeSettled {
            exchange,
            session: Some(session),
            time: intent.time,
            status: 500,
            ending: Ending::RecorderFailed,
            objects: vec![object; 256],
            object_count: number,
            audit_id: Some(text.clone()),
            request: crate::model::BodyFacts { bytes: number, ..Default::default() },
            response: crate::model::BodyFacts { bytes: number, ..Default::default() },
            timing_us: Timing {
                identify: number, authorize: number, open: number, upstream: number, total: number,
            },
            account: Account { gap_bytes: number / 4, reason: Some(text.clone()), ..Account::default() },
            ..ExchangeSettled::default()
        };
        let rows = folded(&[
            opened_session(session, &text),
            Record::ExchangeOpened(Box::new(intent)),
            Record::ExchangeSettled(Box::new(outcome)),
        ]);
        let session = serde_json::to_vec(&rows.sessions[&session]).expect("plain data");
        let exchange = serde_json::to_vec(&rows.exchanges[&exchange]).expect("plain data");
        prop_assert!(session.len() <= ROW_BYTES_MAX, "session: {}", session.len());
        prop_assert!(exchange.len() <= ROW_BYTES_MAX, "exchange: {}", exchange.len());
    }
}

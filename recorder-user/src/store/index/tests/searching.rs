//! The index finds what looking at every row finds, in the same order.

use std::{collections::HashMap, sync::Arc};

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    model::{
        Change, Command, Decision, Effect, ExchangeOpened, ExchangeSettled, ObjectChange,
        Principal, RequestHead, RequestInfo, StreamKind, StreamRequest, Verdict,
    },
    store::{
        ExchangeEnds, StatusFilter,
        fold::Fold,
        format::ChainHash,
        memory::MemoryRows,
        rows::{Query, SessionView},
    },
};

const VERBS: [&str; 3] = ["get", "patch", "create"];
const NAMES: [&str; 5] = ["", "web", "db", "absent", "late-0"];
const NAMESPACES: [&str; 3] = ["", "shop", "absent"];
const RESOURCES: [(&str, &str, &str); 3] =
    [("", "pods", "exec"), ("", "pods", ""), ("apps", "deployments", "scale")];
const AGENTS: [&str; 3] = ["kubectl/v1.36.0", "helm/v3", ""];
const USERS: [&str; 3] = ["alice", "bob", ""];
const TASKS: [Option<&str>; 3] = [None, Some("T-1"), Some("T-2")];
const EFFECTS: [Effect; 3] = [Effect::Executed, Effect::Modified, Effect::Unknown];
const STATUSES: [u16; 4] = [101, 200, 404, 403];

/// What is recorded of one exchange, as places in the lists above.
#[derive(Clone, Debug)]
struct Made {
    id: u16,
    places: [usize; 8],
    session: u8,
    time: i64,
    command: Option<String>,
    objects: usize,
    settled: Option<(u16, Effect)>,
}

fn made() -> impl Strategy<Value = Made> {
    let command = prop_oneof![
        Just("rm -rf /".to_owned()),
        Just("ls".to_owned()),
        // Longer than a row has room for.
        (0..300_usize).prop_map(|words| format!("{}; rm -rf /data", "echo ä".repeat(words))),
    ];
    (
        any::<u16>(),
        prop::array::uniform8(0..30_usize),
        0..3_u8,
        0..100_i64,
        prop::option::of(command),
        select(vec![0, 0, 1, 40]),
        prop::option::of((select(&STATUSES[..]), select(&EFFECTS[..]))),
    )
        .prop_map(|(id, places, session, time, command, objects, settled)| Made {
            id,
            places,
            session,
            time,
            command,
            objects,
            settled,
        })
}

fn session(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

fn exchange(id: u16) -> ExchangeId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    ExchangeId::from_bytes(bytes)
}

impl Made {
    fn pick<T: Copy>(&self, place: usize, list: &[T]) -> T {
        list[self.places[place] % list.len()]
    }

    fn opened(&self) -> ExchangeOpened {
        let (group, resource, subresource) = self.pick(3, &RESOURCES);
        let user = self.pick(5, &USERS);
        let stream = self.command.as_ref().map(|line| StreamRequest {
            kind: StreamKind::Exec,
            container: None,
            command: line.split(' ').map(str::to_owned).collect(),
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
            ports: Vec::new(),
        });
        ExchangeOpened {
            exchange: exchange(self.id),
            session: Some(session(self.session)),
            time: Timestamp::from_micros(self.time),
            cluster: ["prod", "dev"][self.places[7] % 2].into(),
            task: self.pick(6, &TASKS).map(str::to_owned),
            command: Some(Command { id: "c-1".into(), name: "kubectl exec".into() }),
            principal: Some(Arc::new(Principal {
                username: user.into(),
                subject: format!("sub-{user}"),
                ..Principal::default()
            })),
            head: Some(RequestHead {
                headers: vec![("user-agent".into(), self.pick(4, &AGENTS).into())],
                ..RequestHead::default()
            }),
            request: Some(RequestInfo {
                verb: self.pick(0, &VERBS).into(),
                name: self.pick(1, &NAMES[..3]).into(),
                namespace: self.pick(2, &NAMESPACES[..2]).into(),
                api_group: group.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                ..RequestInfo::default()
            }),
            verdict: Some(Verdict {
                decision: if self.id.is_multiple_of(5) { Decision::Deny } else { Decision::Allow },
                ..Verdict::default()
            }),
            stream,
            ..ExchangeOpened::default()
        }
    }

    fn settled(&self) -> Option<ExchangeSettled> {
        let (status, effect) = self.settled?;
        let object = |number| ObjectChange {
            kind: "Pod".into(),
            namespace: "shop".into(),
            // The last ones have no room in the row.
            name: format!("late-{}", self.objects - number - 1),
            uid: format!("uid-{}-{}", self.id % 4, self.objects - number - 1),
            change: Change::Modified,
        };
        Some(ExchangeSettled {
            exchange: exchange(self.id),
            session: Some(session(self.session)),
            status,
            effect,
            objects: (0..self.objects).map(object).collect(),
            object_count: self.objects as u64,
            ..ExchangeSettled::default()
        })
    }
}

fn query() -> impl Strategy<Value = Query> {
    fn maybe(texts: &[&str]) -> impl Strategy<Value = Option<String>> + use<> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        prop::option::weighted(0.2, select(texts))
    }
    let commands =
        ["rm -rf", "rm -rf /data", "rf", "z", "", "c-1", "exec", "ä; rm", "echo äecho", "nothing"];
    let resources =
        ["pods", "pods/exec", "deployments.apps", "deployments.apps/scale", "nodes", "pods/"];
    let uids: Vec<String> =
        ["uid-1-0", "uid-2-3", "uid-3-39", "absent"].map(str::to_owned).to_vec();
    let texts = (
        maybe(&["alice", "sub-bob", "", "absent"]),
        maybe(&["T-1", "absent"]),
        maybe(&["get", "patch", "absent"]),
        maybe(&resources),
        maybe(&["", "apps", "absent"]),
        maybe(&["prod", "absent"]),
        maybe(&NAMESPACES),
        maybe(&NAMES),
    );
    let parts = (maybe(&["kubectl", "v3", "b", "", "absent"]), maybe(&commands));
    let others = (
        prop::option::weighted(0.2, (0..4_u8).prop_map(session)),
        prop::option::weighted(0.2, select(uids)),
        prop::option::weighted(0.2, select(vec![Decision::Allow, Decision::Deny, Decision::Hold])),
        prop::option::weighted(0.2, select(vec!["404", "4xx", "2xx", "500"])),
        prop::option::weighted(0.2, select(EFFECTS.to_vec())),
        prop::option::weighted(0.2, 0..100_i64),
        prop::option::weighted(0.2, 0..100_i64),
        prop::option::weighted(0.2, any::<u16>()),
    );
    (texts, parts, others).prop_map(|(texts, (user_agent, command), others)| {
        let (principal, task, verb, resource, api_group, cluster, namespace, name) = texts;
        let (session, uid, verdict, status, effect, since, until, after) = others;
        let status: Option<StatusFilter> = status.map(|text| text.parse().expect("a status"));
        Query {
            session,
            principal,
            task,
            verb,
            resource,
            api_group,
            cluster,
            namespace,
            name,
            uid,
            user_agent,
            verdict,
            status,
            effect,
            command,
            since: since.map(Timestamp::from_micros),
            until: until.map(Timestamp::from_micros),
            limit: 0,
            after: after.map(exchange),
        }
    })
}

/// Records in the order in which they were written: outcomes may come long after.
fn records(made: &[Made]) -> Vec<Record> {
    let opened = |made: &Made| Record::ExchangeOpened(Box::new(made.opened()));
    let settled = |made: &Made| Some(Record::ExchangeSettled(Box::new(made.settled()?)));
    let (first, second) = made.split_at(made.len() / 2);
    let sessions = (0..3).map(|number| {
        Record::SessionOpened(crate::model::SessionOpened {
            session: session(number),
            time: Timestamp::EPOCH,
            key: crate::model::SessionKey {
                issuer: "i".into(),
                subject: "s".into(),
                cluster: "c".into(),
                task: None,
            },
            principal: Principal::default(),
            kind: crate::model::SessionKind::Api,
        })
    });
    sessions
        .chain(first.iter().map(opened))
        .chain(second.iter().flat_map(|made| [Some(opened(made)), settled(made)]).flatten())
        .chain(first.iter().filter_map(settled))
        .collect()
}

fn item(number: usize, record: Record) -> Item {
    let at = Position { segment: SegmentId::from_bytes([1; 16]), offset: number as u64 };
    Item { at, end: number as u64 + 1, hash: ChainHash([0; 32]), record }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn the_index_finds_what_looking_at_every_row_finds(
        made in prop::collection::vec(made(), 1..40),
        batches in prop::collection::vec(1..30_usize, 1..8),
        jumps in prop::collection::vec(0..9000_u64, 8),
        queries in prop::collection::vec(query(), 40),
    ) {
        let records = records(&made);
        let (mut rows, mut fold) = (MemoryRows::default(), Fold::default());
        let mut ends = HashMap::new();
        for (i, record) in records.iter().enumerate() {
            fold.apply(&mut rows, item(i, record.clone()).at, record);
            match record {
                // Of two records of the same exchange the first counts.
                Record::ExchangeOpened(opened) => {
                    let opened = opened.clone();
                    ends.entry(opened.exchange).or_insert(ExchangeEnds { opened, settled: None });
                }
                Record::ExchangeSettled(settled) => {
                    let ends = ends.get_mut(&settled.exchange).expect("it was opened");
                    ends.settled.get_or_insert_with(|| settled.clone());
                }
                _ => {}
            }
        }
        let selected = |query: &Query, row: &ExchangeRow| {
            query.selects(row, || Ok(ends.get(&row.exchange).cloned()))
        };
        for backend in IndexBackend::ALL {
            let store = tempfile::tempdir().expect("a directory");
            fs::create_dir(segments_directory(store.path())).expect("writable");
            let boot = BootId::from_bytes([1; 16]);
            let mut index = Index::open(store.path(), boot, backend).expect("a new index").index;
            let mut items: Vec<Item> =
                records.iter().cloned().enumerate().map(|(i, record)| item(i, record)).collect();
            for (batch, jump) in batches.iter().zip(&jumps) {
                let rest = items.split_off((*batch).min(items.len()));
                index.take(&items).expect("it takes them");
                items = rest;
                // As if so many others had come between, so that there are many blocks.
                index.next.0 += jump;
            }
            index.take(&items).expect("it takes them");
            let sessions: Vec<SessionView> =
                rows.sessions.values().map(|entry| entry.view.clone()).collect();
            prop_assert_eq!(index.sessions().expect("rows"), sessions);
            for query in &queries {
                let expected: Vec<&ExchangeRow> =
                    rows.exchanges.values().filter(|row| selected(query, row)).collect();
                let mut found = Vec::new();
                let take = |row: ExchangeRow| {
                    if selected(query, &row) {
                        found.push(row);
                    }
                    ControlFlow::Continue(())
                };
                index.candidates(query, take).expect("rows");
                prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{:?}", query);
            }
        }
    }
}

/// Else a search for what goes on now would look at everything that ever went on.
#[test]
fn what_an_exchange_is_not_any_more_it_is_not_found_by() {
    let made = Made {
        id: 1,
        places: [0; 8],
        session: 0,
        time: 0,
        command: None,
        objects: 1,
        settled: Some((200, Effect::Modified)),
    };
    for backend in IndexBackend::ALL {
        let store = tempfile::tempdir().expect("a directory");
        fs::create_dir(segments_directory(store.path())).expect("writable");
        let boot = BootId::from_bytes([1; 16]);
        let mut index = Index::open(store.path(), boot, backend).expect("a new index").index;
        let looked_at = |index: &Index, effect| {
            let query = Query { effect: Some(effect), ..Query::default() };
            let mut rows = 0;
            let count = |_| {
                rows += 1;
                ControlFlow::Continue(())
            };
            index.candidates(&query, count).expect("rows");
            rows
        };
        let steps = [(Effect::Unknown, [1, 0]), (Effect::Modified, [0, 1])];
        for (i, record) in records(std::slice::from_ref(&made)).into_iter().skip(3).enumerate() {
            index.take(&[item(i, record)]).expect("it takes it");
            for (effect, expected) in steps {
                assert_eq!(looked_at(&index, effect), expected[i], "{backend} {i} {effect:?}");
            }
        }
    }
}

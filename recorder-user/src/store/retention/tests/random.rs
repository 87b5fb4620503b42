use proptest::{collection::vec, prelude::*};

use super::*;

/// What happens to a store.
#[derive(Clone, Debug)]
enum Act {
    /// A session does something; with the last flag it ends.
    Work {
        agent: usize,
        reads: bool,
        body: u16,
        ends: bool,
    },
    /// An exchange that goes on into a later segment.
    Begin {
        agent: usize,
    },
    /// Its end.
    End,
    Pass {
        days: u8,
    },
    Hold {
        agent: usize,
        kind: u8,
    },
    Release,
    Prune {
        age: Option<u8>,
        reads: Option<u8>,
        bodies: Option<u8>,
        small: bool,
    },
    Restart {
        crash: bool,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let days = || proptest::option::of(0..20_u8);
    let act = prop_oneof![
        5 => (0..4_usize, any::<bool>(), 0..3000_u16, any::<bool>())
            .prop_map(|(agent, reads, body, ends)| Act::Work { agent, reads, body, ends }),
        2 => (0..4_usize).prop_map(|agent| Act::Begin { agent }),
        2 => Just(Act::End),
        3 => (1..10_u8).prop_map(|days| Act::Pass { days }),
        1 => (0..4_usize, 0..3_u8).prop_map(|(agent, kind)| Act::Hold { agent, kind }),
        1 => Just(Act::Release),
        3 => (days(), days(), days(), proptest::bool::weighted(0.1))
            .prop_map(|(age, reads, bodies, small)| Act::Prune { age, reads, bodies, small }),
        1 => any::<bool>().prop_map(|crash| Act::Restart { crash }),
    ];
    vec(act, 1..25)
}

struct Play {
    world: World,
    agents: Vec<Option<Agent>>,
    begun: Vec<(Agent, ExchangeId, Vec<u8>)>,
    holds: Vec<(HoldId, HoldOn)>,
}

impl Play {
    fn agent(&mut self, index: usize) -> (Agent, Vec<Record>) {
        let now = self.world.now();
        match &self.agents[index] {
            Some(agent) => (agent.clone(), Vec::new()),
            None => {
                let agent = Agent::new(&format!("agent-{index}"));
                self.agents[index] = Some(agent.clone());
                (agent.clone(), vec![agent.begins(now)])
            }
        }
    }

    fn act(&mut self, act: Act) {
        let now = self.world.now();
        match act {
            Act::Work { agent: index, reads, body, ends } => {
                let (agent, mut records) = self.agent(index);
                let effect = if reads { Effect::Read } else { Effect::Modified };
                let body = vec![u8::try_from(index).expect("few"); body.into()];
                records.extend(agent.exchange(now, effect, &body));
                if ends {
                    records.push(agent.ends(now));
                    self.agents[index] = None;
                }
                self.world.write(records);
            }
            Act::Begin { agent } => {
                let (agent, mut records) = self.agent(agent);
                let (exchange, body) =
                    (ExchangeId::new(), b"begun here, and long enough to go".to_vec());
                records.extend([agent.asks(exchange, now), chunk(exchange, 0, &body)]);
                self.world.write(records);
                self.begun.push((agent, exchange, body));
            }
            Act::End => {
                if let Some((agent, exchange, mut body)) = self.begun.pop() {
                    let more = b"and ended there";
                    let at = body.len() as u64;
                    body.extend_from_slice(more);
                    let settled = agent.is_answered(exchange, now, Effect::Read, &body);
                    self.world.write(vec![chunk(exchange, at, more), settled]);
                }
            }
            Act::Pass { days } => self.world.pass(u32::from(days) * DAY),
            Act::Hold { agent, kind } => {
                let on = match (kind, &self.agents[agent]) {
                    (0, Some(agent)) => HoldOn::Session(agent.session),
                    (1, _) => HoldOn::Task(format!("task-agent-{agent}")),
                    _ => HoldOn::Principal(format!("sub-agent-{agent}")),
                };
                let hold = self.world.hold(on.clone());
                self.holds.push((hold, on));
            }
            Act::Release => {
                if let Some((hold, _)) = self.holds.pop() {
                    self.world.store().1.release_hold(hold, "uid 0".into()).expect("in force");
                }
            }
            Act::Prune { age, reads, bodies, small } => self.prune(age, reads, bodies, small),
            Act::Restart { crash } => {
                if crash {
                    drop(self.world.open.take());
                    self.agents.fill(None);
                    self.begun.clear();
                }
                self.world.close();
            }
        }
    }

    fn prune(&mut self, age: Option<u8>, reads: Option<u8>, bodies: Option<u8>, small: bool) {
        let days = |days: Option<u8>| days.map(|days| u32::from(days) * DAY);
        let (age, reads, bodies_of_reads) = (days(age), days(reads), days(bodies));
        let size = small.then_some(0);
        let rules = RetentionRules { age, size, reads, bodies_of_reads };
        self.world.store();
        let before = self.world.records();
        self.world.prune(rules);
        let after = self.world.records();
        let added = after.iter().filter(|stored| !before.contains(stored));
        for (_, record) in added {
            let carried = matches!(
                record,
                Record::HoldChanged(_) | Record::Unknown { kind: Kind::TOMBSTONE | Kind::SEAL, .. }
            );
            assert!(carried, "no other record is new: {record:?}");
        }
        for (_, record) in before.iter().filter(|stored| !after.contains(stored)) {
            let held = self.holds.iter().find(|(_, on)| is_of(record, on));
            assert!(held.is_none(), "{held:?} holds {record:?}");
        }
        self.world.sound();
    }
}

/// Whether a record by itself says that it is of what is held.
fn is_of(record: &Record, on: &HoldOn) -> bool {
    let (session, subject, task) = match record {
        Record::SessionOpened(opened) => {
            (Some(opened.session), Some(&opened.principal.subject), opened.key.task.as_ref())
        }
        Record::ExchangeOpened(opened) => {
            let subject = opened.principal.as_ref().map(|principal| &principal.subject);
            (opened.session, subject, opened.task.as_ref())
        }
        Record::ExchangeSettled(settled) => (settled.session, None, None),
        _ => return false,
    };
    match on {
        HoldOn::Session(held) => session == Some(*held),
        HoldOn::Task(held) => task == Some(held),
        HoldOn::Principal(held) => subject == Some(held),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_deleted_the_rest_verifies_and_the_index_is_its_own(acts in acts()) {
        let (world, agents) = (World::new(), vec![None; 4]);
        let mut play = Play { world, agents, begun: Vec::new(), holds: Vec::new() };
        play.world.store();
        for act in acts {
            play.act(act);
        }
        play.world.store();
        play.world.sound();
        play.world.index_is_as_rebuilt();
    }
}

//! The registry of live streams: what ends one from outside, and what does not.

mod identify_issuer;

use std::{fs, path::Path, sync::Arc, time::Duration};

use gateway::{
    identify::Identity,
    live::{LiveGuard, LiveStream, LiveStreams},
    policy::{PolicySource, PolicyStore},
    sessions::{KillOrder, SessionUse, Sessions},
};
use identify_issuer::{Running, SigningKey, TestIssuer, started, within};
use recorder_user::{
    model::{Ending, ExchangeId, RequestInfo, SessionId, StreamKind, StreamRequest, Timestamp},
    store::{Store, StoreOptions},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const ALL: &str = "permit(principal, action, resource);";

/// What a gateway has around its registry.
struct World {
    key: SigningKey,
    issuer: TestIssuer,
    running: Running,
    directory: tempfile::TempDir,
    policies: Arc<PolicyStore>,
    sessions: Sessions,
    live: Arc<LiveStreams>,
    store: Store,
}

impl World {
    async fn new() -> Self {
        let key = SigningKey::p256("a");
        let issuer = TestIssuer::start(&[&key]).await;
        let running = started(&[issuer.entry("")], |authentication| {
            authentication.keys.cool_down = Duration::ZERO;
        })
        .await;
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), ALL);
        let source = PolicySource::in_directory(&directory.path().join("access"));
        let policies = Arc::new(PolicyStore::open(source).expect("valid"));
        let options = StoreOptions {
            segment_bytes_max: 1 << 20,
            queue_bytes_max: 1 << 20,
            sync_interval: Duration::from_millis(1),
            free_floor_bytes: Some(0),
            ..StoreOptions::new(directory.path().join("store"))
        };
        let (store, _) = Store::open(options, Arc::new(Timestamp::now)).expect("a store");
        let sessions = Sessions::resume(Vec::new(), Duration::from_secs(60), store.recorder());
        let live = LiveStreams::new(
            Arc::clone(&policies),
            Arc::clone(&running.identifier),
            store.recorder(),
        );
        Self { key, issuer, running, directory, policies, sessions, live, store }
    }

    async fn identity(&self) -> Arc<Identity> {
        let now = Timestamp::now();
        let token = self.key.sign(&self.issuer.claims(now));
        self.running.identifier.identify(&token, now).await.expect("good")
    }

    fn join(&self, identity: &Identity, task: &str) -> SessionUse {
        let joined = self.sessions.join(&identity.principal, "c", Some(task), Timestamp::now());
        joined.unwrap_or_else(|_| panic!("few sessions"))
    }

    fn exec(&self, identity: &Arc<Identity>, session: &SessionUse, word: &str) -> LiveGuard {
        let info = RequestInfo {
            is_resource_request: true,
            verb: "create".into(),
            resource: "pods".into(),
            subresource: "exec".into(),
            path: "/api/v1/namespaces/n/pods/p/exec".into(),
            ..RequestInfo::default()
        };
        let stream = StreamRequest {
            kind: StreamKind::Exec,
            container: None,
            command: vec![word.to_owned()],
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
            ports: Vec::new(),
        };
        self.live.register(LiveStream {
            exchange: ExchangeId::new(),
            identity: Arc::clone(identity),
            acting_as: None,
            session: Arc::clone(session.session()),
            info: Arc::new(info),
            stream: Some(Arc::new(stream)),
            upgraded: true,
            recorded: true,
            since: Timestamp::now(),
        })
    }

    fn open(&self) -> usize {
        let mut open = 0;
        self.live.each(|_| open += 1);
        open
    }
}

fn write(directory: &Path, policy: &str) {
    fs::create_dir_all(directory.join("access")).expect("a directory");
    fs::write(directory.join("access/a.cedar"), policy).expect("a file");
}

/// The reason, if there is one now.
async fn ended(guard: &LiveGuard) -> Option<Ending> {
    tokio::select! {
        biased;
        ending = guard.ended() => Some(ending),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn a_kill_ends_the_streams_of_its_session_alone() {
    let world = World::new().await;
    let identity = world.identity().await;
    let (one, other) = (world.join(&identity, "one"), world.join(&identity, "other"));
    let guards = [world.exec(&identity, &one, "a"), world.exec(&identity, &one, "b")];
    let spared = world.exec(&identity, &other, "c");
    assert_eq!((ended(&guards[0]).await, world.open()), (None, 3));

    let order = KillOrder { by: "uid 0".into(), why: None };
    assert!(world.sessions.kill(SessionId::new(), &order).is_none(), "an unknown session");
    let waiting = TaskTracker::new().spawn({
        let guard = world.exec(&identity, &one, "waits");
        async move { guard.ended().await }
    });
    let killed = world.sessions.kill(one.id(), &order).expect("open");
    assert_eq!(world.live.end_session(killed.id(), Ending::Killed), 3);
    assert_eq!(world.live.end_session(killed.id(), Ending::GrantEnded), 0, "the first stays");
    assert_eq!(within(waiting).await.expect("no panic"), Ending::Killed);
    for guard in &guards {
        assert_eq!(ended(guard).await, Some(Ending::Killed));
    }
    assert_eq!(ended(&spared).await, None);
    // One that was on its way when the session was killed.
    assert_eq!(ended(&world.exec(&identity, &one, "late")).await, Some(Ending::Killed));
    assert!(world.sessions.kill(one.id(), &order).is_none(), "again");
    assert_ne!(world.join(&identity, "one").id(), one.id(), "a new session");
    drop((guards, spared));
    assert_eq!(world.open(), 0);
    world.store.close().await.expect("closed");
}

#[tokio::test]
async fn a_policy_ends_what_it_does_not_permit_any_more() {
    let world = World::new().await;
    let identity = world.identity().await;
    let session = world.join(&identity, "t");
    let stop = CancellationToken::new();
    let following = TaskTracker::new().spawn(Arc::clone(&world.live).follow(stop.clone()));
    let (ls, sh) = (world.exec(&identity, &session, "ls"), world.exec(&identity, &session, "sh"));
    // Until the task has subscribed, a swap would be found at the next registration only.
    tokio::task::yield_now().await;
    let only_ls = r#"permit(principal, action, resource) when {
        context has stream && context.stream.commandLine == "ls" &&
        context has task && context.task == "t" && context.cluster == "c" };"#;
    write(world.directory.path(), only_ls);
    world.policies.reload().expect("valid");
    assert_eq!(within(sh.ended()).await, Ending::GrantEnded);
    assert_eq!(ended(&ls).await, None);
    // Let pass by the old set, opened under the new one.
    let late = world.exec(&identity, &session, "sh");
    assert_eq!(ended(&late).await, Some(Ending::GrantEnded));
    stop.cancel();
    within(following).await.expect("no panic");
    world.store.close().await.expect("closed");
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_streams_of_its_tokens() {
    let world = World::new().await;
    let identity = world.identity().await;
    let session = world.join(&identity, "t");
    let guard = world.exec(&identity, &session, "ls");
    let stop = CancellationToken::new();
    let following = TaskTracker::new().spawn(Arc::clone(&world.live).follow(stop.clone()));
    tokio::task::yield_now().await;
    let new = SigningKey::p256("b");
    world.issuer.publish(&[&new]);
    // A token that names the new key makes the gateway ask for it.
    let now = Timestamp::now();
    let token = new.sign(&world.issuer.claims(now));
    let renewed = world.running.identifier.identify(&token, now).await.expect("the new key");
    assert_eq!(within(guard.ended()).await, Ending::TokenRevoked);
    assert_eq!(ended(&world.exec(&renewed, &session, "ls")).await, None);
    let late = world.exec(&identity, &session, "ls");
    assert_eq!(ended(&late).await, Some(Ending::TokenRevoked));
    stop.cancel();
    within(following).await.expect("no panic");
    world.store.close().await.expect("closed");
}

//! Live streams that are ended from outside: a kill, a policy, a withdrawn key; and who may use the admin socket.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::client::Protocol;
use rig::gateway::{Gateway, Options};
use rig::issuer::OldKeys;
use rig::process::Output;
use rig::recorder::sibling;
use rig::wait::{Level, until};
use serde_json::{Value, json};

use crate::runner::{Scenario, scenario};
use crate::scene::{HOUR, Scene};
use crate::watch::Watch;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("kill-ends-a-session", kill_ends_a_session),
        scenario!("policy-change-ends-a-watch", policy_change_ends_a_watch),
        scenario!("withdrawn-key-ends-a-watch", withdrawn_key_ends_a_watch),
        scenario!("admin-socket-is-private", admin_socket_is_private),
    ]
}

async fn kill_ends_a_session(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("killed").await?;
    let (alice, bob) =
        (scene.as_user(&gateway, "alice").await?, scene.as_user(&gateway, "bob").await?);
    let path = "/api/v1/namespaces/killed/configmaps?watch=true";
    let mut killed = vec![
        Watch::open(&alice, Protocol::Http1, path).await?,
        Watch::open(&alice, Protocol::Http2, path).await?,
    ];
    let mut other = Watch::open(&bob, Protocol::Http2, path).await?;
    let sessions = listed(&gateway).await?;
    let of_alice = sessions.iter().find(|session| session["username"] == "alice");
    let of_alice = of_alice.context("alice has an open session")?;
    let streams = of_alice["streams"].as_array().context("with streams")?;
    ensure!(streams.len() == 2 && streams[0]["verb"] == "watch", "{of_alice}");
    let id = of_alice["session"].as_str().context("an id")?.to_owned();

    let order = ["kill", &id, "--reason", "it deletes the wrong things"];
    let output = command(&gateway, &order).await?;
    ensure!(output.success() && output.stdout.contains("live streams ended: 2"), "{output:?}");
    for watch in &mut killed {
        ends_with(watch, 403, "killed the session").await?;
    }
    let again = command(&gateway, &["kill", &id]).await?;
    ensure!(again.code == Some(1), "killed twice: {again:?}");
    until("the session says that it was killed", SOON, async || {
        let sessions = gateway.recorder()?.sessions().await?;
        let found = sessions.iter().find(|session| session["session"] == id.as_str());
        let found = found.context("the session is on record")?;
        let told = found["reason"] == "killed" && !found["ended"].is_null();
        Ok(Level::when(told, || found.to_string()))
    })
    .await?;
    let log = std::fs::read_to_string(gateway.log())?;
    let line = log.lines().find(|line| line.contains("session killed")).context("a log line")?;
    ensure!(line.contains("it deletes the wrong things") && line.contains("uid "), "{line}");

    // Others go on, and so may alice, in another session.
    scene.plane().config_map("killed", "after", &json!({})).await?;
    other.about("after", SOON).await?;
    let mut anew = Watch::open(&alice, Protocol::Http2, path).await?;
    anew.about("after", SOON).await?;
    let sessions = listed(&gateway).await?;
    ensure!(sessions.iter().all(|session| session["session"] != id.as_str()), "{sessions:?}");
    Ok(())
}

async fn policy_change_ends_a_watch(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("granted").await?;
    let (alice, bob) =
        (scene.as_user(&gateway, "alice").await?, scene.as_user(&gateway, "bob").await?);
    let path = "/api/v1/namespaces/granted/configmaps?watch=true";
    let mut ended = Watch::open(&alice, Protocol::Http2, path).await?;
    let mut other = Watch::open(&bob, Protocol::Http2, path).await?;
    let file = gateway.directory().join("policy/access/all.cedar");
    let set = |text: &str| -> Result<()> {
        // Renamed into place, as a configuration tool does.
        let new = gateway.directory().join("new.cedar");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(&new, &file)?)
    };
    // Another set that permits both changes nothing for them.
    set("@id(\"all\") permit(principal, action, resource); // still")?;
    until("the other set is in force", SOON, async || {
        let log = std::fs::read_to_string(gateway.log())?;
        let reloads = log.matches("policies reloaded").count();
        Ok(Level::when(reloads == 1, || reloads.to_string()))
    })
    .await?;
    scene.plane().config_map("granted", "between", &json!({})).await?;
    ended.about("between", SOON).await?;

    set("permit(principal == k8s::User::\"bob\", action, resource);")?;
    ends_with(&mut ended, 403, "policy does not permit").await?;
    scene.plane().config_map("granted", "after", &json!({})).await?;
    other.about("after", SOON).await?;
    incomplete(&gateway, "alice", "grant_ended").await?;
    let sessions = gateway.recorder()?.sessions().await?;
    let of_bob = sessions.iter().find(|session| session["principal"]["username"] == "bob");
    ensure!(of_bob.is_some_and(|session| session["reason"].is_null()), "{sessions:?}");
    Ok(())
}

async fn withdrawn_key_ends_a_watch(scene: Rc<Scene>) -> Result<()> {
    let issuer = scene.own_issuer("issuer", HOUR).await?;
    let config = json!({"authentication": {"keys": {"refresh": "10s"}}});
    let options = Options { config, ..Options::default() };
    let gateway = Gateway::start(scene.directory(), scene.plane(), &[&issuer], &options).await?;
    scene.plane().namespace("revoked").await?;
    let token = scene.secret(issuer.token("alice").await?);
    let alice = gateway.endpoint().bearer(token);
    let path = "/api/v1/namespaces/revoked/configmaps?watch=true";
    let mut watch = Watch::open(&alice, Protocol::Http2, path).await?;
    issuer.rotate(OldKeys::Drop).await?;
    ends_with(&mut watch, 401, "withdrew its key").await?;
    incomplete(&gateway, "alice", "token_revoked").await
}

/// The socket is closed to everybody but root and the gateway's user.
async fn admin_socket_is_private(scene: Rc<Scene>) -> Result<()> {
    let mut gateway = scene.gateway(&Options::default()).await?;
    let socket = gateway.store().join("gateway.sock");
    let mode = std::fs::metadata(&socket)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the socket's mode is {mode:o}");
    ensure!(command(&gateway, &["sessions"]).await?.success(), "our own user is refused");
    // Where the tests run as root, as somebody else, and with the mode out of the way: the peer's user counts.
    if std::fs::metadata("/proc/self")?.uid() == 0 {
        let directory =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
        let open = directory.path().join("open.sock");
        let config = json!({"admin": {"socket": open}});
        let options = Options { name: "open".into(), config, ..Options::default() };
        let other = scene.gateway(&options).await?;
        std::fs::set_permissions(&open, Permissions::from_mode(0o666))?;
        let denied = as_nobody(&open).await?;
        ensure!(denied.stdout.is_empty(), "nobody was answered: {denied:?}");
        until("the refusal is in the log", SOON, async || {
            let log = std::fs::read_to_string(other.log())?;
            Ok(Level::when(log.contains("admin connection of another user refused"), || log))
        })
        .await?;
    }
    gateway.kill()?;
    ensure!(socket.exists(), "kill -9 leaves the socket behind");
    gateway.resume().await?;
    ensure!(command(&gateway, &["sessions"]).await?.success(), "after a crash");
    gateway.stop().await?;
    ensure!(!socket.exists(), "an orderly stop removes the socket");
    Ok(())
}

/// Asks for the sessions as the user nobody.
async fn as_nobody(socket: &Path) -> Result<Output> {
    let script = "const socket = require('net').connect(process.argv[1]);
        socket.on('connect', () => socket.write('GET /sessions HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'));
        socket.on('data', (data) => { process.stdout.write(data); socket.destroy(); });
        socket.on('error', (error) => process.stderr.write(error.code));";
    let mut command = Command::new("node");
    command.args(["-e", script]).arg(socket).uid(NOBODY).gid(NOBODY).current_dir("/");
    rig::process::run(command, SOON).await
}

/// What `gateway sessions --json` lists.
pub(crate) async fn listed(gateway: &Gateway) -> Result<Vec<Value>> {
    let output = command(gateway, &["sessions", "--json"]).await?;
    ensure!(output.success(), "{output:?}");
    output.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Runs `gateway` with its own configuration.
pub(crate) async fn command(gateway: &Gateway, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(sibling("gateway")?);
    command.args(arguments).arg("--config").arg(gateway.config_file());
    rig::process::run(command, SOON).await
}

/// The watch ends in order, with this `Status` as its last event.
pub(crate) async fn ends_with(watch: &mut Watch, code: u16, message: &str) -> Result<()> {
    let mut last = None;
    while let Some(event) = watch.next(ENDED).await? {
        last = Some(event);
    }
    let last = last.context("the watch ended without a word")?;
    let status = &last["object"];
    ensure!(
        last["type"] == "ERROR"
            && status["code"] == code
            && status["message"].as_str().is_some_and(|text| text.contains(message)),
        "the last event is {last}"
    );
    Ok(())
}

async fn incomplete(gateway: &Gateway, user: &str, reason: &str) -> Result<()> {
    until("the session says why", SOON, async || {
        let sessions = gateway.recorder()?.sessions().await?;
        let of_user = sessions.iter().find(|session| session["principal"]["username"] == user);
        let told = of_user.is_some_and(|session| session["reason"] == reason);
        Ok(Level::when(told, || format!("{sessions:?}")))
    })
    .await
}

const SOON: Duration = Duration::from_secs(15);
/// Generous: the policies are looked at every 2 s, the keys of these tests every 10 s.
const ENDED: Duration = Duration::from_secs(30);
const NOBODY: u32 = 65_534;

//! exec: every kubectl, exit codes, terminals, long command lines.

use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::Options;
use rig::kubectl::Kubectl;
use rig::process;
use rig::terminal::Terminal;
use serde_json::Value;

use super::visit::{LIMIT, Visit};
use crate::scene::Scene;

/// Every kubectl there is, with its own protocols: the same bytes, codes and records.
pub(super) async fn every_kubectl(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "exec-versions", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    let versions = &scene.world.versions.found;
    for kubectl in versions {
        visit_once(&visit, kubectl)
            .await
            .with_context(|| format!("kubectl {}", kubectl.version()))?;
    }
    let rows = visit.streams("exec", versions.len() * CODES.len()).await?;
    ensure!(rows.len() == versions.len() * CODES.len(), "{} streams: {rows:?}", rows.len());
    for (kubectl, rows) in versions.iter().zip(rows.chunks(CODES.len())) {
        recorded(&visit, kubectl, rows)
            .await
            .with_context(|| format!("the record of kubectl {}", kubectl.version()))?;
    }
    pod.delete().await
}

const INPUT: &str = "to the container and back\n";
/// How the commands of a visit end.
const CODES: [i32; 4] = [3, 137, 0, 1];

async fn visit_once(visit: &Visit, kubectl: &Kubectl) -> Result<()> {
    let script = ["exec", "-i", "box", "--", "sh", "-c", "cat; echo oops >&2; exit 3"];
    let output = visit.with_input(kubectl, &script, INPUT).await?;
    ensure!(output.code == Some(3), "exit code: {output:?}");
    ensure!(output.stdout == INPUT, "stdin to stdout: {output:?}");
    ensure!(of_command(kubectl, &output.stderr).starts_with("oops\n"), "stderr: {output:?}");
    let script = ["exec", "box", "--", "sh", "-c", "kill -9 $$"];
    let output = process::run(visit.command_of(kubectl, &script), LIMIT).await?;
    ensure!(output.code == Some(137), "exit code: {output:?}");
    let script = ["exec", "box", "-c", "box", "--", "echo", "two words", "", "'quoted'"];
    let output = process::run(visit.command_of(kubectl, &script), LIMIT).await?;
    ensure!(output.code == Some(0) && output.stdout == "two words  'quoted'\n", "{output:?}");
    let output =
        process::run(visit.command_of(kubectl, &["exec", "box", "--", "false"]), LIMIT).await?;
    // What kubectl's own failures end with too: here it must be the command's.
    let told = output.stderr.contains("terminated with exit code 1");
    ensure!(output.code == Some(1) && told, "{output:?}");
    Ok(())
}

/// What the command wrote to stderr, and its end. A kubectl before 1.34 may read before it has made its streams, and then
/// says on stderr that it does not know that of the API server's first message, which is empty (kubernetes#131189).
fn of_command<'o>(kubectl: &Kubectl, stderr: &'o str) -> &'o str {
    match stderr.split_once('\n') {
        Some((line, rest)) if kubectl.minor() < 34 && line.contains("Unknown stream id") => rest,
        _ => stderr,
    }
}

async fn recorded(visit: &Visit, kubectl: &Kubectl, rows: &[Value]) -> Result<()> {
    // WebSocket is the default from 1.30 on (KEP-4006).
    let websocket = kubectl.minor() >= 30;
    let transport = if websocket { "websocket" } else { "spdy/3.1" };
    let protocol = if websocket { "v5.channel.k8s.io" } else { "v4.channel.k8s.io" };
    for (row, code) in rows.iter().zip(CODES) {
        ensure!(row["account"]["state"] == "complete", "{row}");
        let shown = visit.shown(row).await?;
        let stream = &shown["stream"]["facts"];
        ensure!(stream["exitCode"] == code, "exit code {code}: {stream}");
        ensure!(stream["transport"] == transport && stream["protocol"] == protocol, "{stream}");
        ensure!(stream["undecodable"].is_null(), "{stream}");
    }
    let asked = &visit.shown(&rows[2]).await?["stream"]["request"];
    let command = serde_json::json!(["echo", "two words", "", "'quoted'"]);
    ensure!(asked["command"] == command && asked["container"] == "box", "{asked}");
    ensure!(asked["stdin"] == false && asked["stdout"] == true && asked["tty"] == false, "{asked}");
    for (channel, expected) in [("stdin", INPUT), ("stdout", INPUT), ("stderr", "oops\n")] {
        let raw = visit.exported(&rows[0], &["--format", "raw", "--channel", channel]).await?;
        ensure!(raw == expected, "{channel} as exported: {raw:?}");
    }
    Ok(())
}

/// A terminal, typed to and resized a thousand times.
pub(super) async fn terminal(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "exec-terminal", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    let mut terminal =
        Terminal::start(visit.command(&["exec", "-it", "box", "--", "sh"]), 100, 30)?;
    terminal.shows("#").await?;
    for step in 0..1000_u16 {
        terminal.resize(40 + step % 120, 10 + step % 40)?;
    }
    terminal.resize(132, 43)?;
    // The last size must have arrived, whatever was skipped on the way.
    terminal.types("until stty size | grep '43 132'; do sleep 0.1; done; echo a\\\u{a0}b\r")?;
    terminal.shows("\n43 132").await?;
    terminal.types("printf '\\033[31mred\\033[0m\\n'; exit 5\r")?;
    let status = terminal.ended().await?;
    ensure!(status.code() == Some(5), "{status}: {}", terminal.shown());
    let rows = visit.streams("exec", 1).await?;
    let shown = visit.shown(&rows[0]).await?;
    ensure!(
        shown["stream"]["request"]["tty"] == true && shown["stream"]["facts"]["exitCode"] == 5,
        "{shown}"
    );
    let cast = visit.exported(&rows[0], &["--format", "asciicast-v2"]).await?;
    ensure!(cast.contains("\"132x43\""), "no resize: {}", &cast[..cast.len().min(2000)]);
    ensure!(cast.contains("\\u001b[31mred"), "no colours in {cast}");
    pod.delete().await
}

/// 100 KiB: more than an `http::Uri` takes, less than the kernel's 128 KiB for one argument.
pub(super) async fn long_command(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "exec-long", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    let long = "x".repeat(100 << 10);
    let script = ["exec", "box", "--", "sh", "-c", "echo ${#1} ${#2}", "sh", &long, "y"];
    for kubectl in &scene.world.versions.found {
        let output = process::run(visit.command_of(kubectl, &script), LIMIT).await?;
        ensure!(
            output.stdout == "102400 1\n",
            "kubectl {}: {:?}",
            kubectl.version(),
            output.stderr
        );
    }
    let rows = visit.streams("exec", scene.world.versions.found.len()).await?;
    let shown = visit.shown(&rows[0]).await?;
    ensure!(
        shown["stream"]["request"]["command"][4] == long.as_str(),
        "the argument is not on record"
    );
    pod.delete().await
}

//! The node itself, without a gateway: each way in which kubectl reaches a container works.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::dialogue::Dialogue;
use rig::kubectl::succeeded;
use rig::node::images::BOX;
use rig::node::pods::{Pod, manifest};
use rig::process::{self, Output, Process};
use rig::wait::{Level, until};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::scene::Scene;

/// Each way in which kubectl reaches a container, straight to the API server.
pub(super) async fn direct(scene: Rc<Scene>) -> Result<()> {
    let cluster = scene.world.cluster().await?;
    let kubeconfig = cluster.plane.admin_kubeconfig()?;
    let visit = Visit { scene: &scene, kubeconfig: &kubeconfig };
    let mut object = manifest("direct", &["/bin/sh", "-c", READER]);
    object["spec"]["containers"][0]["stdin"] = json!(true);
    let pod = Pod::run(&cluster.plane, NAMESPACE, &object).await?;
    visit.exec().await.context("exec")?;
    visit.copy().await.context("cp")?;
    visit.port_forward().await.context("port-forward")?;
    visit.debug().await.context("debug")?;
    visit.attach_and_logs().await.context("attach and logs")?;
    ensure!(pod.ended().await? == 7, "the container's own exit code");
    pod.delete().await?;
    visit.run_interactive().await.context("run -i")
}

struct Visit<'a> {
    scene: &'a Scene,
    kubeconfig: &'a Path,
}

impl Visit<'_> {
    async fn exec(&self) -> Result<()> {
        let script = ["exec", "-i", "direct", "--", "sh", "-c", "cat; echo oops >&2; exit 3"];
        let input = "to the container and back\n";
        let mut exec = self.talk(&script)?;
        exec.say(input)?;
        exec.hears(input, LIMIT).await?;
        exec.end_input();
        let output = exec.end(LIMIT).await?;
        ensure!(output.code == Some(3), "exit code: {output:?}");
        ensure!(output.stdout == input, "stdin to stdout: {output:?}");
        ensure!(output.stderr.starts_with("oops\n"), "stderr: {output:?}");
        Ok(())
    }

    async fn copy(&self) -> Result<()> {
        let (there, back) = (self.scene.directory().join("there"), "back");
        fs::write(&there, "copied\n".repeat(10_000))?;
        let there = there.display().to_string();
        self.ok(&["cp", &there, "direct:/tmp/there"]).await?;
        // It takes a colon for a pod's name: a path from its working directory.
        self.ok(&["cp", "direct:/tmp/there", back]).await?;
        let back = self.scene.directory().join("home").join(back);
        ensure!(fs::read(&there)? == fs::read(back)?, "the copy differs");
        Ok(())
    }

    async fn port_forward(&self) -> Result<()> {
        let log = self.scene.directory().join("port-forward.log");
        let command = self.command(&["port-forward", "direct", ":8080"]);
        let mut forward = Process::start("port-forward", command, &log)?;
        let port = until("port-forward listens", LIMIT, async || {
            forward.check()?;
            let said = fs::read_to_string(&log)?;
            let rest = said.split("Forwarding from 127.0.0.1:").nth(1);
            let port = rest.and_then(|rest| rest.split_once(" -> ")).map(|(port, _)| port.parse());
            Ok(port.transpose()?.map_or(Level::NotYet(said), Level::Reached))
        })
        .await?;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /hello HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer)).await??;
        ensure!(answer.ends_with(HELLO), "answer {answer:?}");
        forward.kill()
    }

    async fn debug(&self) -> Result<()> {
        let image = ["--image", BOX, "--image-pull-policy=Never", "--target=box"];
        let shell = ["--", "sh"];
        let mut debug =
            self.talk(&[&["debug", "direct", "-i", "--quiet"], &image[..], &shell].concat())?;
        // It sees the processes of the container that it was aimed at.
        debug.say("echo there are $(pidof httpd | wc -w)\n")?;
        debug.hears("there are 1\n", LIMIT).await?;
        debug.say("exit\n")?;
        succeeded(debug.end(LIMIT).await?)?;
        Ok(())
    }

    /// The container echoes what it is told, and ends when it is told so.
    async fn attach_and_logs(&self) -> Result<()> {
        let mut attach = self.talk(&["attach", "-i", "direct"])?;
        attach.say("first\n")?;
        attach.hears("told first\n", LIMIT).await?;
        attach.say("exit 7\n")?;
        attach.end(LIMIT).await?;
        let logs = self.ok(&["logs", "-f", "direct"]).await?.stdout;
        ensure!(logs == "started\ntold first\n", "logs: {logs:?}");
        Ok(())
    }

    async fn run_interactive(&self) -> Result<()> {
        let image = ["--image", BOX, "--image-pull-policy=Never", "--restart=Never"];
        let shell = ["--command", "--", "sh"];
        let mut run = self
            .talk(&[&["run", "fleeting", "-i", "--rm", "--quiet"], &image[..], &shell].concat())?;
        run.say("echo heard $((6 * 7))\n")?;
        run.hears("heard 42\n", LIMIT).await?;
        run.end_input();
        succeeded(run.end(LIMIT).await?)?;
        Ok(())
    }

    async fn ok(&self, arguments: &[&str]) -> Result<Output> {
        succeeded(process::run(self.command(arguments), LIMIT).await?)
    }

    fn talk(&self, arguments: &[&str]) -> Result<Dialogue> {
        Dialogue::start(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let home = self.scene.directory().join("home");
        let arguments = [&["--namespace", NAMESPACE], arguments].concat();
        self.scene.kubectl().command(&home, self.kubeconfig, &arguments)
    }
}

/// Serves a file, then does what it is told.
const READER: &str = "\
mkdir /tmp/www && echo hello from the pod > /tmp/www/hello && httpd -p 8080 -h /tmp/www
echo started
while read -r verb rest; do
  if [ \"$verb\" = exit ]; then exit \"$rest\"; fi
  echo told \"$verb\"
done";

const HELLO: &str = "hello from the pod\n";
const NAMESPACE: &str = "streams";
const LIMIT: Duration = Duration::from_secs(60);

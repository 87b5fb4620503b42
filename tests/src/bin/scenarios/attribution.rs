//! Attribution against the API server's own code, on requests that nobody has seen before.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use rig::{recorder::sibling, tools};

use crate::runner::{Scenario, scenario};
use crate::scene::Scene;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario!("attribution-equals-the-api-servers", equals_the_api_servers)]
}

const CASES: &str = "50000";

async fn equals_the_api_servers(scene: Rc<Scene>) -> Result<()> {
    let theirs = tools::differential()?;
    let ours = sibling("examples/requestinfo")?;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().to_string();
    let (cases, answers) =
        (scene.directory().join("cases.jsonl"), scene.directory().join("answers.jsonl"));
    run(Command::new(&ours).args(["cases", &seed, CASES]), None, &cases)?;
    run(&mut Command::new(&theirs), Some(&cases), &answers)?;
    let compared = Command::new(&ours).arg("compare").stdin(File::open(&answers)?).output()?;
    let said = String::from_utf8_lossy(&compared.stdout);
    ensure!(compared.status.success(), "seed {seed}: {said}");
    println!("      seed {seed}: {}", said.trim());
    Ok(())
}

fn run(command: &mut Command, input: Option<&Path>, output: &Path) -> Result<()> {
    let input = input.map_or(Ok(Stdio::null()), |path| File::open(path).map(Stdio::from))?;
    let status = command.stdin(input).stdout(File::create(output)?).status();
    let status = status.with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

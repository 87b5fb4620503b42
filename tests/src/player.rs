//! asciinema's player in a real browser: what our exports look like to others.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{cache, process, tools};

/// The player's script and the browser that runs it.
#[derive(Clone, Debug)]
pub struct Player {
    script: PathBuf,
    browser: PathBuf,
}

/// What was to be seen when a cast had played to its end.
#[derive(Clone, Debug, Deserialize)]
pub struct Played {
    /// The terminal's rows.
    pub lines: Vec<String>,
    /// Where links in the player lead.
    pub links: Vec<String>,
    /// The page's title.
    pub title: String,
    /// Errors, warnings, and requests to anywhere else.
    pub problems: Vec<String>,
}

impl Player {
    /// Finds or installs both: npm packages into the cache, Chromium from Debian.
    ///
    /// # Errors
    /// When Node.js is missing, or Chromium is and cannot be installed.
    pub fn install() -> Result<Self> {
        Ok(Self { script: tools::player()?, browser: chromium()? })
    }

    /// Plays a cast to its end, and makes a picture of it.
    ///
    /// # Errors
    /// When it does not play to its end.
    pub async fn play(&self, cast: &Path, screenshot: &Path) -> Result<Played> {
        let mut command = Command::new("node");
        command.arg(&self.script).arg(&self.browser).arg(cast).arg(screenshot);
        let output = process::run(command, PLAY_LIMIT).await?;
        ensure!(output.success(), "the player: {}", output.stderr);
        serde_json::from_str(&output.stdout).context("read what the player saw")
    }
}

fn chromium() -> Result<PathBuf> {
    let find = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|folder| folder.join("chromium"))
            .find(|file| file.is_file())
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    let _lock = cache::lock("packages")?;
    if let Some(found) = find() {
        return Ok(found);
    }
    let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    ensure!(
        root && Path::new("/usr/bin/apt-get").exists(),
        "the player needs `{}`, and only root with apt-get can install that from here",
        PACKAGES.join(" ")
    );
    eprintln!("rig: installing {}", PACKAGES.join(", "));
    apt_get(&["update", "-qq"])?;
    apt_get(&[&["install", "-y", "-qq", "--no-install-recommends"], &PACKAGES[..]].concat())?;
    find().context("chromium is installed but not on PATH")
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let output = process::run_blocking(command, APT_LIMIT)?;
    ensure!(output.success(), "apt-get {}: {}", arguments.join(" "), output.stderr.trim());
    Ok(())
}

/// The browser, and a font with the characters that terminals show.
const PACKAGES: [&str; 2] = ["chromium", "fonts-dejavu-core"];
const APT_LIMIT: Duration = Duration::from_secs(600);
const PLAY_LIMIT: Duration = Duration::from_secs(120);

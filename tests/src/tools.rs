//! What the rig runs, built from pinned sources into the cache: Go programs of the modules in
//! `rig/mods`, and npm packages of the issuer and the player.
//!
//! A tool's directory is named by a digest of its pins, so a changed pin builds anew and an old binary is
//! never taken for a new one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{cache, network, process};

/// The programs of a control plane, and kubectl of the same version.
#[derive(Clone, Debug)]
pub struct Tools {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub api_server: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
}

impl Tools {
    /// Finds them in the cache or builds them: minutes with a cold cache, with progress on stderr.
    ///
    /// # Errors
    /// When Go is missing or a build fails.
    pub fn build() -> Result<Self> {
        Ok(Self {
            etcd: go(&ETCD, "etcd", "go.etcd.io/etcd/server/v3")?,
            api_server: go(&KUBERNETES, "kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")?,
            kubectl: kubectl()?,
            controller_manager: go(
                &KUBERNETES,
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            )?,
        })
    }
}

/// The programs of a node, besides the distribution's.
#[derive(Clone, Debug)]
pub struct NodeTools {
    /// kube-scheduler.
    pub scheduler: PathBuf,
    /// kubelet.
    pub kubelet: PathBuf,
    /// containerd.
    pub containerd: PathBuf,
    /// containerd-shim-runc-v2.
    pub shim: PathBuf,
    /// ctr, which imports images.
    pub ctr: PathBuf,
}

impl NodeTools {
    /// As [`Tools::build`].
    ///
    /// # Errors
    /// As [`Tools::build`].
    pub fn build() -> Result<Self> {
        let kubernetes =
            |name: &str| go(&KUBERNETES, name, &format!("k8s.io/kubernetes/cmd/{name}"));
        let containerd = |name: &str| {
            go(&CONTAINERD, name, &format!("github.com/containerd/containerd/v2/cmd/{name}"))
        };
        Ok(Self {
            scheduler: kubernetes("kube-scheduler")?,
            kubelet: kubernetes("kubelet")?,
            containerd: containerd("containerd")?,
            shim: containerd("containerd-shim-runc-v2")?,
            ctr: containerd("ctr")?,
        })
    }
}

/// kubectl alone.
///
/// # Errors
/// As [`Tools::build`].
pub fn kubectl() -> Result<PathBuf> {
    go(&KUBERNETES, "kubectl", "k8s.io/kubernetes/cmd/kubectl")
}

/// Prometheus, without service discovery (it would bring in every cloud's client).
///
/// # Errors
/// As [`Tools::build`].
pub fn prometheus() -> Result<PathBuf> {
    go(&PROMETHEUS, "prometheus", "github.com/prometheus/prometheus/cmd/prometheus")
}

/// MinIO, the object store.
///
/// # Errors
/// As [`Tools::build`].
pub fn minio() -> Result<PathBuf> {
    go(&MINIO, "minio", "github.com/minio/minio")
}

/// The API server's own attribution of requests, as a program.
///
/// # Errors
/// As [`Tools::build`].
pub fn differential() -> Result<PathBuf> {
    go(&DIFFERENTIAL, "differential", ".")
}

/// The issuer's script beside its installed packages.
///
/// # Errors
/// When Node.js is missing or the installation fails.
pub fn issuer() -> Result<PathBuf> {
    let files = [
        ("package.json", include_str!("../rig/issuer/package.json")),
        ("package-lock.json", include_str!("../rig/issuer/package-lock.json")),
        (".npmrc", include_str!("../rig/issuer/.npmrc")),
        ("oidc.mjs", include_str!("../rig/issuer/oidc.mjs")),
    ];
    Ok(npm("issuer", &files)?.join("oidc.mjs"))
}

/// The script that plays casts in a browser, beside its installed packages.
///
/// # Errors
/// As [`issuer`].
pub fn player() -> Result<PathBuf> {
    let files = [
        ("package.json", include_str!("../rig/player/package.json")),
        ("package-lock.json", include_str!("../rig/player/package-lock.json")),
        (".npmrc", include_str!("../rig/player/.npmrc")),
        ("play.mjs", include_str!("../rig/player/play.mjs")),
    ];
    Ok(npm("player", &files)?.join("play.mjs"))
}

/// A Python that has DuckDB, and the script that asks it.
///
/// # Errors
/// When Python is missing or the installation fails.
pub fn duckdb() -> Result<(PathBuf, PathBuf)> {
    let (requirements, script) =
        (include_str!("../rig/duckdb/requirements.txt"), include_str!("../rig/duckdb/query.py"));
    let key = cache::digest(&[requirements.as_bytes(), script.as_bytes()]);
    let directory = cache::directory()?.join("duckdb").join(key);
    let found = (directory.join("bin/python"), directory.join("query.py"));
    let done = directory.join("installed");
    if done.exists() {
        return Ok(found);
    }
    let _lock = cache::lock("duckdb")?;
    if done.exists() {
        return Ok(found);
    }
    let missing = "Python 3.10 or later with venv is needed (apt-get install python3-venv)";
    let mut environment = Command::new("python3");
    environment.args(["-m", "venv", "--clear"]).arg(&directory);
    build("a Python environment", environment, missing)?;
    fs::write(directory.join("requirements.txt"), requirements).context("write requirements")?;
    fs::write(&found.1, script).context("write query.py")?;
    let mut install = Command::new(&found.0);
    install
        .args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--no-deps", "-r"])
        .arg(directory.join("requirements.txt"));
    build("DuckDB", install, missing)?;
    fs::write(&done, "").context("note the installation")?;
    Ok(found)
}

/// A directory of the cache with these files and the packages that they lock.
fn npm(name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let inputs: Vec<_> = files.iter().map(|(_, text)| text.as_bytes()).collect();
    let directory = cache::directory()?.join(name).join(cache::digest(&inputs));
    let done = directory.join("installed");
    if done.exists() {
        return Ok(directory);
    }
    let _lock = cache::lock(name)?;
    if done.exists() {
        return Ok(directory);
    }
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    for (name, text) in files {
        fs::write(directory.join(name), text).with_context(|| format!("write {name}"))?;
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&directory);
    let what = format!("the {name}'s npm packages");
    build(&what, command, "npm (Node.js 20 or later) is needed")?;
    fs::write(&done, "").context("note the installation")?;
    Ok(directory)
}

struct Module {
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    tags: &'static str,
    /// The module whose version is stamped into the binary, as Kubernetes' own build does.
    stamp: Option<&'static str>,
    /// A program of our own, as `main.go`; none where the package is another's.
    main: Option<&'static str>,
}

const KUBERNETES: Module = Module {
    name: "k8s",
    go_mod: include_str!("../rig/mods/k8s/go.mod"),
    go_sum: include_str!("../rig/mods/k8s/go.sum"),
    tags: "",
    stamp: Some("k8s.io/kubernetes"),
    main: None,
};

const ETCD: Module = Module {
    name: "etcd",
    go_mod: include_str!("../rig/mods/etcd/go.mod"),
    go_sum: include_str!("../rig/mods/etcd/go.sum"),
    tags: "",
    stamp: None,
    main: None,
};

const CONTAINERD: Module = Module {
    name: "containerd",
    go_mod: include_str!("../rig/mods/containerd/go.mod"),
    go_sum: include_str!("../rig/mods/containerd/go.sum"),
    tags: "",
    stamp: None,
    main: None,
};

const PROMETHEUS: Module = Module {
    name: "prometheus",
    go_mod: include_str!("../rig/mods/prometheus/go.mod"),
    go_sum: include_str!("../rig/mods/prometheus/go.sum"),
    tags: "remove_all_sd",
    stamp: None,
    main: None,
};

const MINIO: Module = Module {
    name: "minio",
    go_mod: include_str!("../rig/mods/minio/go.mod"),
    go_sum: include_str!("../rig/mods/minio/go.sum"),
    tags: "",
    stamp: None,
    main: None,
};

const DIFFERENTIAL: Module = Module {
    name: "differential",
    go_mod: include_str!("../differential/go.mod"),
    go_sum: include_str!("../differential/go.sum"),
    tags: "",
    stamp: None,
    main: Some(include_str!("../differential/main.go")),
};

fn go(module: &Module, name: &str, package: &str) -> Result<PathBuf> {
    let key = cache::digest(&[
        module.go_mod.as_bytes(),
        module.go_sum.as_bytes(),
        module.tags.as_bytes(),
        package.as_bytes(),
        module.main.unwrap_or_default().as_bytes(),
    ]);
    let root = cache::directory()?.join("go");
    let directory = root.join(format!("{name}-{key}"));
    let binary = directory.join(name);
    if binary.exists() {
        return Ok(binary);
    }
    let _lock = cache::lock("go")?;
    if binary.exists() {
        return Ok(binary);
    }
    let source = root.join(format!("{}-{key}-module", module.name));
    for made in [&directory, &source] {
        fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
    }
    fs::write(source.join("go.mod"), module.go_mod).context("write go.mod")?;
    fs::write(source.join("go.sum"), module.go_sum).context("write go.sum")?;
    if let Some(main) = module.main {
        fs::write(source.join("main.go"), main).context("write main.go")?;
    }
    let part = directory.join("part");
    let mut command = Command::new("go");
    command
        .current_dir(&source)
        .args(["build", "-trimpath", "-mod=readonly", "-buildvcs=false"])
        .args(["-tags", module.tags, "-ldflags", &linker_flags(module)?, "-o"])
        .arg(&part)
        .arg(package)
        .env("GOCACHE", cache::directory()?.join("go-build"))
        .envs([("CGO_ENABLED", "0"), ("GOWORK", "off"), ("GOFLAGS", "")]);
    build(name, command, "Go 1.26 or later is needed (https://go.dev/dl)")?;
    // The name appears only when the file is whole.
    fs::rename(&part, &binary).with_context(|| format!("name {}", binary.display()))?;
    fs::remove_dir_all(&source).with_context(|| format!("remove {}", source.display()))?;
    Ok(binary)
}

fn linker_flags(module: &Module) -> Result<String> {
    let mut flags = "-s -w".to_owned();
    let Some(stamp) = module.stamp else { return Ok(flags) };
    let version = version_of(module.go_mod, stamp)
        .with_context(|| format!("{stamp} is not in {}'s go.mod", module.name))?;
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
    let package = "k8s.io/component-base/version";
    for (name, value) in [
        ("gitVersion", version),
        ("gitMajor", major),
        ("gitMinor", minor),
        ("gitTreeState", "clean"),
    ] {
        flags.push_str(&format!(" -X {package}.{name}={value}"));
    }
    Ok(flags)
}

/// The version that a go.mod requires of a module.
fn version_of<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (path, version) = (words.next()?, words.next()?);
        (path == module && version.starts_with('v')).then_some(version)
    })
}

/// Runs a build step: quiet when quick, a line every 15 seconds when not, all of its output when it fails.
fn build(what: &str, mut command: Command, missing: &str) -> Result<()> {
    network::outside(&mut command);
    let log = tempfile::NamedTempFile::new().context("make a log file")?;
    command.stdin(Stdio::null());
    command.stdout(log.reopen()?).stderr(log.reopen()?);
    let started = Instant::now();
    let mut child = match process::spawn(command) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!("{missing}"),
        result => result.with_context(|| format!("build {what}"))?,
    };
    let mut next = FIRST_NOTE;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("build {what}"))? {
            break status;
        }
        if started.elapsed() > next {
            eprintln!("rig: building {what}, {} s", started.elapsed().as_secs());
            next += NOTES;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if !status.success() {
        bail!("building {what} failed ({status}):\n{}", read(log.path()));
    }
    if started.elapsed() > FIRST_NOTE {
        eprintln!("rig: built {what} in {} s", started.elapsed().as_secs());
    }
    Ok(())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

const FIRST_NOTE: Duration = Duration::from_secs(2);
const NOTES: Duration = Duration::from_secs(15);

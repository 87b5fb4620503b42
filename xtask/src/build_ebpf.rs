//! `cargo xtask build-ebpf`: finds or installs a toolchain, builds the eBPF object, and puts it where
//! `recorder-user` embeds it. A built object is cached by the digest of its sources.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

include!("../../recorder-ebpf/digest.rs");

const TARGET: &str = "bpfel-unknown-none";
/// rustc 1.96 with a prebuilt `core` for the target, and the LLVM of the same major for bpf-linker.
const PACKAGES: [&str; 5] =
    ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libpolly-22-dev", "clang-22"];
const LINKER_VERSION: &str = "0.13.0";
const LINKER_FEATURE: &str = "llvm-22";
/// Where Debian's llvm-22-dev lives; bpf-linker would otherwise follow any `llvm-config` on PATH.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// v3 has atomic additions that return a value (the sequence numbers); kernel 5.12 is its floor.
const RUSTFLAGS: &str = "-C link-arg=--btf -C debuginfo=2 -C panic=abort -C target-cpu=v3";

/// Builds the object, or takes it from the cache. With `optional`, what cannot be built is reported and is
/// no failure: the witness then says at run time that it has no object.
///
/// # Errors
/// When no toolchain can be found or installed, or the build fails; never with `optional`.
pub(crate) fn run(optional: bool) -> Result<()> {
    match build() {
        Err(error) if optional => {
            println!("skipped: {error:#}");
            Ok(())
        }
        other => other,
    }
}

fn build() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("find the workspace")?;
    let digest = source_digest(workspace).context("read the eBPF sources")?;
    let cache = cache()?;
    let cached = cache.join("ebpf").join(format!("{digest}.o"));
    if cached.exists() {
        say(&format!("sources {digest} are in the cache"));
    } else {
        let built = compile(workspace, &cache)?;
        fs::create_dir_all(cache.join("ebpf")).context("make the object cache")?;
        // Renamed into place, so that nobody meets half an object.
        let partial = cached.with_extension(format!("o.{}", std::process::id()));
        fs::copy(&built, &partial).with_context(|| format!("copy {}", built.display()))?;
        fs::rename(&partial, &cached).context("put the object into the cache")?;
    }
    install_object(workspace, &cached, &digest)
}

/// Copies the object to where `recorder-user/build.rs` looks, with the digest of its sources beside it.
fn install_object(workspace: &Path, cached: &Path, digest: &str) -> Result<()> {
    let object = workspace.join("recorder-user/object/recorder-probe.bpf.o");
    let noted = object.with_extension("src");
    let bytes = fs::read(cached).context("read the cached object")?;
    let same = fs::read(&object).is_ok_and(|old| old == bytes)
        && fs::read_to_string(&noted).is_ok_and(|old| old == digest);
    fs::create_dir_all(workspace.join("recorder-user/object"))
        .context("make the object's directory")?;
    // Unchanged files are left alone: a new time stamp would rebuild what embeds them.
    if !same {
        fs::write(&object, &bytes).context("write the object")?;
        fs::write(&noted, digest).context("write the object's digest")?;
    }
    let shown = object.strip_prefix(workspace).unwrap_or(&object);
    println!("{} ({} bytes, sources {digest})", shown.display(), bytes.len());
    Ok(())
}

/// Runs the compiler. Returns the path of the object.
fn compile(workspace: &Path, cache: &Path) -> Result<PathBuf> {
    let toolchain = Toolchain::find_or_install()?;
    let linker = find_or_install_linker(cache)?;
    // A directory of its own: no lock or cache clash with the cargo that runs this.
    let target_dir = workspace.join("target/ebpf");
    let mut cargo = toolchain.cargo();
    cargo
        .args(["--release", "--locked", "--package", "recorder-ebpf", "--bin", "recorder-probe"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        // The workspace's release profile is for the host: bpf-linker does its own, and BTF needs the debug
        // information whole.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", RUSTFLAGS)
        .current_dir(workspace);
    say(&format!("compiling the programs with {toolchain}"));
    succeed(&mut cargo)?;
    Ok(target_dir.join(TARGET).join("release/recorder-probe"))
}

/// Who can compile for the target.
enum Toolchain {
    /// A rustc that ships `core` for the target (Debian's libstd-rust-web-dev-bpf).
    Prebuilt(PathBuf),
    /// A rustup toolchain with the library's sources: `core` is built too.
    Nightly(String),
}

impl std::fmt::Display for Toolchain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prebuilt(rustc) => write!(f, "{} and its prebuilt core", rustc.display()),
            Self::Nightly(name) => write!(f, "rustup's {name} and -Zbuild-std"),
        }
    }
}

impl Toolchain {
    fn find_or_install() -> Result<Self> {
        if let Some(found) = Self::find()? {
            return Ok(found);
        }
        install_packages("no eBPF toolchain")?;
        Self::find()?.context("the installed rustc has no core for the target")
    }

    /// `EBPF_TOOLCHAIN=+NAME` (rustup) or `EBPF_TOOLCHAIN=/path/to/rustc` decides; else the first that works.
    fn find() -> Result<Option<Self>> {
        let forced = env::var("EBPF_TOOLCHAIN").ok();
        let (rustcs, name) = match forced.as_deref() {
            Some(choice) => match choice.strip_prefix('+') {
                Some(name) => (vec![], Some(name)),
                None => (vec![choice], None),
            },
            None => (vec!["/usr/bin/rustc", "/usr/local/bin/rustc"], Some("nightly")),
        };
        for rustc in rustcs {
            if sysroot(&mut scrubbed(rustc)).is_some_and(|root| has_core(&root)) {
                return Ok(Some(Self::Prebuilt(rustc.into())));
            }
        }
        if let Some(name) = name {
            let mut rustc = scrubbed("rustup");
            rustc.args(["run", name, "rustc"]);
            if sysroot(&mut rustc).is_some_and(|root| has_library_sources(&root)) {
                return Ok(Some(Self::Nightly(name.to_owned())));
            }
        }
        if let Some(choice) = forced {
            bail!(
                "EBPF_TOOLCHAIN={choice} has neither core for {TARGET} nor the library's sources"
            );
        }
        Ok(None)
    }

    /// `cargo build` with this toolchain, in an environment cleared of what the outer cargo put there.
    fn cargo(&self) -> Command {
        match self {
            Self::Prebuilt(rustc) => {
                let mut cargo = scrubbed("cargo");
                // The programs use an unstable intrinsic (atomic additions that return a value).
                cargo.arg("build").env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Nightly(name) => {
                let mut cargo = scrubbed("rustup");
                cargo.args(["run", name, "cargo", "build", "-Zbuild-std=core"]);
                cargo.env_remove("RUSTUP_TOOLCHAIN");
                cargo
            }
        }
    }
}

fn install_packages(why: &str) -> Result<()> {
    let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    ensure!(
        root && Path::new("/usr/bin/apt-get").exists(),
        "{why}, and only root with apt-get can install it from here: install `{}`, or run \
         `rustup toolchain install nightly --component rust-src` and `cargo install bpf-linker`",
        PACKAGES.join(" ")
    );
    say(&format!("{why}: installing {} (about 1 GB on disk)", PACKAGES.join(", ")));
    succeed(scrubbed("apt-get").args(["update", "-qq"]))?;
    succeed(
        scrubbed("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(PACKAGES)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// The linker of the fitting version: in the cache, on PATH, or built into the cache.
fn find_or_install_linker(cache: &Path) -> Result<PathBuf> {
    let tools = cache.join("tools");
    let own = tools.join("bin/bpf-linker");
    for candidate in [own.clone(), PathBuf::from("bpf-linker")] {
        let version = scrubbed(&candidate).arg("--version").output();
        let fits = version.is_ok_and(|out| {
            String::from_utf8_lossy(&out.stdout).split_whitespace().any(|w| w == LINKER_VERSION)
        });
        if fits {
            return Ok(candidate);
        }
    }
    if !Path::new(LLVM_PREFIX).join("lib/libLLVM.so").exists() {
        install_packages("no LLVM for bpf-linker")?;
    }
    say(&format!("installing bpf-linker {LINKER_VERSION} (a minute)"));
    succeed(
        scrubbed("cargo")
            .args(["install", "--locked", "--root"])
            .arg(&tools)
            .args(["bpf-linker", "--version", LINKER_VERSION])
            .args(["--no-default-features", "--features", LINKER_FEATURE])
            .env("LLVM_PREFIX", LLVM_PREFIX),
    )?;
    Ok(own)
}

/// A command without what an outer `cargo run` exports and an inner cargo would take for its own.
pub(crate) fn scrubbed(program: impl AsRef<std::ffi::OsStr>) -> Command {
    const CARGO_EXPORTS: [&str; 11] = [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "MAKEFLAGS",
    ];
    let mut command = Command::new(program);
    for name in CARGO_EXPORTS {
        command.env_remove(name);
    }
    command
}

pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {}", shown(command)))?;
    ensure!(status.success(), "{} failed: {status}", shown(command));
    Ok(())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|word| word.to_string_lossy()));
    words.join(" ")
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let out = rustc.args(["--print", "sysroot"]).output().ok()?;
    out.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()))
}

fn has_core(sysroot: &Path) -> bool {
    fs::read_dir(sysroot.join("lib/rustlib").join(TARGET).join("lib")).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn has_library_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

/// `$XDG_CACHE_HOME/decklog`, or `~/.cache/decklog`.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => {
            PathBuf::from(env::var_os("HOME").context("neither HOME nor XDG_CACHE_HOME is set")?)
                .join(".cache")
        }
    };
    Ok(base.join("decklog"))
}

fn say(what: &str) {
    eprintln!("build-ebpf: {what}");
}

//! Embeds `object/recorder-probe.bpf.o` when `cargo xtask build-ebpf` has put it there. Never builds it: a
//! plain `cargo build` needs no eBPF toolchain, and the witness then says that it has no object.

use std::{
    env, fs,
    io::Result,
    path::{Path, PathBuf},
};

include!("../recorder-ebpf/digest.rs");

fn main() -> Result<()> {
    println!("cargo::rustc-check-cfg=cfg(ebpf_object)");
    // Packagers may bring an object of their own.
    println!("cargo::rerun-if-env-changed=RECORDER_EBPF_OBJECT");
    // The directory, which is in git by its .gitignore: a *file* that is missing would re-run each build.
    println!("cargo::rerun-if-changed=object");
    println!("cargo::rerun-if-changed=../recorder-ebpf");
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let object = env::var_os("RECORDER_EBPF_OBJECT")
        .map_or_else(|| here.join("object/recorder-probe.bpf.o"), PathBuf::from);
    if !object.exists() {
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::copy(&object, out.join("recorder-probe.bpf.o"))?;
    println!("cargo::rustc-cfg=ebpf_object");
    let built_from = fs::read_to_string(object.with_extension("src")).unwrap_or_default();
    let workspace = here.parent().unwrap_or(Path::new(".."));
    if built_from.trim() != source_digest(workspace)? {
        println!(
            "cargo::warning=the eBPF object is of other sources: run `cargo xtask build-ebpf`"
        );
    }
    Ok(())
}

//! Dependencies point one way (ARCHITECTURE.md, code map). A word that appears where it must not is a
//! dependency that was not there before.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file, without comments: a comment may say what the code must not.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(|line| code(line) + "\n").collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn check(folder: &str, allowed: impl Fn(&Path) -> bool, forbidden: &[&str]) {
    let files = sources(&root().join(folder));
    assert!(!files.is_empty(), "{folder} has no sources");
    for file in files.iter().filter(|file| !allowed(file)) {
        let code = code(file);
        for word in forbidden {
            assert!(!code.contains(word), "{} names {word:?}", file.display());
        }
    }
}

#[test]
fn pure_modules_know_no_runtime() {
    for module in ["wire", "model", "effect", "redact"] {
        let folder = format!("recorder-user/src/{module}");
        check(&folder, |_| false, &["tokio", "std::fs", "std::net", "Instant::now"]);
    }
}

#[test]
fn modules_depend_one_way() {
    let order = [
        "wire", "model", "effect", "redact", "witness", "store", "socket", "replay", "export",
        "cli",
    ];
    let above = |module: &str| -> Vec<String> {
        let peers = ["effect", "redact", "witness", "store"];
        let place = order.iter().position(|name| *name == module).expect("a module");
        order[place + 1..]
            .iter()
            .chain(peers.iter().filter(|_| peers.contains(&module)))
            .filter(|name| **name != module)
            .map(|name| format!("crate::{name}"))
            .collect()
    };
    for module in order {
        let above = above(module);
        let words: Vec<&str> = above.iter().map(String::as_str).collect();
        check(&format!("recorder-user/src/{module}"), |_| false, &words);
    }
}

#[test]
fn one_file_names_each_database_and_only_the_probe_names_aya() {
    for database in ["sled", "redb"] {
        let own = format!("store/index/{database}.rs");
        let its_file = |path: &Path| path.to_string_lossy().ends_with(&own);
        let words =
            [format!("use {database}::"), format!(" {database}::"), format!("({database}::")];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        check("recorder-user/src", its_file, &words);
        let file = root().join("recorder-user/src").join(&own);
        assert!(code(&file).contains(&format!("use {database}::")), "{own}");
        let manifests = ["gateway", "tests", "xtask", "recorder-ebpf", "fuzz"];
        for manifest in manifests.map(|package| root().join(package).join("Cargo.toml")) {
            let text = fs::read_to_string(&manifest).expect("its manifest");
            assert!(!text.contains(database), "{} names {database}", manifest.display());
        }
    }
    let probe = |path: &Path| path.to_string_lossy().contains("/witness/probe/");
    check("recorder-user/src", probe, &["aya::", "aya_log"]);
}

#[test]
fn the_gateway_names_none_of_them_and_has_no_unsafe_code() {
    check("gateway/src", |_| false, &["sled", "redb", "aya", "unsafe "]);
    let manifest = fs::read_to_string(root().join("gateway/Cargo.toml")).expect("its manifest");
    assert!(!manifest.contains("aya"), "gateway/Cargo.toml names aya");
}

#[test]
fn only_the_archive_names_the_object_store() {
    let words = ["object_store::", "parquet::", "arrow_array", "datafusion"];
    for folder in ["recorder-user/src", "gateway/src"] {
        check(folder, |_| false, &words);
    }
}

//! Loading from files, and changing them under a running store.

use std::{fs, path::Path, sync::Arc, time::Duration};

use gateway::policy::{
    LoadPolicyError, PolicySource, PolicyStore, Reload,
    command::{self, ExplainRequest},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const ALL: &str = "permit(principal, action, resource);";

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    write(directory.path(), files);
    directory
}

fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
}

fn store(directory: &Path) -> PolicyStore {
    PolicyStore::open(PolicySource::in_directory(directory)).expect("valid")
}

#[test]
fn a_good_set_takes_effect_and_a_bad_one_does_not() {
    let directory = directory(&[("access/a.cedar", ALL)]);
    let store = store(directory.path());
    let changes = store.subscribe();
    let first = store.current().hash().to_owned();
    assert_eq!(store.reload().expect("valid"), Reload::Unchanged);

    write(directory.path(), &[("access/b.cedar", "forbid(principal, action, resource")]);
    let error = store.reload().expect_err("a syntax error");
    assert!(matches!(error, LoadPolicyError::Invalid(_)), "{error}");
    assert_eq!(store.current().hash(), first);
    let refused = store.status().refused.clone().expect("told in the status");
    assert!(refused.contains("access/b.cedar"), "{refused}");
    assert!(!changes.has_changed().expect("open"));

    write(directory.path(), &[("access/b.cedar", "forbid(principal, action, resource);")]);
    assert_eq!(store.reload().expect("valid"), Reload::Swapped);
    assert_ne!(store.current().hash(), first);
    assert_eq!((store.status().refused.clone(), store.current().sizes()), (None, (2, 0)));
    assert!(changes.has_changed().expect("open"));

    fs::remove_file(directory.path().join("access/b.cedar")).expect("it is there");
    assert_eq!(store.reload().expect("valid"), Reload::Swapped);
    assert_eq!(store.current().hash(), first, "the hash is of the content alone");

    fs::remove_dir_all(directory.path().join("access")).expect("it is there");
    assert!(matches!(store.reload(), Err(LoadPolicyError::Read { .. })));
    assert_eq!(store.current().hash(), first);
}

#[test]
fn a_refusal_is_forgotten_when_the_files_are_back() {
    let directory = directory(&[("access/a.cedar", ALL)]);
    let store = store(directory.path());
    write(directory.path(), &[("access/a.cedar", "nonsense")]);
    assert!(store.reload().is_err() && store.status().refused.is_some());
    write(directory.path(), &[("access/a.cedar", ALL)]);
    assert_eq!(store.reload().expect("valid"), Reload::Unchanged);
    assert_eq!(store.status().refused, None);
}

#[test]
fn the_operators_tests_hold_a_set_back() {
    let tests = "tests:\n- {name: closed, user: ada, request: GET /api, expect: deny}\n";
    let directory = directory(&[("access/a.cedar", ""), ("access/tests.yaml", tests)]);
    let store = store(directory.path());
    write(directory.path(), &[("access/a.cedar", ALL)]);
    let error = store.reload().expect_err("the test fails");
    assert!(matches!(&error, LoadPolicyError::Tests(failures) if failures.len() == 1), "{error}");
    assert!(error.to_string().contains("closed: expected deny, got allow"), "{error}");
    assert_eq!(store.current().sizes(), (0, 0));

    let outcome = command::test(directory.path());
    assert_eq!(outcome.code, 1);
    assert!(outcome.text.contains("0 of 1 tests passed"), "{}", outcome.text);
    write(directory.path(), &[("access/tests.yaml", "tests: [{nme: x}]")]);
    assert!(matches!(store.reload(), Err(LoadPolicyError::Invalid(_))));
    write(directory.path(), &[("access/tests.yaml", "tests: []")]);
    assert_eq!(store.reload().expect("valid"), Reload::Swapped);
}

#[test]
fn only_cedar_files_count_and_recording_is_optional() {
    let directory = directory(&[
        ("access/a.cedar", ALL),
        ("access/.hidden.cedar", "nonsense"),
        ("access/a.cedar~", "nonsense"),
        ("access/readme.txt", "nonsense"),
        ("recording/r.cedar", r#"@level("none") permit(principal, action, resource);"#),
    ]);
    assert_eq!(store(directory.path()).current().sizes(), (1, 1));
    let only_access = directory.path().join("access");
    assert_eq!(store(&only_access).current().sizes(), (1, 0));
}

#[test]
fn commands_have_exit_codes() {
    let directory = directory(&[(
        "access/a.cedar",
        r#"@id("reads")
        permit(principal in k8s::Group::"agents", action == k8s::Action::"get", resource);"#,
    )]);
    let outcome = command::check(directory.path());
    assert_eq!(outcome.code, 0);
    assert!(
        outcome.text.starts_with("valid: 1 access and 0 recording policies"),
        "{}",
        outcome.text
    );
    assert_eq!(command::test(directory.path()).code, 2, "there are no tests");
    assert_eq!(command::check(&directory.path().join("absent")).code, 2);

    let explain = |request: &str| {
        let (user, groups) = ("ada".to_owned(), vec!["agents".to_owned()]);
        let (cluster, request) = ("prod".to_owned(), request.to_owned());
        let asked = ExplainRequest { user, groups, cluster, request, ..ExplainRequest::default() };
        command::explain(directory.path(), &asked)
    };
    let outcome = explain("GET /api/v1/namespaces/n/pods/p");
    assert_eq!(outcome.code, 0);
    assert!(outcome.text.starts_with("allow by a.cedar/reads\n"), "{}", outcome.text);
    assert!(
        outcome.text.contains("recorded: full (no recording policy applies)"),
        "{}",
        outcome.text
    );
    let outcome = explain("GET /api/v1/nodes/n/proxy/x");
    assert_eq!(outcome.code, 1);
    assert!(outcome.text.contains("overruled: a.cedar/reads permits it"), "{}", outcome.text);
    assert_eq!(explain("GET /api/v1/nodes/../pods").code, 1);
    write(directory.path(), &[("access/a.cedar", "nonsense")]);
    assert_eq!((command::check(directory.path()).code, explain("GET /api").code), (1, 1));
}

#[tokio::test]
async fn changed_files_take_effect_by_themselves() {
    let directory = directory(&[("access/a.cedar", "")]);
    let store = Arc::new(store(directory.path()));
    let mut changes = store.subscribe();
    let cancelled = CancellationToken::new();
    let watch = Arc::clone(&store).watch(cancelled.clone());
    let change = async {
        write(directory.path(), &[("access/a.cedar", ALL)]);
        let changed = tokio::time::timeout(Duration::from_secs(60), changes.changed()).await;
        changed.expect("noticed in time").expect("the store lives");
        assert_eq!(store.current().sizes(), (1, 0));
        cancelled.cancel();
    };
    tokio::join!(watch, change);
}

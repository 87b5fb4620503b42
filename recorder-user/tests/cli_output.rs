//! What the verbs print, for people and for programs.

mod cli_support;

use std::time::Duration;

use clap::Parser as _;
use cli_support::{alices_store, exchange, recorder, session};
use recorder_user::cli::{Cli, Look, Screen, run};

#[test]
fn replay_tells_the_session() {
    let store = alices_store();
    let ran = recorder(store.path(), &["replay", &session(1).to_string()]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    println!("{}", ran.out);
    assert_eq!(ran.out, "x");
}

#[test]
fn probe() {
    let store = alices_store();
    for args in [&["ls"][..], &["ls", "--json"], &["search"], &["search", "--json", "--limit", "1"], &["show", "a501"], &["show", "ec03"], &["show", "ec04"], &["show", "ec03", "--json"], &["verify"], &["verify", "--json"], &["witness"], &["reindex"], &["replay", "--json", "a501"]] {
        let ran = recorder(store.path(), args);
        println!("$ {args:?} -> {}\n{}\n{}", ran.code, ran.out, ran.err);
    }
    let _ = (exchange(1), Duration::ZERO, Cli::try_parse_from([""]).is_ok(), Look::PLAIN);
    let _: fn(&Cli, &mut Screen<'_>) -> _ = run;
    panic!()
}

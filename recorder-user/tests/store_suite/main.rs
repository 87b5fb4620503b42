//! The store from outside: durability, recovery, verification, rows, under faults and kills.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod bad_days;
mod bundle;
mod copies;
mod damage;
mod faults;
mod index;
mod live;
mod live_rows;
#[allow(dead_code, unreachable_pub, reason = "the program's own main is not called here")]
#[path = "../../examples/recorder-verify.rs"]
mod recorder_verify;
mod retention;
mod support;
mod tamper;
mod verdict;

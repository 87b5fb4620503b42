//! The store from outside: durability, recovery, verification, rows, under faults and kills.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod crash;
mod damage;
mod faults;
mod index;
mod live;
mod live_rows;
mod support;

//! The store from outside: durability, recovery, verification, rows, under faults and kills.

mod crash;
mod damage;
mod faults;
mod index;
mod live;
mod support;

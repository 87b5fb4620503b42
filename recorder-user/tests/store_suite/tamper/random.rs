//! Too many places to try them all: some at random.

use std::{fs, sync::LazyLock};

use proptest::{prelude::*, sample::Index};

use super::{copy, found, signed_store};
use crate::support::*;

/// Bytes are overwritten, taken away, put in, exchanged or come twice.
#[derive(Clone, Debug)]
enum Change {
    Overwrite(Index, Vec<u8>),
    Remove(Index, Index),
    Insert(Index, Vec<u8>),
    Copy(Index, Index, usize),
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) -> usize {
        let bytes = file.len();
        match self {
            Self::Overwrite(at, with) => {
                let at = at.index(bytes);
                for (byte, with) in file[at..].iter_mut().zip(with) {
                    *byte = *with;
                }
                at
            }
            Self::Remove(a, b) => {
                let (a, b) = (a.index(bytes), b.index(bytes));
                file.drain(a.min(b)..=a.max(b));
                a.min(b)
            }
            Self::Insert(at, with) => {
                let at = at.index(bytes);
                file.splice(at..at, with.iter().copied());
                at
            }
            Self::Copy(from, to, length) => {
                let (from, to) = (from.index(bytes), to.index(bytes));
                let length = (*length).min(bytes - from.max(to));
                file.copy_within(from..from + length, to);
                to
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Change> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..40);
    prop_oneof![
        (any::<Index>(), bytes()).prop_map(|(at, with)| Change::Overwrite(at, with)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Remove(a, b)),
        (any::<Index>(), bytes()).prop_map(|(at, with)| Change::Insert(at, with)),
        (any::<Index>(), any::<Index>(), 1..2000_usize)
            .prop_map(|(from, to, length)| Change::Copy(from, to, length)),
    ]
}

static STORE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(signed_store(12))
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn what_is_not_as_it_was_is_found_where_it_begins(which: Index, change in changes()) {
        let work = copy(STORE.path());
        let files = segments(work.path());
        let file = &files[which.index(files.len())];
        let good = fs::read(file).expect("readable");
        let mut bad = good.clone();
        change.apply(&mut bad);
        fs::write(file, &bad).expect("writable");
        let same = good.iter().zip(&bad).take_while(|(good, bad)| good == bad).count();
        match found(work.path()) {
            None => prop_assert_eq!(good, bad),
            Some((told, offset)) => {
                prop_assert_eq!(&told, file);
                // The record that has the first byte that differs.
                let begins = super::attacker::Segment::read(&segments(STORE.path())[
                    files.iter().position(|other| other == file).expect("it is one of them")
                ]).forge().1;
                let begin = begins.iter().rfind(|begin| **begin <= same).copied().unwrap_or(0);
                prop_assert_eq!(offset, begin as u64, "the first byte that differs is {}", same);
            }
        }
    }
}

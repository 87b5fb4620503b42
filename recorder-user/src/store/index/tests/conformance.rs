//! What every table must do: each database against the same model.

use std::{collections::BTreeMap, ops::Bound, sync::Mutex};

use proptest::prelude::*;

use super::super::table::{KEY_BYTES_MAX, Put, VALUE_BYTES_MAX};
use super::*;
use crate::store::queue::lock;

/// What a table must do, in memory.
#[derive(Default)]
struct Model(Mutex<Cells>);

/// Tree and key to value.
type Cells = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

impl Table for Model {
    fn put_many(&self, puts: &[Put]) -> Result<(), TableError> {
        let mut rows = lock(&self.0);
        for Put { tree, key, value } in puts {
            let key = (*tree as u8, key.clone());
            match value {
                Some(value) => rows.insert(key, value.clone()),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(lock(&self.0).get(&(tree as u8, key.to_vec())).cloned())
    }

    fn range(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), TableError> {
        let from = match after {
            Some(after) => Bound::Excluded((tree as u8, after.to_vec())),
            None => Bound::Included((tree as u8, Vec::new())),
        };
        let to = Bound::Excluded((tree as u8 + 1, Vec::new()));
        for ((_, key), value) in lock(&self.0).range((from, to)) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn durable(&self) -> Result<(), TableError> {
        Ok(())
    }

    fn stats(&self) -> Result<u64, TableError> {
        Ok(0)
    }

    fn reopen(&mut self) -> Result<(), TableError> {
        Ok(())
    }
}

fn put(tree: Tree, key: &[u8], value: Option<&[u8]>) -> Put {
    Put { tree, key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
}

/// Rows from a key on, at most so many.
fn rows(
    table: &dyn Table,
    tree: Tree,
    after: Option<&[u8]>,
    max: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seen = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        seen.push((key.to_vec(), value.to_vec()));
        if seen.len() == max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    table.range(tree, after, visit).expect("it reads");
    seen
}

fn assert_same(table: &dyn Table, model: &dyn Table, keys: &[Vec<u8>]) {
    for tree in Tree::ALL {
        assert!(rows(table, tree, None, usize::MAX) == rows(model, tree, None, usize::MAX));
        for key in keys {
            assert_eq!(
                table.get(tree, key).expect("it reads"),
                model.get(tree, key).expect("it reads")
            );
            assert!(rows(table, tree, Some(key), 3) == rows(model, tree, Some(key), 3), "{key:?}");
        }
    }
}

/// Runs the same test for each database.
fn for_each_database(check: impl Fn(IndexBackend, &Path, Box<dyn Table>)) {
    for backend in IndexBackend::ALL {
        let directory = tempfile::tempdir().expect("a directory");
        let table = backend.open(directory.path()).expect("a new database");
        check(backend, directory.path(), table);
    }
}

#[test]
fn many_rows_come_and_go_in_all_trees() {
    for_each_database(|backend, directory, mut table| {
        let model = Model::default();
        let keys: Vec<Vec<u8>> = (0..501_u32).map(|i| i.to_be_bytes().to_vec()).collect();
        for i in 0..500_usize {
            let value = (i as u32).to_le_bytes().repeat(i % 1024);
            let puts = [
                put(Tree::ALL[i % 7], &keys[i * 7 % 500], Some(&value)),
                put(Tree::Active, &keys[i], Some(b"")),
                put(Tree::Active, &keys[i / 2], None),
            ];
            table.put_many(&puts).expect("it puts");
            model.put_many(&puts).expect("it puts");
        }
        assert_same(&*table, &model, &keys);
        table.durable().expect("it flushes");
        table.reopen().expect("it closes and opens");
        assert_same(&*table, &model, &keys);
        assert!(table.stats().expect("it answers") > 100_000, "{backend}");
        drop(table);
        let table = backend.open(directory).expect("its own files");
        assert_same(&*table, &model, &keys);
    });
}

#[test]
fn what_is_over_the_bounds_is_refused_with_all_that_comes_with_it() {
    for_each_database(|backend, _, table| {
        let (key, value) = ([7; KEY_BYTES_MAX + 1], [7; VALUE_BYTES_MAX + 1]);
        for (key, value) in [(&key[..], &value[1..]), (&key[1..], &value[..])] {
            let puts =
                [put(Tree::Sessions, b"good", Some(b"1")), put(Tree::Meta, key, Some(value))];
            let refused = table.put_many(&puts);
            assert!(matches!(refused, Err(TableError::RowTooLarge { .. })), "{backend}");
            assert_eq!(table.get(Tree::Sessions, b"good").expect("it reads"), None, "{backend}");
        }
        let largest = put(Tree::Meta, &key[1..], Some(&value[1..]));
        table.put_many(&[largest]).expect("it is within the bounds");
        let found = table.get(Tree::Meta, &key[1..]).expect("it reads");
        assert!(found.expect("it was put") == value[1..], "{backend}");
    });
}

#[test]
fn its_files_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    for_each_database(|_, directory, table| {
        let mut folders = vec![directory.to_owned()];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("readable") {
                let path = entry.expect("an entry").path();
                let metadata = fs::metadata(&path).expect("it is there");
                if metadata.is_dir() {
                    folders.push(path);
                } else {
                    assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{}", path.display());
                    files += 1;
                }
            }
        }
        assert!(files > 0);
        drop(table);
    });
}

#[test]
fn a_second_user_is_refused() {
    for_each_database(|backend, directory, table| {
        assert!(backend.open(directory).is_err(), "{backend}");
        drop(table);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Any puts, in any batches, whatever is removed again.
    #[test]
    fn it_does_what_the_model_does(
        batches in prop::collection::vec(
            prop::collection::vec(
                (0..7_usize, prop::collection::vec(0..4_u8, 0..4), prop::option::of(0..2000_usize)),
                0..20,
            ),
            1..12,
        ),
    ) {
        for_each_database(|_, _, mut table| {
            let model = Model::default();
            let mut keys = Vec::new();
            for (i, batch) in batches.iter().enumerate() {
                let puts: Vec<Put> = batch
                    .iter()
                    .map(|(tree, key, length)| {
                        let value = length.map(|length| vec![i as u8; length]);
                        put(Tree::ALL[*tree], key, value.as_deref())
                    })
                    .collect();
                keys.extend(puts.iter().map(|put| put.key.clone()));
                table.put_many(&puts).expect("it puts");
                model.put_many(&puts).expect("it puts");
                if i == 5 {
                    table.reopen().expect("it closes and opens");
                }
            }
            assert_same(&*table, &model, &keys);
        });
    }
}

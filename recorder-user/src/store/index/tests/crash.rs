//! What every table must do when its process is killed, and when its files are not what they were.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use super::super::table::Put;
use super::*;

const CHILD: &str = "DECKLOG_INDEX_TEST_CHILD";
const KILLS: u32 = 12;
/// Rows that each batch puts, in several trees.
const ROWS: u32 = 40;

fn batch(number: u32) -> Vec<Put> {
    let value = Some(number.to_le_bytes().repeat(60));
    let mut puts: Vec<Put> = (0..ROWS)
        .map(|row| {
            // Some rows are new, some take the place of an earlier batch's.
            let key = if row % 2 == 0 { vec![row as u8] } else { key(number, row) };
            Put { tree: Tree::ALL[row as usize % 6], key, value: value.clone() }
        })
        .collect();
    let last = Some(number.to_le_bytes().to_vec());
    puts.push(Put { tree: Tree::Meta, key: b"last".to_vec(), value: last });
    puts
}

fn key(number: u32, row: u32) -> Vec<u8> {
    [number.to_be_bytes(), row.to_be_bytes()].concat()
}

fn last(table: &dyn Table) -> Option<u32> {
    let stored = table.get(Tree::Meta, b"last").expect("it reads")?;
    Some(u32::from_le_bytes(stored.try_into().expect("four bytes")))
}

/// All batches up to the last that is there are there, whole, and none of a later one.
fn assert_is_a_prefix(table: &dyn Table, why: &str) -> Option<u32> {
    let last = last(table);
    let count = last.map_or(0, |last| last + 1);
    for put in last.map(batch).unwrap_or_default() {
        assert_eq!(table.get(put.tree, &put.key).expect("it reads"), put.value, "{why}");
    }
    for tree in 0..6 {
        let mut found = 0;
        let each = &mut |key: &[u8], _: &[u8]| {
            let number = key.first_chunk().map(|number| u32::from_be_bytes(*number));
            assert!(number.is_none_or(|number| number < count), "{why}: of batch {number:?}");
            found += u32::from(number.is_some());
            ControlFlow::Continue(())
        };
        table.range(Tree::ALL[tree], None, each).expect("it reads");
        let of_a_batch = (0..ROWS).filter(|row| row % 2 == 1 && row % 6 == tree as u32).count();
        assert_eq!(found, count * of_a_batch as u32, "{why}: in {tree}");
    }
    last
}

/// Not a test: what the next test runs in a process of its own, to kill it.
#[test]
fn child_that_puts_until_it_is_killed() {
    let Some(given) = std::env::var_os(CHILD) else { return };
    let given = given.into_string().expect("text");
    let (backend, directory) = given.split_once(' ').expect("a database and a directory");
    let backend: IndexBackend = backend.parse().expect("a database");
    let table = backend.open(Path::new(directory)).expect("it opens");
    for number in last(&*table).map_or(0, |last| last + 1).. {
        table.put_many(&batch(number)).expect("it puts");
        let mut word = "put";
        if number % 16 == 15 {
            table.durable().expect("it flushes");
            word = "durable";
        }
        std::io::stdout().write_all(format!("{word} {number}\n").as_bytes()).expect("heard");
    }
}

/// Runs the child and kills it after so many batches; gives the last that it said was durable.
fn put_and_kill(backend: IndexBackend, directory: &Path, after: u32) -> Option<u32> {
    let test = "store::index::tests::crash::child_that_puts_until_it_is_killed";
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, format!("{backend} {}", directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program runs");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (mut durable, mut heard, mut killed) = (None, 0, false);
    for line in output.lines() {
        let line = line.expect("text");
        if let Some((_, number)) = line.split_once("durable ") {
            durable = Some(number.parse().expect("a whole line"));
        }
        heard += u32::from(line.contains("put ") || line.contains("durable "));
        if heard >= after && !killed {
            child.kill().expect("it still runs");
            killed = true;
        }
    }
    child.wait().expect("it ends");
    assert!(killed, "it ended by itself");
    durable
}

#[test]
fn after_kill_9_whole_batches_are_there_and_none_is_missing_between() {
    for backend in IndexBackend::ALL {
        let directory = tempfile::tempdir().expect("a directory");
        let mut durable = None;
        for kill in 0..KILLS {
            // The moments differ by an arithmetic that hits all phases, not by chance.
            durable = put_and_kill(backend, directory.path(), 1 + kill * 37 % 101).max(durable);
            let why = format!("{backend}, kill {kill}");
            let table = backend.open(directory.path()).expect(&why);
            let last = assert_is_a_prefix(&*table, &why);
            assert!(last >= durable, "{why}: {durable:?} was durable, and {last:?} is the last");
        }
        assert!(durable > Some(100), "{backend}: the kills left it time to put");
    }
}

/// The largest file of the database.
fn main_file(directory: &Path) -> PathBuf {
    let mut folders = vec![directory.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let bytes = |path: &PathBuf| fs::metadata(path).expect("it is there").len();
    files.into_iter().max_by_key(bytes).expect("there are files")
}

fn read_all(table: &dyn Table) -> Result<(), TableError> {
    for tree in Tree::ALL {
        table.range(tree, None, &mut |_, _| ControlFlow::Continue(()))?;
    }
    Ok(())
}

/// Whatever became of the files, the process goes on: the database says that it cannot, or has what it had at an
/// earlier time.
#[test]
fn damaged_files_are_errors_or_an_earlier_time() {
    for backend in IndexBackend::ALL {
        let good = tempfile::tempdir().expect("a directory");
        let table = backend.open(good.path()).expect("a new database");
        (0..60).for_each(|number| table.put_many(&batch(number)).expect("it puts"));
        table.durable().expect("it flushes");
        drop(table);
        let file = main_file(good.path());
        let name = file.strip_prefix(good.path()).expect("it is in there").to_owned();
        let bytes = fs::read(&file).expect("readable");
        let mut noticed = 0;
        let mut check = |what: String, damaged: Vec<u8>| {
            let bad = tempfile::tempdir().expect("a directory");
            copy(good.path(), bad.path());
            fs::write(bad.path().join(&name), damaged).expect("writable");
            let opened = backend.open(bad.path()).and_then(|table| {
                read_all(&*table)?;
                let last = assert_is_a_prefix(&*table, &what);
                table.put_many(&batch(99))?;
                table.durable()?;
                Ok(last)
            });
            noticed += u32::from(!matches!(opened, Ok(Some(59))));
            // It can be begun again in the same place.
            fs::remove_dir_all(bad.path()).expect("writable");
            fs::create_dir(bad.path()).expect("writable");
            let table = backend.open(bad.path()).expect(&what);
            table.put_many(&batch(0)).expect(&what);
        };
        let eighth = bytes.len() / 8;
        for from in (0..8).map(|i| i * eighth) {
            check(format!("{backend} cut to {from}"), bytes[..from].to_vec());
            let mut zeros = bytes.clone();
            zeros[from..from + eighth].fill(0);
            check(format!("{backend} zeros from {from}"), zeros);
            let mut noise = bytes.clone();
            for (i, byte) in noise[from..from + eighth].iter_mut().enumerate() {
                *byte ^= (i * 151 + 7) as u8 | 1;
            }
            check(format!("{backend} noise from {from}"), noise);
        }
        check(format!("{backend} all noise"), b"noise ".repeat(bytes.len() / 6));
        assert!(noticed > 8, "{backend}: the damage hits what is read");
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).expect("writable");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("writable");
        }
    }
}

use std::{
    future::Future as _,
    path::{Path, PathBuf},
    task::{Context, Waker},
};

use bytes::Bytes;

use super::{super::disk::SystemDisk, *};
use crate::{model::Kind, store::head::HeadFile};

fn shared(room: usize) -> Shared {
    let sync = Arc::new(Syncer::new(Duration::ZERO, HeadFile::of(Path::new("/nowhere"))));
    let floor = Arc::new(Floor::new(Arc::new(SystemDisk), PathBuf::new(), Some(0)));
    Shared::new(PathBuf::new(), floor, room, SegmentId::new(), sync, Arc::default())
}

fn record() -> Record {
    Record::Unknown { kind: Kind(999), payload: Bytes::new() }
}

fn put(shared: &Shared, weight: usize, waiter: Option<Waiter>) {
    let room = shared.room_or_reserve(weight).expect("there is room");
    let entry = Entry { record: record(), room: room.permits, reserved: room.reserved, waiter };
    shared.push(entry).expect("it works");
}

fn put_all(shared: &Shared, weight: usize, waiter: Option<Waiter>) {
    let room = shared.room_or_reserve(weight).expect("there is room");
    assert!(shared.push_all(vec![record(), record()], room, waiter).is_ok());
}

fn waiter() -> (Option<Waiter>, oneshot::Receiver<Answer>) {
    let (answer, receiver) = oneshot::channel();
    (Some(Waiter { durable: false, answer }), receiver)
}

fn is_pressing(shared: &Shared) -> bool {
    lock(&shared.queue).pressing
}

/// Takes what is queued and gives its room back, as the writer does.
fn write(shared: &Shared) -> usize {
    let mut batch = Vec::new();
    assert!(matches!(shared.take(&mut batch, None), Work::Batch));
    for entry in &batch {
        shared.free(entry.room, entry.reserved);
    }
    batch.len()
}

#[test]
fn what_nobody_waits_for_gathers_until_someone_waits() {
    let shared = shared(1 << 20);
    put(&shared, 1000, None);
    put_all(&shared, 1000, None);
    assert!(!is_pressing(&shared));
    let (waits, _answer) = waiter();
    put(&shared, 1000, waits);
    assert!(is_pressing(&shared));
    assert_eq!(write(&shared), 4);
    assert!(!is_pressing(&shared), "that was written");
    let (waits, _answer) = waiter();
    put_all(&shared, 1000, waits);
    assert!(is_pressing(&shared));
}

#[test]
fn what_nobody_waits_for_is_written_all_the_same() {
    let shared = shared(1 << 20);
    put(&shared, 1000, None);
    assert_eq!(write(&shared), 1);
}

#[test]
fn much_does_not_gather() {
    let shared = shared(1 << 20);
    put(&shared, GATHER_BYTES_MAX / 2, None);
    assert!(!is_pressing(&shared));
    put_all(&shared, GATHER_BYTES_MAX / 2, None);
    assert!(is_pressing(&shared));
    write(&shared);
    put(&shared, 1000, None);
    assert!(!is_pressing(&shared), "counted anew");
}

#[test]
fn the_reserve_counts_too() {
    let shared = shared(1 << 20);
    put(&shared, (1 << 20) - 1, None);
    write(&shared);
    let held = shared.room.try_acquire_many(1 << 20).expect("all room is free");
    put(&shared, GATHER_BYTES_MAX, None);
    assert!(is_pressing(&shared));
    drop(held);
}

#[test]
fn nothing_gathers_while_someone_waits_for_room() {
    let shared = shared(4000);
    put(&shared, 1000, None);
    let mut cx = Context::from_waker(Waker::noop());
    let mut acquire = Box::pin(shared.acquire(3500));
    assert!(acquire.as_mut().poll(&mut cx).is_pending());
    assert!(is_pressing(&shared));
    assert_eq!(write(&shared), 1);
    assert!(acquire.as_mut().poll(&mut cx).is_ready());
    drop(acquire);
    put(&shared, 100, None);
    assert!(!is_pressing(&shared), "nobody waits any more");

    let mut gives_up = Box::pin(shared.acquire(3500));
    assert!(gives_up.as_mut().poll(&mut cx).is_pending());
    write(&shared);
    put(&shared, 100, None);
    assert!(is_pressing(&shared), "someone still waits");
    drop(gives_up);
    write(&shared);
    put(&shared, 100, None);
    assert!(!is_pressing(&shared));
}

//! Nothing is lost and nobody is asked for help too early, however long the archive is away.

use std::{pin::pin, time::Duration};

use archive::Class;
use recorder_user::{
    model::{ExchangeId, SessionId},
    store::archive::{ArchiveState, is_archived},
};

use crate::{
    faulty::{Bench, Fault},
    records::{at, finished, opened, session, store},
};

const HOUR: Duration = Duration::from_secs(3600);

async fn some_segments(bench: &Bench) {
    let id = SessionId::new();
    let records = |n: i64| vec![opened(id, ExchangeId::new(), at(n))];
    let mut first = vec![session(id, at(0))];
    first.extend(records(1));
    store(bench.directory.path(), vec![first, records(2), records(3)]).await;
}

#[tokio::test]
async fn an_outage_of_hours_ends_in_an_archive() {
    let bench = Bench::new();
    some_segments(&bench).await;
    bench.objects.set(Fault::Down);
    let archiver = bench.archiver();
    let health = archiver.health();
    let mut running = pin!(archiver.run());

    bench.time.pass(HOUR / 2, &mut running).await;
    let view = health.view();
    assert!(!view.alarm, "half an hour is no reason to wake somebody: {view:?}");
    assert_eq!(view.failing.as_ref().map(|(class, _)| *class), Some(Class::Unreachable));
    assert_eq!((view.pending_segments, view.archived_segments), (3, 0));

    bench.time.pass(HOUR * 6, &mut running).await;
    let view = health.view();
    assert!(view.alarm, "{view:?}");
    let attempts = bench.objects.requests();
    assert!((78..130).contains(&attempts), "{attempts} attempts in 6.5 hours, 5 minutes apart");
    assert_eq!(view.failures.get(&Class::Unreachable), Some(&attempts));
    for segment in finished(bench.directory.path()) {
        assert!(!is_archived(bench.directory.path(), segment.segment));
    }

    bench.objects.set(Fault::None);
    bench.time.pass(HOUR / 4, &mut running).await;
    let view = health.view();
    assert!(!view.alarm && view.failing.is_none(), "{view:?}");
    assert_eq!((view.pending_segments, view.pending_bytes, view.archived_segments), (0, 0, 3));
    for segment in finished(bench.directory.path()) {
        assert!(is_archived(bench.directory.path(), segment.segment));
        let name = format!(
            "decklog/segments/{}/{}.seg",
            segment.gateway.expect("a header"),
            segment.segment
        );
        let local = std::fs::read(&segment.path).expect("a segment");
        assert_eq!(bench.objects.bytes(&name).await, local, "{name}");
    }
}

#[tokio::test]
async fn refused_credentials_call_for_help_at_once_and_heal() {
    let bench = Bench::new();
    some_segments(&bench).await;
    bench.objects.set(Fault::Denied);
    let archiver = bench.archiver();
    let health = archiver.health();
    let mut running = pin!(archiver.run());
    bench.time.pass(Duration::from_secs(1), &mut running).await;
    assert!(health.view().alarm, "{:?}", health.view());
    bench.objects.set(Fault::None);
    bench.time.pass(HOUR, &mut running).await;
    let view = health.view();
    assert!(!view.alarm && view.archived_segments == 3, "{view:?}");
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_found_done() {
    let bench = Bench::new();
    some_segments(&bench).await;
    bench.objects.set(Fault::AnswersLost);
    let mut archiver = bench.archiver();
    archiver.pass().await.expect_err("the answer was lost");
    let names = bench.objects.names().await;
    assert_eq!(names.len(), 1, "{names:?}");
    bench.objects.set(Fault::None);
    let pass = archiver.pass().await.expect("it works");
    assert_eq!((pass.archived, pass.held), (3, 0));
}

#[tokio::test]
async fn what_is_noted_can_be_deleted_and_is_found_out_again() {
    let bench = Bench::new();
    some_segments(&bench).await;
    bench.archiver().pass().await.expect("it works");
    let names = bench.objects.names().await;
    let state = ArchiveState::of(bench.directory.path());
    let noted = state.all().expect("readable");
    assert_eq!(noted.len(), 3);
    std::fs::remove_dir_all(bench.directory.path().join("archive")).expect("state files");
    let pass = bench.archiver().pass().await.expect("it works");
    assert_eq!((pass.archived, pass.held), (3, 0));
    assert_eq!(bench.objects.names().await, names, "nothing was stored anew");
    let again = state.all().expect("readable");
    for (segment, copied) in noted {
        assert_eq!(again[&segment].blake3, copied.blake3);
    }
    let before = bench.objects.requests();
    bench.archiver().pass().await.expect("it works");
    assert_eq!(bench.objects.requests(), before, "what is noted is not asked for");
}

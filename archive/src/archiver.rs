//! The order of things: which segment next, what to do when it does not work, and when to call for help.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use recorder_user::{
    model::{GatewayId, SegmentId, Timestamp},
    store::{
        Reader,
        archive::{ArchiveState, Carried, Copied, FinishedSegment},
    },
};

use crate::{
    backoff::{self, Backoff},
    bucket::Bucket,
    copy::{self, Put},
    failure::{Class, Failure, chain},
    health::Health,
    tables::{SCHEMA_VERSION, TableFile, table_files},
    time::Time,
};

/// How an archiver works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiverOptions {
    /// The store.
    pub store: PathBuf,
    /// How often it is looked at for finished segments.
    pub interval: Duration,
    /// A segment that could not be archived for this long raises the alarm, whatever the reason.
    pub alarm_after: Duration,
}

/// What one pass over the store did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Segments that were archived.
    pub archived: u64,
    /// Segments that could not be, and were passed over.
    pub held: u64,
}

/// Archives the finished segments of one store.
pub struct Archiver {
    options: ArchiverOptions,
    bucket: Bucket,
    reader: Reader,
    state: ArchiveState,
    time: Arc<dyn Time>,
    health: Arc<Health>,
    backoff: Backoff,
    /// Segments that need somebody's help, and when each is tried again.
    held: HashMap<SegmentId, Held>,
    /// Segments whose state files say that nothing is left to do.
    done: HashSet<SegmentId>,
    /// What derived rows carry, and after which segment.
    carried: Option<(SegmentId, Carried)>,
}

struct Held {
    again: Timestamp,
    class: Class,
    error: String,
}

impl Archiver {
    /// An archiver; nothing happens until it runs.
    ///
    /// # Errors
    /// When there is no store in the directory.
    pub fn new(
        options: ArchiverOptions,
        bucket: Bucket,
        time: Arc<dyn Time>,
    ) -> Result<Self, recorder_user::store::ReadError> {
        Ok(Self {
            reader: Reader::open(&options.store)?,
            state: ArchiveState::of(&options.store),
            options,
            bucket,
            time,
            health: Arc::default(),
            backoff: Backoff::default(),
            held: HashMap::new(),
            done: HashSet::new(),
            carried: None,
        })
    }

    /// What it counts, while it runs.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Archives what is finished, again and again, without end.
    // Cancel-safe: whatever was begun is found out by the next run.
    pub async fn run(mut self) {
        loop {
            let wait = match self.pass().await {
                Ok(_) => {
                    self.backoff.reset();
                    self.options.interval
                }
                Err(failure) => {
                    let wait = self.backoff.next(self.time.now().as_micros().unsigned_abs());
                    tracing::warn!(
                        class = failure.class.as_str(),
                        segment = failure.segment.map(tracing::field::display),
                        error = chain(&failure),
                        again_s = wait.as_secs(),
                        "nothing is archived"
                    );
                    wait
                }
            };
            self.time.sleep(wait).await;
        }
    }

    /// Goes over the store once and archives what is not.
    ///
    /// # Errors
    /// When it makes no sense to go on now. What concerns one segment alone is no error: it is passed over, and
    /// tried again later.
    pub async fn pass(&mut self) -> Result<Pass, Failure> {
        let result = self.try_pass().await;
        match &result {
            Ok(pass) if pass.held == 0 => self.health.succeeded(self.time.now()),
            Ok(_) => {}
            Err(failure) => self.health.failed(failure),
        }
        self.sound_alarm();
        result
    }

    async fn try_pass(&mut self) -> Result<Pass, Failure> {
        let locked = self.state.lock();
        let locked = locked.map_err(|error| Failure::caused(Class::Local, "lock", error))?;
        let Some(_lock) = locked else {
            return Err(Failure::new(Class::Busy, "another archiver works on the store"));
        };
        let reader = self.reader.clone();
        let segments = copy::blocking(move || {
            let failed = |error| Failure::caused(Class::Local, "list the segments", error);
            reader.finished_segments().map_err(failed)
        })
        .await?;
        let mut pass = Pass::default();
        self.count_pending(&segments);
        for segment in &segments {
            if self.is_done(segment) {
                continue;
            }
            if self.held.get(&segment.segment).is_some_and(|held| held.again > self.time.now()) {
                pass.held += 1;
                continue;
            }
            match self.segment(segment).await {
                Ok(()) => {
                    self.held.remove(&segment.segment);
                    self.done.insert(segment.segment);
                    self.backoff.reset();
                    pass.archived += 1;
                    self.count_pending(&segments);
                }
                Err(failure) if failure.class.is_of_one_segment() => {
                    pass.held += 1;
                    self.hold(&failure, segment.segment);
                }
                Err(failure) => return Err(failure.of(segment.segment)),
            }
        }
        if let Some(held) = self.held.values().next() {
            self.health.goes_on_failing(held.class, held.error.clone());
        }
        Ok(pass)
    }

    fn hold(&mut self, failure: &Failure, segment: SegmentId) {
        self.health.failed(failure);
        let (class, error) = (failure.class, chain(failure));
        let hint = class.hint();
        tracing::error!(class = class.as_str(), %segment, error, hint, "segment not archived");
        let wait = i64::try_from(HELD.as_micros()).unwrap_or(i64::MAX);
        let again = self.time.now().plus_micros(wait);
        self.held.insert(segment, Held { again, class, error });
    }

    /// Copies a segment and stores its tables, whichever of both is not done.
    async fn segment(&mut self, segment: &FinishedSegment) -> Result<(), Failure> {
        let Some(gateway) = segment.gateway else {
            return Err(Failure::new(Class::Damaged, "the segment's header is damaged"));
        };
        let mut copied = match self.known_copy(segment, gateway) {
            Some(copied) => copied,
            None => self.copy(segment, gateway).await?,
        };
        self.tables(segment, gateway).await?;
        copied.tables = Some(SCHEMA_VERSION);
        self.note(copied).await
    }

    async fn copy(
        &mut self,
        segment: &FinishedSegment,
        gateway: GatewayId,
    ) -> Result<Copied, Failure> {
        let (reader, checked) = (self.reader.clone(), segment.clone());
        copy::blocking(move || copy::check(&reader, &checked)).await?;
        let name = self.bucket.url().segment(gateway, segment.segment);
        let (hash, put) = copy::copy(&self.bucket, segment, &name).await?;
        let copied = Copied {
            segment: segment.segment,
            bytes: segment.bytes,
            blake3: hash.to_hex().to_string(),
            object: self.bucket.url().object(&name),
            verified: self.time.now(),
            tables: None,
        };
        self.note(copied.clone()).await?;
        self.health.archived(segment.bytes);
        tracing::info!(
            segment = %segment.segment,
            bytes = segment.bytes,
            existed = put == Put::Existed,
            "segment archived"
        );
        Ok(copied)
    }

    async fn note(&self, copied: Copied) -> Result<(), Failure> {
        let state = self.state.clone();
        let failed = |error| Failure::caused(Class::Local, "note the copy", error);
        copy::blocking(move || state.note(&copied).map_err(failed)).await
    }

    async fn tables(
        &mut self,
        segment: &FinishedSegment,
        gateway: GatewayId,
    ) -> Result<(), Failure> {
        let (reader, state, id) = (self.reader.clone(), self.state.clone(), segment.segment);
        let (kept, before) = (self.carried.take(), segment.previous);
        let (carried, files) = copy::blocking(move || {
            let mut carried = carried_after(&reader, &state, kept, before);
            let files = table_files(&reader, gateway, id, &mut carried)?;
            Ok((carried, files))
        })
        .await?;
        let count = files.len() as u64;
        for TableFile { partition, bytes } in files {
            let name = self.bucket.url().table(&partition, gateway, id);
            // One that is there was derived from the same segment by an attempt that was cut short.
            let stored = copy::put(&self.bucket, &name, bytes).await;
            stored.map_err(|error| Failure::remote("store the tables", error))?;
        }
        self.health.table_files(count);
        let (state, kept) = (self.state.clone(), carried.clone());
        let failed = |error| Failure::caused(Class::Local, "keep what rows carry", error);
        copy::blocking(move || state.keep_carried(id, &kept).map_err(failed)).await?;
        self.carried = Some((id, carried));
        Ok(())
    }

    fn is_done(&mut self, segment: &FinishedSegment) -> bool {
        if self.done.contains(&segment.segment) {
            return true;
        }
        let copied = segment.gateway.and_then(|gateway| self.known_copy(segment, gateway));
        let done = copied.is_some_and(|copied| copied.tables == Some(SCHEMA_VERSION));
        if done {
            self.done.insert(segment.segment);
        }
        done
    }

    /// The copy in this archive, if it is noted.
    fn known_copy(&self, segment: &FinishedSegment, gateway: GatewayId) -> Option<Copied> {
        let url = self.bucket.url();
        let object = url.object(&url.segment(gateway, segment.segment));
        let copied = self.state.copied(segment.segment)?;
        (copied.object == object && copied.bytes == segment.bytes).then_some(copied)
    }

    fn count_pending(&mut self, segments: &[FinishedSegment]) {
        let (mut count, mut bytes, mut oldest) = (0, 0, None);
        for segment in segments {
            if self.is_done(segment) {
                continue;
            }
            count += 1;
            bytes += segment.bytes;
            oldest = oldest.or_else(|| finished_at(segment));
        }
        self.health.pending(count, bytes, oldest);
    }

    fn sound_alarm(&self) {
        let view = self.health.view();
        let waited = view.oldest_pending.map(|oldest| self.time.now().micros_since(oldest));
        let longest = i64::try_from(self.options.alarm_after.as_micros()).unwrap_or(i64::MAX);
        let late = waited.is_some_and(|waited| waited > longest);
        let helpless = view.failing.as_ref().is_some_and(|(class, _)| class.needs_somebody());
        if !self.health.set_alarm(late || helpless) {
            return;
        }
        if late || helpless {
            let class = view.failing.as_ref().map(|(class, _)| *class);
            tracing::error!(
                class = class.map(Class::as_str),
                error = view.failing.map(|(_, text)| text),
                pending_segments = view.pending_segments,
                pending_bytes = view.pending_bytes,
                oldest_pending_s = waited.map(|waited| waited / 1_000_000),
                hint = class.map(Class::hint),
                "ALARM: segments are not archived; they are kept here until they are"
            );
        } else {
            tracing::info!("the archive works again");
        }
    }
}

/// What is carried after the segment `before`: as it was kept, or found by reading all segments up to it.
fn carried_after(
    reader: &Reader,
    state: &ArchiveState,
    kept: Option<(SegmentId, Carried)>,
    before: Option<SegmentId>,
) -> Carried {
    let Some(before) = before else { return Carried::default() };
    let earlier = |kept: &(SegmentId, Carried)| kept.0 <= before;
    let kept = kept.filter(earlier).or_else(|| state.carried().filter(earlier));
    let (after, mut carried) = kept.map_or_else(Default::default, |(after, c)| (Some(after), c));
    for segment in reader.finished_segments().unwrap_or_default() {
        if Some(segment.segment) <= after || segment.segment > before {
            continue;
        }
        let sound = carried.clone();
        // Of a damaged segment nothing is carried on; it is itself reported.
        if carried.segment(reader, segment.segment, &mut Nowhere).is_err() {
            carried = sound;
        }
    }
    carried
}

/// For rows that are derived only for what they carry on.
struct Nowhere;

impl recorder_user::store::archive::RowSink for Nowhere {
    fn exchange(
        &mut self,
        _: &recorder_user::store::ExchangeRow,
        _: Option<&recorder_user::model::ExchangeSettled>,
    ) {
    }

    fn session(&mut self, _: &recorder_user::store::SessionView) {}
}

/// When the last byte was written.
fn finished_at(segment: &FinishedSegment) -> Option<Timestamp> {
    let modified = std::fs::metadata(&segment.path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok().map(Timestamp::from_micros)
}

/// A segment that needs somebody's help is tried again this often.
const HELD: Duration = backoff::LONGEST;

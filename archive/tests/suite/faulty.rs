//! A store of objects that fails as told, and a clock that only waiting moves.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use archive::{ArchiveUrl, Archiver, ArchiverOptions, Bucket, Time};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
    client::{HttpError, HttpErrorKind},
    memory::InMemory,
    path::Path,
};
use recorder_user::model::Timestamp;
use tokio::sync::Notify;

/// How the store fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Nobody answers.
    Down,
    /// The credentials are refused.
    Denied,
    /// Puts are taken, and their answers lost.
    AnswersLost,
    /// What is read back has another byte.
    Flips,
}

#[derive(Debug, Default)]
pub(crate) struct Faulty {
    pub(crate) inner: InMemory,
    fault: Mutex<Fault>,
    requests: AtomicU64,
}

impl Faulty {
    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().expect("nobody panicked") = fault;
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// The fault, if the request is to pass nevertheless.
    fn request(&self) -> Result<Fault> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        match *self.fault.lock().expect("nobody panicked") {
            Fault::Down => Err(lost()),
            Fault::Denied => Err(Error::PermissionDenied { path: "x".into(), source: "no".into() }),
            fault => Ok(fault),
        }
    }

    pub(crate) async fn names(&self) -> Vec<String> {
        let all = self.inner.list_with_delimiter(None).await.expect("memory");
        let mut names: Vec<String> = Vec::new();
        let mut folders = all.common_prefixes;
        names.extend(all.objects.into_iter().map(|object| object.location.to_string()));
        while let Some(folder) = folders.pop() {
            let more = self.inner.list_with_delimiter(Some(&folder)).await.expect("memory");
            folders.extend(more.common_prefixes);
            names.extend(more.objects.into_iter().map(|object| object.location.to_string()));
        }
        names.sort_unstable();
        names
    }

    pub(crate) async fn bytes(&self, name: &str) -> Bytes {
        let found = self.inner.get(&Path::from(name)).await.expect("an object");
        found.bytes().await.expect("memory")
    }
}

fn lost() -> Error {
    let error = HttpError::new(HttpErrorKind::Connect, std::io::Error::other("no route"));
    Error::Generic { store: "S3", source: Box::new(error) }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.request()?;
        let stored = self.inner.put_opts(location, payload, options).await?;
        if fault == Fault::AnswersLost { Err(lost()) } else { Ok(stored) }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.request()?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.request()?;
        if fault == Fault::Flips && !options.head {
            let mut bytes = self.inner.get(location).await?.bytes().await?.to_vec();
            bytes[0] ^= 1;
            let other = InMemory::new();
            other.put(location, bytes.into()).await?;
            return other.get_opts(location, options).await;
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.request()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        panic!("an archiver deletes nothing: {:?}", std::mem::size_of_val(&locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        panic!("an archiver copies nothing: {from} to {to}")
    }
}

/// Time that passes only where somebody waits.
pub(crate) struct Waits {
    now: AtomicI64,
    until: AtomicI64,
    reached: Notify,
}

impl Waits {
    pub(crate) fn from_now() -> Arc<Self> {
        let now = Timestamp::now().as_micros();
        Arc::new(Self { now: now.into(), until: now.into(), reached: Notify::new() })
    }

    /// Lets the archiver run for so long.
    pub(crate) async fn pass(&self, time: Duration, running: &mut (impl Future + Unpin)) {
        let us = i64::try_from(time.as_micros()).expect("not that long");
        self.until.fetch_add(us, Ordering::SeqCst);
        tokio::select! {
            biased;
            () = self.reached.notified() => {}
            _ = running => panic!("an archiver has no end"),
        }
    }
}

#[async_trait]
impl Time for Waits {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.load(Ordering::SeqCst))
    }

    async fn sleep(&self, duration: Duration) {
        let us = i64::try_from(duration.as_micros()).expect("not that long");
        let now = self.now.fetch_add(us, Ordering::SeqCst) + us;
        if now >= self.until.load(Ordering::SeqCst) {
            self.reached.notify_one();
            // Gives the test its turn; it polls again when more time is to pass.
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) struct Bench {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) objects: Arc<Faulty>,
    pub(crate) time: Arc<Waits>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, objects: Arc::default(), time: Waits::from_now() }
    }

    pub(crate) fn bucket(&self) -> Bucket {
        let url: ArchiveUrl = "s3://audit/decklog".parse().expect("good");
        let parts = Arc::new(InMemory::new());
        Bucket::over(url, Arc::clone(&self.objects) as Arc<dyn ObjectStore>, parts, 5 << 20)
    }

    pub(crate) fn archiver(&self) -> Archiver {
        let options = ArchiverOptions {
            store: self.directory.path().into(),
            interval: Duration::from_secs(10),
            alarm_after: Duration::from_secs(3600),
        };
        let time = Arc::clone(&self.time) as Arc<dyn Time>;
        Archiver::new(options, self.bucket(), time).expect("a store")
    }
}

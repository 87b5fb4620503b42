//! One segment's copy: uploaded under a name that is never overwritten, read back, compared.

use std::{fs::File, io::Read as _, path::Path as FilePath};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{
    Error, GetOptions, MultipartId, PutMode, PutOptions, PutPayload, multipart::PartId, path::Path,
};
use recorder_user::{
    model::SegmentId,
    store::{
        Reader,
        archive::{FinishedSegment, SegmentEnd},
    },
};

use crate::{
    bucket::Bucket,
    failure::{Class, Failure, chain},
};

/// How an object came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It was stored now.
    Stored,
    /// One of this name was there.
    Existed,
}

/// Puts the segment's bytes where nothing may be yet, reads them back, and compares.
///
/// Gives the BLAKE3 of both. What is there already under the segment's name is compared all the same: it may
/// be from an upload whose answer was lost.
// Cancel-safe: what was begun of an upload in parts stays at the server, invisible, until a lifecycle rule
// removes it; the name is taken only by a whole object.
pub(crate) async fn copy(
    bucket: &Bucket,
    segment: &FinishedSegment,
    name: &Path,
) -> Result<(blake3::Hash, Put), Failure> {
    let (path, bytes) = (segment.path.clone(), segment.bytes);
    let local = blocking(move || hash_file(&path, bytes)).await?;
    let put = match existing(bucket, name).await? {
        Some(_) => Put::Existed,
        None => upload(bucket, segment, name).await?,
    };
    let (remote, remote_bytes) = hash_object(bucket, name).await?;
    if remote == local && remote_bytes == segment.bytes {
        return Ok((local, put));
    }
    let object = bucket.url.object(name);
    Err(match put {
        Put::Existed => Failure::new(
            Class::Conflict,
            format!(
                "{object} exists and is not this segment: {remote_bytes} bytes, BLAKE3 {remote}"
            ),
        ),
        Put::Stored => Failure::new(
            Class::Mismatch,
            format!("{object} was read back as {remote_bytes} bytes, BLAKE3 {remote}"),
        ),
    })
}

/// The object's length, if there is such an object.
async fn existing(bucket: &Bucket, name: &Path) -> Result<Option<u64>, Failure> {
    let options = GetOptions { head: true, ..GetOptions::default() };
    match bucket.objects.get_opts(name, options).await {
        Ok(found) => Ok(Some(found.meta.size)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(Failure::remote("look for the segment's copy", error)),
    }
}

/// Stores a small object under a name that nothing has yet.
pub(crate) async fn put(bucket: &Bucket, name: &Path, bytes: Bytes) -> Result<Put, Error> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match bucket.objects.put_opts(name, PutPayload::from(bytes), options).await {
        Ok(_) => Ok(Put::Stored),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Existed),
        Err(error) => Err(error),
    }
}

async fn upload(bucket: &Bucket, segment: &FinishedSegment, name: &Path) -> Result<Put, Failure> {
    let mut parts = Parts::open(segment, bucket.part_bytes)?;
    let first = parts.next().await?.unwrap_or_default();
    if first.len() as u64 == segment.bytes {
        let stored = put(bucket, name, first).await;
        return stored.map_err(|error| Failure::remote("upload the segment", error));
    }
    let begun = bucket.parts.create_multipart(name).await;
    let upload = begun.map_err(|error| Failure::remote("begin the upload in parts", error))?;
    let result = upload_parts(bucket, name, &upload, first, parts).await;
    if !matches!(result, Ok(Put::Stored))
        && let Err(error) = bucket.parts.abort_multipart(name, &upload).await
    {
        tracing::warn!(error = %chain(&error), "an upload in parts was given up and is left at the server");
    }
    result
}

async fn upload_parts(
    bucket: &Bucket,
    name: &Path,
    upload: &MultipartId,
    first: Bytes,
    mut rest: Parts,
) -> Result<Put, Failure> {
    let (mut done, mut next): (Vec<PartId>, _) = (Vec::new(), Some(first));
    while let Some(part) = next {
        let payload = PutPayload::from(part);
        let stored = bucket.parts.put_part(name, upload, done.len(), payload).await;
        done.push(stored.map_err(|error| Failure::remote("upload a part of the segment", error))?);
        next = rest.next().await?;
    }
    match bucket.parts.complete_multipart(name, upload, done).await {
        Ok(_) => Ok(Put::Stored),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Existed),
        Err(error) => Err(Failure::remote("complete the upload in parts", error)),
    }
}

/// The file, a part at a time.
struct Parts {
    file: Option<File>,
    left: u64,
    part_bytes: usize,
}

impl Parts {
    fn open(segment: &FinishedSegment, part_bytes: usize) -> Result<Self, Failure> {
        let file = File::open(&segment.path).map_err(unreadable)?;
        Ok(Self { file: Some(file), left: segment.bytes, part_bytes })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.part_bytes);
        let (Some(mut file), true) = (self.file.take(), wanted > 0) else { return Ok(None) };
        let (file, part) = blocking(move || {
            let mut part = vec![0; wanted];
            file.read_exact(&mut part).map_err(unreadable)?;
            Ok((file, part))
        })
        .await?;
        self.file = Some(file);
        self.left -= part.len() as u64;
        Ok(Some(part.into()))
    }
}

/// The BLAKE3 of an object as the server gives it now, and its length.
pub(crate) async fn hash_object(
    bucket: &Bucket,
    name: &Path,
) -> Result<(blake3::Hash, u64), Failure> {
    let failed = |error| Failure::remote("read the segment back", error);
    let found = bucket.objects.get_opts(name, GetOptions::default()).await.map_err(failed)?;
    let (mut stream, mut hasher, mut bytes) = (found.into_stream(), blake3::Hasher::new(), 0);
    while let Some(piece) = stream.try_next().await.map_err(failed)? {
        hasher.update(&piece);
        bytes += piece.len() as u64;
    }
    Ok((hasher.finalize(), bytes))
}

/// The BLAKE3 of a local file, which must be as long as it was.
pub(crate) fn hash_file(path: &FilePath, bytes: u64) -> Result<blake3::Hash, Failure> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).map_err(unreadable)?).map_err(unreadable)?;
    if hasher.count() != bytes {
        let what = format!("{} had {bytes} bytes and has {}", path.display(), hasher.count());
        return Err(Failure::new(Class::Local, what));
    }
    Ok(hasher.finalize())
}

/// Whether every record of a finished segment is sound: what is damaged is not archived as if it were not.
pub(crate) fn check(reader: &Reader, segment: &FinishedSegment) -> Result<(), Failure> {
    if segment.end == SegmentEnd::Broken {
        let what = format!("segment {} does not end where the next begins", segment.segment);
        return Err(Failure::new(Class::Damaged, what));
    }
    sound(reader, segment.segment)
        .map_err(|error| Failure::caused(Class::Damaged, "the segment is damaged", error))
}

fn sound(reader: &Reader, segment: SegmentId) -> Result<(), recorder_user::store::ReadError> {
    use recorder_user::store::ReadError;
    for stored in reader.records_in(segment) {
        match stored {
            // Intact, of a kind that a later version writes.
            Ok(_) | Err(ReadError::Payload { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn unreadable(source: std::io::Error) -> Failure {
    Failure::caused(Class::Local, "read the segment", source)
}

/// Runs what reads files, away from the tasks that serve.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(Failure::caused(Class::Local, "read files", error)))
}

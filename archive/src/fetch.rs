//! The other way: an archive's segments, fetched into a directory and read as the stores of their gateways.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt as _;
use object_store::{GetOptions, ObjectMeta};
use recorder_user::{
    model::{GatewayId, SegmentId},
    store::{Reader, archive::ArchiveState},
};

use crate::{
    bucket::Bucket,
    copy::{blocking, hash_file, hash_object},
    failure::{Class, Failure},
};

/// An archive could not be fetched.
pub type FetchError = Failure;

/// The stores that were fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Directories that read as stores, one for each gateway.
    pub stores: Vec<PathBuf>,
    /// Segments that were fetched now.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Bucket {
    /// Fetches every segment that `directory` does not have yet. A segment's name is never given to other
    /// bytes, so what is there stays.
    ///
    /// # Errors
    /// When the archive cannot be read, or the directory not written.
    pub async fn fetch(&self, directory: &Path) -> Result<Fetched, FetchError> {
        let mut fetched = Fetched::default();
        for (gateway, segments) in self.list().await? {
            let store = directory.join(gateway.to_string());
            let into = store.join("segments");
            std::fs::create_dir_all(&into).map_err(local("make the directory of a store"))?;
            for (segment, object) in segments {
                let file = into.join(format!("{segment}.seg"));
                if file.metadata().is_ok_and(|found| found.len() == object.size) {
                    continue;
                }
                self.fetch_one(&object, &file).await?;
                fetched.segments += 1;
                fetched.bytes += object.size;
            }
            fetched.stores.push(store);
        }
        Ok(fetched)
    }

    /// The copies in the archive, by gateway, in the order in which they were written.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn list(
        &self,
    ) -> Result<BTreeMap<GatewayId, BTreeMap<SegmentId, ObjectMeta>>, FetchError> {
        let failed = |error| Failure::remote("list the archive", error);
        let mut found: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        let mut objects = self.objects.list(Some(&self.url.segments()));
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            if let Some((gateway, segment)) = self.url.parse_segment(&object.location) {
                found.entry(gateway).or_default().insert(segment, object);
            }
        }
        Ok(found)
    }

    async fn fetch_one(&self, object: &ObjectMeta, file: &Path) -> Result<(), FetchError> {
        let failed = |error| Failure::remote("fetch a segment", error);
        let directory = file.parent().unwrap_or(Path::new("."));
        // The name appears only when the file is whole.
        let mut part =
            tempfile::NamedTempFile::new_in(directory).map_err(local("make a segment's file"))?;
        let options = GetOptions::default();
        let found = self.objects.get_opts(&object.location, options).await.map_err(failed)?;
        let (mut pieces, mut bytes) = (found.into_stream(), 0);
        while let Some(piece) = pieces.try_next().await.map_err(failed)? {
            part.write_all(&piece).map_err(local("write a segment's file"))?;
            bytes += piece.len() as u64;
        }
        if bytes != object.size {
            let what = format!("{} has {} bytes, {bytes} came", object.location, object.size);
            return Err(Failure::new(Class::Mismatch, what));
        }
        let named = part.persist(file).map_err(|error| error.error);
        named.map(drop).map_err(local("name a segment's file"))
    }
}

/// What a check of the copies found of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The segment.
    pub segment: SegmentId,
    /// The copy's URL.
    pub object: String,
    /// What is wrong with the copy; none if it is the local segment, byte for byte.
    pub wrong: Option<String>,
}

/// Reads every copy back and compares it: with the local segment, or where that is gone with what was noted
/// when it was archived. Segments that were never archived are passed over.
///
/// # Errors
/// When the archive or the store cannot be read.
pub async fn check_copies(bucket: &Bucket, store: &Path) -> Result<Vec<Checked>, Failure> {
    let reader = Reader::open(store)
        .map_err(|error| Failure::caused(Class::Local, "open the store", error))?;
    let local: BTreeMap<_, _> = reader
        .segments()
        .map_err(|error| Failure::caused(Class::Local, "list the segments", error))?
        .into_iter()
        .map(|info| (info.segment, info))
        .collect();
    let state = ArchiveState::of(store);
    let mut checked = Vec::new();
    for (segment, noted) in state.all().map_err(local_list)? {
        let Some(gateway) = gateway_of(bucket, segment, &noted.object) else { continue };
        let name = bucket.url().segment(gateway, segment);
        let expected = match local.get(&segment).cloned() {
            Some(info) => {
                let hash = blocking(move || hash_file(&info.path, info.bytes)).await?;
                hash.to_hex().to_string()
            }
            None => noted.blake3,
        };
        let wrong = match hash_object(bucket, &name).await {
            Ok((hash, bytes)) if hash.to_hex().as_str() == expected && bytes == noted.bytes => None,
            Ok((hash, bytes)) => Some(format!(
                "it has {bytes} bytes and BLAKE3 {hash}, not {} and {expected}",
                noted.bytes
            )),
            Err(failure) if failure.class == Class::Missing => Some("there is none".to_owned()),
            Err(failure) => return Err(failure.of(segment)),
        };
        checked.push(Checked { segment, object: noted.object, wrong });
    }
    Ok(checked)
}

/// The gateway in a copy's URL, if the copy is in this archive.
fn gateway_of(bucket: &Bucket, segment: SegmentId, object: &str) -> Option<GatewayId> {
    let gateway = object.rsplit('/').nth(1)?.parse().ok()?;
    let url = bucket.url();
    (url.object(&url.segment(gateway, segment)) == object).then_some(gateway)
}

fn local(what: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::caused(Class::Local, what, source)
}

fn local_list(error: recorder_user::store::archive::ArchiveStateError) -> Failure {
    Failure::caused(Class::Local, "list the state files", error)
}

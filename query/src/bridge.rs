//! One store of objects for DataFusion, over those that hold tables: what was derived from the local store, and
//! the archive. DataFusion takes an older version of the trait than ours.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use datafusion_object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, path::Path,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};

/// A store of objects and where in it the tables are.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) objects: Arc<dyn object_store::ObjectStore>,
    /// Before `tables/`; empty, or without a slash at its end.
    pub(crate) prefix: String,
}

impl Source {
    fn name(&self, location: &str) -> object_store::path::Path {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        object_store::path::Path::from(format!("{}{slash}{location}", self.prefix))
    }

    fn meta(&self, found: &object_store::ObjectMeta) -> ObjectMeta {
        let name = found.location.as_ref();
        let below = name.strip_prefix(&self.prefix).unwrap_or(name).trim_start_matches('/');
        ObjectMeta {
            location: Path::from(below),
            last_modified: found.last_modified,
            size: found.size,
            e_tag: found.e_tag.clone(),
            version: found.version.clone(),
        }
    }
}

/// All sources as one, to be read only. A file that two have is the same in both.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) sources: Vec<Source>,
}

impl fmt::Display for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tables")
    }
}

impl Bridge {
    async fn all(sources: Vec<Source>, prefix: String) -> Result<Vec<ObjectMeta>> {
        let mut found = BTreeMap::new();
        for source in sources {
            let mut objects = source.objects.list(Some(&source.name(&prefix)));
            while let Some(object) = objects.try_next().await.map_err(failed)? {
                let meta = source.meta(&object);
                found.entry(meta.location.clone()).or_insert(meta);
            }
        }
        Ok(found.into_values().collect())
    }
}

#[async_trait]
impl ObjectStore for Bridge {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        for source in &self.sources {
            let wanted = object_store::GetOptions {
                range: options.range.as_ref().map(range),
                head: options.head,
                ..object_store::GetOptions::default()
            };
            let found = source.objects.get_opts(&source.name(location.as_ref()), wanted).await;
            let found = match found {
                Err(object_store::Error::NotFound { .. }) => continue,
                found => found.map_err(failed)?,
            };
            let (meta, range) = (source.meta(&found.meta), found.range.clone());
            let bytes = found.into_stream().map_err(failed).boxed();
            let payload = GetResultPayload::Stream(bytes);
            return Ok(GetResult { payload, meta, range, attributes: Default::default() });
        }
        Err(Error::NotFound { path: location.to_string(), source: "no source has it".into() })
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(read_only()) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.map(ToString::to_string).unwrap_or_default();
        let all = Self::all(self.sources.clone(), prefix);
        stream::once(all).map_ok(|all| stream::iter(all).map(Ok)).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let (mut objects, mut folders) = (Vec::new(), Vec::new());
        for meta in Self::all(self.sources.clone(), prefix.to_string()).await? {
            let Some(mut rest) = meta.location.prefix_match(&prefix) else { continue };
            let (first, more) = (rest.next(), rest.next().is_some());
            match first {
                Some(folder) if more => folders.push(prefix.clone().join(folder)),
                _ => {
                    drop(rest);
                    objects.push(meta);
                }
            }
        }
        folders.dedup();
        Ok(ListResult { common_prefixes: folders, objects })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}

fn range(range: &GetRange) -> object_store::GetRange {
    match range {
        GetRange::Bounded(Range { start, end }) => object_store::GetRange::Bounded(*start..*end),
        GetRange::Offset(offset) => object_store::GetRange::Offset(*offset),
        GetRange::Suffix(bytes) => object_store::GetRange::Suffix(*bytes),
    }
}

fn read_only() -> Error {
    Error::NotSupported { source: "tables are only read".into() }
}

fn failed(error: object_store::Error) -> Error {
    Error::Generic { store: "archive", source: Box::new(error) }
}

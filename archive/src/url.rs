//! Where an archive is, and what its objects are called.

use std::{fmt, str::FromStr};

use object_store::path::Path;
use recorder_user::model::{GatewayId, SegmentId};

use crate::tables::Partition;

/// `s3://BUCKET/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveUrl {
    bucket: String,
    /// Without slashes at its ends; may be empty.
    prefix: String,
}

/// The text is no such URL.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not the URL of an archive: {why}")]
pub struct ParseArchiveUrlError {
    text: String,
    why: &'static str,
}

impl FromStr for ArchiveUrl {
    type Err = ParseArchiveUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why| ParseArchiveUrlError { text: text.chars().take(200).collect(), why };
        let rest = text.strip_prefix("s3://").ok_or_else(|| bad("write s3://BUCKET/PREFIX"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(lower) {
            return Err(bad("a bucket's name has 3 to 63 of a-z, 0-9, - and ."));
        }
        let prefix = prefix.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
        if !prefix.is_empty() && (prefix.len() > 512 || !prefix.split('/').all(good)) {
            return Err(bad(
                "a prefix has parts of A-Z, a-z, 0-9, _, - and . between single slashes",
            ));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for ArchiveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "s3://{}{slash}{}", self.bucket, self.prefix)
    }
}

impl ArchiveUrl {
    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The prefix, without slashes at its ends; may be empty.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of a segment's copy.
    #[must_use]
    pub fn segment(&self, gateway: GatewayId, segment: SegmentId) -> Path {
        self.path(&format!("segments/{gateway}/{segment}.seg"))
    }

    /// Where all copies of segments are.
    #[must_use]
    pub fn segments(&self) -> Path {
        self.path("segments")
    }

    /// The name of the rows that a segment added to one partition of a table.
    #[must_use]
    pub fn table(&self, part: &Partition, gateway: GatewayId, segment: SegmentId) -> Path {
        self.path(&part.path(gateway, segment))
    }

    /// The URL of an object of this archive's bucket.
    #[must_use]
    pub fn object(&self, path: &Path) -> String {
        format!("s3://{}/{path}", self.bucket)
    }

    /// Gateway and segment, if this is the name of a segment's copy.
    #[must_use]
    pub fn parse_segment(&self, path: &Path) -> Option<(GatewayId, SegmentId)> {
        let below = path.as_ref().strip_prefix(self.segments().as_ref())?.strip_prefix('/')?;
        let (gateway, file) = below.split_once('/')?;
        Some((gateway.parse().ok()?, file.strip_suffix(".seg")?.parse().ok()?))
    }

    fn path(&self, below: &str) -> Path {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        Path::from(format!("{}{slash}{below}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_round_trip_and_bad_ones_are_refused() {
        for (text, shown) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://my.bucket-1/a/b_c.d/", "s3://my.bucket-1/a/b_c.d"),
        ] {
            assert_eq!(text.parse::<ArchiveUrl>().expect(text).to_string(), shown);
        }
        for bad in [
            "",
            "bucket",
            "https://bucket/x",
            "s3://b",
            "s3://Bucket",
            "s3://bucket//x",
            "s3://bucket/../x",
            "s3://bucket/a b",
            "s3://bucket/\u{1b}",
        ] {
            assert!(bad.parse::<ArchiveUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_segments_are_read_back() {
        let (gateway, segment) = (GatewayId::new(), SegmentId::new());
        for url in ["s3://bucket", "s3://bucket/a/b"] {
            let url: ArchiveUrl = url.parse().expect("good");
            let path = url.segment(gateway, segment);
            assert_eq!(url.parse_segment(&path), Some((gateway, segment)));
            assert_eq!(url.parse_segment(&Path::from(format!("{path}.part"))), None);
        }
    }
}

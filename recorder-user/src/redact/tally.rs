//! The account of what was removed.

use std::collections::BTreeMap;

use crate::model::Removed;

/// Distinct paths that are told; the values of further ones are counted under `*`.
const PATHS_MAX: usize = 64;

/// Bytes of one told path; a longer one is counted under `*`.
const PATH_BYTES_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, path: String) {
        let known = self.counts.contains_key(&path);
        let told = known || (path.len() <= PATH_BYTES_MAX && self.counts.len() < PATHS_MAX);
        let path = if told { path } else { "*".to_owned() };
        *self.counts.entry(path).or_default() += 1;
    }

    pub(super) fn into_removed(self) -> Vec<Removed> {
        self.counts.into_iter().map(|(path, count)| Removed { path, count }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_bounded_and_counts_exact() {
        let mut tally = Tally::default();
        for index in 0..1000 {
            tally.add(format!("data.{index}"));
        }
        tally.add("data.0".to_owned());
        tally.add("x".repeat(PATH_BYTES_MAX + 1));
        let removed = tally.into_removed();
        assert_eq!(removed.len(), PATHS_MAX + 1);
        assert_eq!(removed.iter().map(|removed| removed.count).sum::<u64>(), 1002);
    }
}

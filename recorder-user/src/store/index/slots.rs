//! Blocks of exchanges, and sets of the exchanges of one block.
//!
//! Exchanges are numbered in the order in which their records come: the number is the *ordinal*. Every 4096 of
//! them are a *block*, and an exchange's place in its block is its *slot*. What has a term in common is a set of
//! slots for each block, so that many conditions are answered by as many ANDs of 512 bytes.

use super::{IndexError, table::KEY_BYTES_MAX, terms::Term};

/// Exchanges of one block: their set is a bitmap of 512 bytes.
pub(super) const BLOCK_SLOTS: usize = 4096;
const BITMAP_BYTES: usize = BLOCK_SLOTS / 8;

/// The number of an exchange, in the order in which their records came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ordinal(pub(super) u64);

impl Ordinal {
    pub(super) const BYTES: usize = 8;

    pub(super) fn block(self) -> u64 {
        self.0 / BLOCK_SLOTS as u64
    }

    pub(super) fn slot(self) -> Slot {
        Slot((self.0 % BLOCK_SLOTS as u64) as u16)
    }

    pub(super) fn of(block: u64, slot: Slot) -> Self {
        Self(block * BLOCK_SLOTS as u64 + u64::from(slot.0))
    }

    pub(super) fn key(self) -> [u8; Self::BYTES] {
        self.0.to_be_bytes()
    }

    pub(super) fn parse(key: &[u8]) -> Result<Self, IndexError> {
        let bytes = key.try_into().map_err(|_| IndexError::Doubtful("bad ordinal".into()))?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

/// The place of an exchange in its block: below [`BLOCK_SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u16);

/// The key of a term's slots: all of one block are together, so that what is written now is in one place.
pub(super) fn posting_key(block: u64, term: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + Term::BYTES_MAX);
    key.extend(block.to_be_bytes());
    key.extend(term);
    key
}

const _: () = assert!(8 + Term::BYTES_MAX <= KEY_BYTES_MAX);

/// A set of slots of one block.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Slots([u64; BLOCK_SLOTS / 64]);

impl Slots {
    pub(super) const NONE: Self = Self([0; BLOCK_SLOTS / 64]);
    pub(super) const ALL: Self = Self([u64::MAX; BLOCK_SLOTS / 64]);

    pub(super) fn insert(&mut self, slot: Slot) {
        self.0[usize::from(slot.0) / 64] |= 1 << (slot.0 % 64);
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.0[usize::from(slot.0) / 64] &= !(1 << (slot.0 % 64));
    }

    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.0[usize::from(slot.0) / 64] >> (slot.0 % 64) & 1 == 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn intersect(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    pub(super) fn unite(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().enumerate().flat_map(|(i, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    Slot((i * 64) as u16 + bit as u16)
                })
            })
        })
    }

    /// As stored: two bytes a slot, or the bitmap where that is not longer; none for the empty set.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        match self.len() {
            0 => None,
            len if len * 2 < BITMAP_BYTES => {
                Some(self.iter().flat_map(|slot| slot.0.to_le_bytes()).collect())
            }
            _ => Some(self.0.iter().flat_map(|word| word.to_le_bytes()).collect()),
        }
    }

    /// Adds what is stored.
    pub(super) fn unite_stored(&mut self, stored: &[u8]) -> Result<(), IndexError> {
        let doubt = || IndexError::Doubtful("a set of exchanges is malformed".into());
        if stored.len() == BITMAP_BYTES {
            for (word, bytes) in self.0.iter_mut().zip(stored.as_chunks().0) {
                *word |= u64::from_le_bytes(*bytes);
            }
            return Ok(());
        }
        let (slots, rest) = stored.as_chunks();
        if !rest.is_empty() {
            return Err(doubt());
        }
        for slot in slots {
            let slot = u16::from_le_bytes(*slot);
            if usize::from(slot) >= BLOCK_SLOTS {
                return Err(doubt());
            }
            self.insert(Slot(slot));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(slots: &BTreeSet<u16>) -> Slots {
        let mut set = Slots::NONE;
        slots.iter().for_each(|slot| set.insert(Slot(*slot)));
        set
    }

    fn listed(set: &Slots) -> BTreeSet<u16> {
        set.iter().map(|slot| slot.0).collect()
    }

    proptest! {
        #[test]
        fn sets_do_what_sets_do(
            a in prop::collection::btree_set(0..4096_u16, 0..600),
            b in prop::collection::btree_set(0..4096_u16, 0..40),
        ) {
            let set = of(&a);
            prop_assert_eq!(listed(&set), a.clone());
            prop_assert_eq!(set.len(), a.len());
            prop_assert_eq!(set.is_empty(), a.is_empty());
            let mut read = Slots::NONE;
            if let Some(stored) = set.encode() {
                prop_assert!(stored.len() <= BITMAP_BYTES);
                read.unite_stored(&stored).expect("own encoding");
            }
            prop_assert!(read == set);
            let mut both = set.clone();
            both.intersect(&of(&b));
            prop_assert_eq!(listed(&both), a.intersection(&b).copied().collect());
            let mut any = set.clone();
            any.unite(&of(&b));
            prop_assert_eq!(listed(&any), a.union(&b).copied().collect());
            let mut less = set;
            b.iter().for_each(|slot| less.remove(Slot(*slot)));
            prop_assert_eq!(listed(&less), a.difference(&b).copied().collect());
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bad in [&[1][..], &[0, 0x10], &[0xff; 513]] {
            assert!(Slots::NONE.clone().unite_stored(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ordinals_are_blocks_and_slots() {
        let ordinal = Ordinal(3 * 4096 + 17);
        assert_eq!((ordinal.block(), ordinal.slot()), (3, Slot(17)));
        assert_eq!(Ordinal::of(3, Slot(17)), ordinal);
        assert_eq!(Ordinal::parse(&ordinal.key()).expect("own key"), ordinal);
    }
}

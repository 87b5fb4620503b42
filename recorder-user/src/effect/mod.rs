//! What an exchange did to the cluster: pure, from what was asked, what was answered, and the objects
//! in both.
//!
//! An [`Observer`] watches one exchange in bounded memory and ends in an [`EffectResult`]; [`of`] is the
//! decision itself. The effect is stated from the API server's answer, not from the request's wish. In
//! doubt the more alarming word is taken, and where nobody can know, [`Effect::Unknown`].

mod decide;
mod observer;

pub use decide::{Facts, of};
pub use observer::Observer;

use crate::model::{Effect, ObjectChange};

/// Objects that are named; further ones are counted.
pub const OBJECTS_MAX: usize = 256;

/// The effect of an exchange, and on which objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EffectResult {
    /// The word.
    pub effect: Effect,
    /// The first [`OBJECTS_MAX`] objects.
    pub objects: Vec<ObjectChange>,
    /// How many objects there were.
    pub count: u64,
}

impl EffectResult {
    /// An effect on no object.
    #[must_use]
    pub const fn without_objects(effect: Effect) -> Self {
        Self { effect, objects: Vec::new(), count: 0 }
    }
}

#[cfg(test)]
mod tests;

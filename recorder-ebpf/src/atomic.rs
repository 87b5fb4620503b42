//! Atomic operations on maps (`core::sync::atomic` lacks those that return a value on this target).

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_xadd, atomic_xchg};

/// Adds and returns the new value.
///
/// # Safety
/// `counter` must point into a map's value, aligned.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, value: u64) -> u64 {
    // SAFETY: see above.
    unsafe { atomic_xadd::<u64, u64, { SeqCst }>(counter, value) }.wrapping_add(value)
}

/// As [`add`], for a word of half the size.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn add32(counter: *mut u32, value: u32) -> u32 {
    // SAFETY: see above.
    unsafe { atomic_xadd::<u32, u32, { SeqCst }>(counter, value) }.wrapping_add(value)
}

/// Writes `new` if the word is `old`. Returns what it was: `old` means done.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn swap_if(word: *mut u64, old: u64, new: u64) -> u64 {
    // SAFETY: see above.
    unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(word, old, new) }.0
}

/// Writes `new` after everything that was written before it.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn publish(word: *mut u64, new: u64) {
    // SAFETY: see above. An exchange is a full barrier on every architecture.
    unsafe { atomic_xchg::<u64, { SeqCst }>(word, new) };
}

/// As [`publish`], for a word of half the size.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn publish32(word: *mut u32, new: u32) {
    // SAFETY: see above.
    unsafe { atomic_xchg::<u32, { SeqCst }>(word, new) };
}

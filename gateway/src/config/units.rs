//! Durations and sizes with their units in the text.

use std::{fmt, ops::RangeInclusive, time::Duration};

use super::problem::Problems;

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads `15m`, `1h30m`, `100ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    sum(text, &DURATION_UNITS).map(Duration::from_millis).ok_or_else(|| {
        format!(
            "`{text}` is not a duration; write a whole number with its \
                 unit (ms, s, m, h, d), for example 15m"
        )
    })
}

/// Reads `64MiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    sum(text, &SIZE_UNITS).ok_or_else(|| {
        format!(
            "`{text}` is not a size; write a whole number with its unit \
             (B, KiB, MiB, GiB), for example 64MiB"
        )
    })
}

/// A sum of numbers with units; none when the text is anything else or overflows.
fn sum(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// A duration in the largest unit that divides it.
pub(super) fn duration_text(value: Duration) -> String {
    text(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// A size in the largest unit that divides it.
pub(super) fn size_text(value: u64) -> String {
    text(value, &SIZE_UNITS)
}

fn text(value: u64, units: &[(&str, u64)]) -> String {
    let largest = units.iter().rev().find(|(_, factor)| value.is_multiple_of(*factor));
    let (unit, factor) = largest.copied().unwrap_or(units[0]);
    format!("{}{unit}", value / factor)
}

/// A duration key: the default when it is not there, a problem when it is not within the bounds.
pub(super) fn duration_key(
    path: impl fmt::Display,
    given: Option<String>,
    default: Duration,
    bounds: RangeInclusive<Duration>,
    problems: &mut Problems,
) -> Duration {
    let Some(given) = given else { return default };
    match duration(&given) {
        Ok(value) if bounds.contains(&value) => return value,
        Ok(_) => problems.add(
            path,
            format!(
                "`{given}` is out of bounds; use {} to {}",
                duration_text(*bounds.start()),
                duration_text(*bounds.end())
            ),
        ),
        Err(message) => problems.add(path, message),
    }
    default
}

/// A size key: the default when it is not there, a problem when it is not within the bounds.
pub(super) fn size_key(
    path: impl fmt::Display,
    given: Option<String>,
    default: u64,
    bounds: RangeInclusive<u64>,
    problems: &mut Problems,
) -> u64 {
    let Some(given) = given else { return default };
    match size(&given) {
        Ok(value) if bounds.contains(&value) => return value,
        Ok(_) => problems.add(
            path,
            format!(
                "`{given}` is out of bounds; use {} to {}",
                size_text(*bounds.start()),
                size_text(*bounds.end())
            ),
        ),
        Err(message) => problems.add(path, message),
    }
    default
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("15m", 900_000), ("1h30m", 5_400_000), ("100ms", 100), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "15",
            "m",
            "15 m",
            "-1s",
            "1.5h",
            "15M",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1GiB512MiB"), Ok((1 << 30) + (512 << 20)));
        for text in ["64", "64MB", "64mib", "", "MiB", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn texts_read_back() {
        for text in ["15m", "90m", "100ms", "1d", "36h"] {
            assert_eq!(duration_text(duration(text).expect("a duration")), text);
        }
        assert_eq!(size_text(64 << 20), "64MiB");
        assert_eq!(size_text(1025), "1025B");
    }
}

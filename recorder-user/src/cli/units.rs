//! Times, durations and sizes as people write and read them.

use std::time::Duration;

use crate::{model::Timestamp, witness::WitnessOptions};

/// Parses `90`, `500ms`, `2s`, `15m`, `3h` or `7d`; a bare number is seconds.
///
/// # Errors
/// A text for the user, when it is none of these.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unknown unit {unit:?} (ms, s, m, h or d)")),
    };
    let number: f64 = number.parse().map_err(|_| format!("not a duration: {text:?} (like 2s)"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("too long: {text:?}"))
}

/// Parses a size such as `64MiB` or `200GiB`; a bare number is bytes.
///
/// # Errors
/// A text for the user, when it is none of these.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(format!("unknown unit {unit:?} (B, KiB, MiB, GiB or TiB)")),
    };
    let number: u64 = number.parse().map_err(|_| format!("not a size: {text:?} (like 10GiB)"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("too large: {text:?}"))
}

/// Parses the size of the witness's ring.
///
/// # Errors
/// A text for the user, when it is not such a size.
pub fn parse_ring_size(text: &str) -> Result<u32, String> {
    WitnessOptions::ring_bytes(parse_size(text)?)
        .ok_or_else(|| format!("not a power of two from 4KiB to 1GiB: {text:?}"))
}

/// Parses a positive factor of time.
///
/// # Errors
/// A text for the user, when it is not a positive number.
pub fn parse_speed(text: &str) -> Result<f64, String> {
    match text.trim_end_matches(['x', '×']).parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err(format!("not a speed: {text:?} (a positive number such as 2 or 0.5)")),
    }
}

/// An instant as typed: absolute, or a duration before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// RFC 3339, or a date at midnight UTC.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

impl When {
    /// The instant, given the present one.
    #[must_use]
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => {
                now.plus_micros(i64::try_from(ago.as_micros()).map_or(i64::MIN, |micros| -micros))
            }
        }
    }
}

/// Parses an RFC 3339 time, a date, or a duration ago.
///
/// # Errors
/// A text for the user, when it is none of these.
pub fn parse_when(text: &str) -> Result<When, String> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(When::Ago(ago));
    }
    let full =
        if text.len() == "2026-01-31".len() { format!("{text}T00:00:00Z") } else { text.into() };
    full.parse().map(When::At).map_err(|_| {
        format!(
            "not a time: {text:?} (like 2026-01-31T12:00:00Z, 2026-01-31, or 2h for two hours ago)"
        )
    })
}

/// The short form for tables: UTC, to the second.
#[must_use]
pub fn short_time(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('T') {
        Some((date, clock)) => format!("{date} {}", clock.get(..8).unwrap_or(clock)),
        None => text,
    }
}

/// Minutes, seconds and milliseconds since the session began; hours too when there are any.
#[must_use]
pub fn offset(micros: i64) -> String {
    let (sign, millis) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs() / 1000);
    let (seconds, minutes, hours) = (millis / 1000 % 60, millis / 60_000 % 60, millis / 3_600_000);
    let millis = millis % 1000;
    if hours > 0 {
        return format!("{sign}{hours}:{minutes:02}:{seconds:02}.{millis:03}");
    }
    format!("{sign}{minutes:02}:{seconds:02}.{millis:03}")
}

/// A duration in three significant places at most.
#[must_use]
pub fn latency(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..100_000 => format!("{}.{} ms", micros / 1000, micros / 100 % 10),
        100_000..1_000_000 => format!("{} ms", micros / 1000),
        1_000_000..10_000_000 => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
        10_000_000..600_000_000 => format!("{} s", micros / 1_000_000),
        _ => format!("{} min", micros / 60_000_000),
    }
}

/// A number of bytes in three significant places at most.
#[must_use]
pub fn bytes(count: u64) -> String {
    let (unit, name) = match count {
        0..1024 => return format!("{count} B"),
        0x400..0x10_0000 => (0x400, "KiB"),
        0x10_0000..0x4000_0000 => (0x10_0000, "MiB"),
        _ => (0x4000_0000, "GiB"),
    };
    format!("{}.{} {name}", count / unit, count % unit * 10 / unit)
}

/// `1 record`, `2 records`.
#[must_use]
pub fn count(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("2s", 2000),
            ("500ms", 500),
            ("1.5m", 90_000),
            ("7", 7000),
            ("1d", 86_400_000),
            ("3h", 10_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1s", "2 s", "1w", "1.2.3s", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("7", 7), ("1KiB", 1 << 10), ("2MiB", 2 << 20), ("200GiB", 200 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "1.5GiB", "1 GiB", "1GB", "-1", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ring_is_a_power_of_two() {
        assert_eq!(parse_ring_size("4MiB"), Ok(4 << 20));
        for bad in ["3MiB", "1KiB", "4GiB", "many"] {
            assert!(parse_ring_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn speeds_are_positive() {
        assert_eq!(parse_speed("2"), Ok(2.0));
        assert_eq!(parse_speed("0.5x"), Ok(0.5));
        for bad in ["0", "-1", "inf", "NaN", "fast"] {
            assert!(parse_speed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_are_absolute_or_ago() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().expect("time");
        for (text, want) in [
            ("2h", "2026-01-31T10:00:00.000000Z"),
            ("2026-01-30", "2026-01-30T00:00:00.000000Z"),
            ("2026-01-30T01:02:03+01:00", "2026-01-30T00:02:03.000000Z"),
        ] {
            let when = parse_when(text).expect(text);
            assert_eq!(when.resolve(now).to_string(), want, "{text}");
        }
        assert!(parse_when("yesterday").is_err());
        assert!(parse_when("2026-13-01").is_err());
    }

    #[test]
    fn short_forms() {
        assert_eq!(
            short_time(Timestamp::from_micros(1_790_000_000_000_001)),
            "2026-09-21 14:13:20"
        );
        assert_eq!(offset(1_204_000), "00:01.204");
        assert_eq!(offset(3_723_004_999), "1:02:03.004");
        assert_eq!(offset(-5000), "-00:00.005");
        for (micros, want) in [
            (7, "7 µs"),
            (12_345, "12.3 ms"),
            (350_000, "350 ms"),
            (1_500_000, "1.5 s"),
            (12_000_000, "12 s"),
            (3_600_000_000, "60 min"),
        ] {
            assert_eq!(latency(micros), want);
        }
        assert_eq!(
            [count(0, "row"), count(1, "row"), count(2, "row")],
            ["0 rows", "1 row", "2 rows"]
        );
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }
}

//! `grpc-timeout`: at most eight digits and a unit (gRPC's protocol text, "Timeout").

use std::time::Duration;

/// Longest value that we can write.
pub const TIMEOUT_TEXT_MAX: usize = 9;

/// `None` when the value is malformed.
pub fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0u64, |sum, d| sum * 10 + u64::from(d - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The finest unit in which eight digits are enough, rounded up: a deadline is never sent on
/// shorter than it is because of its text.
pub fn encode(timeout: Duration) -> ([u8; TIMEOUT_TEXT_MAX], usize) {
    const MAX: u128 = 99_999_999;
    const UNITS: [(u128, u8); 6] = [
        (1, b'n'),
        (1_000, b'u'),
        (1_000_000, b'm'),
        (1_000_000_000, b'S'),
        (60_000_000_000, b'M'),
        (3_600_000_000_000, b'H'),
    ];
    let nanos = timeout.as_nanos();
    let fits = UNITS.iter().find(|(size, _)| nanos.div_ceil(*size) <= MAX);
    match fits {
        Some((size, unit)) => write(nanos.div_ceil(*size) as u64, *unit),
        None => write(MAX as u64, b'H'),
    }
}

fn write(mut amount: u64, unit: u8) -> ([u8; TIMEOUT_TEXT_MAX], usize) {
    let mut text = [0u8; TIMEOUT_TEXT_MAX];
    let mut count = 0;
    while count == 0 || (amount > 0 && count < TIMEOUT_TEXT_MAX - 1) {
        text[count] = b'0' + (amount % 10) as u8;
        count += 1;
        amount /= 10;
    }
    text[..count].reverse();
    text[count] = unit;
    (text, count + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(timeout: Duration) -> String {
        let (bytes, len) = encode(timeout);
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    #[test]
    fn reads_every_unit() {
        assert_eq!(parse(b"2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse(b"2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse(b"10S"), Some(Duration::from_secs(10)));
        assert_eq!(parse(b"99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(parse(b"1u"), Some(Duration::from_micros(1)));
        assert_eq!(parse(b"0n"), Some(Duration::ZERO));
        for bad in [&b""[..], b"S", b"1", b"1x", b"-1S", b"123456789S", b"1.5S"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn writes_what_fits() {
        assert_eq!(text(Duration::from_millis(1)), "1000000n");
        assert_eq!(text(Duration::from_secs(2)), "2000000u");
        assert_eq!(text(Duration::from_secs(1000)), "1000000m");
        assert_eq!(text(Duration::ZERO), "0n");
        assert_eq!(text(Duration::new(0, 100_000_001)), "100001u");
    }

    #[test]
    fn never_shortens() {
        for nanos in [1u64, 99_999_999, 100_000_001, 7_123_456_789, 1 << 60] {
            let timeout = Duration::from_nanos(nanos);
            assert!(parse(text(timeout).as_bytes()).unwrap() >= timeout);
        }
    }
}

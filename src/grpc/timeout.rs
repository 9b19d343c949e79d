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
    const MAX: u64 = 99_999_999;
    let (secs, nanos) = (timeout.as_secs(), u64::from(timeout.subsec_nanos()));
    // What is too much for 64 bits is too much for eight digits.
    let fine = |per_second: u64, rest: u64| secs.saturating_mul(per_second).saturating_add(rest);
    let whole = secs.saturating_add(u64::from(nanos > 0));
    let units = [
        (fine(1_000_000_000, nanos), b'n'),
        (fine(1_000_000, nanos.div_ceil(1_000)), b'u'),
        (fine(1_000, nanos.div_ceil(1_000_000)), b'm'),
        (whole, b'S'),
        (whole.div_ceil(60), b'M'),
        (whole.div_ceil(3_600), b'H'),
    ];
    let fits = units.into_iter().find(|(amount, _)| *amount <= MAX);
    let (amount, unit) = fits.unwrap_or((MAX, b'H'));
    write(amount, unit)
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
        assert_eq!(text(Duration::new(99_999_999, 1)), "1666667M");
        assert_eq!(text(Duration::from_secs(99_999_999 * 60 + 1)), "1666667H");
        assert_eq!(text(Duration::MAX), "99999999H");
    }

    #[test]
    fn never_shortens() {
        for nanos in [1u64, 99_999_999, 100_000_001, 7_123_456_789, 1 << 60] {
            let timeout = Duration::from_nanos(nanos);
            assert!(parse(text(timeout).as_bytes()).unwrap() >= timeout);
        }
    }
}

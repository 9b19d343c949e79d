//! Texts as Go reads them: booleans, integers, durations, with Go's error texts.
//!
//! Sources: `strconv` and `time.ParseDuration` of Go's standard library, whose errors daprd
//! prints as they are.

use std::time::Duration;

/// The letters of `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(syntax("ParseBool", text)),
    }
}

/// `strconv.ParseInt(text, 0, 64)`: decimal, or `0x`, `0o`, `0b`, `0` with their digits.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let (negative, magnitude) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) | None => (false, text),
    };
    let magnitude = digits(magnitude).map_err(|error| error.text("ParseInt", text))?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(value).map_err(|_| NumberError::Range.text("ParseInt", text))
}

/// `strconv.ParseUint(text, 0, 64)`.
pub fn parse_uint(text: &str) -> Result<u64, String> {
    digits(text).map_err(|error| error.text("ParseUint", text))
}

/// `strconv.Atoi`: decimal only.
pub fn atoi(text: &str) -> Result<i64, String> {
    let magnitude = text.strip_prefix(['-', '+']).unwrap_or(text);
    if magnitude.is_empty() || !magnitude.bytes().all(|b| b.is_ascii_digit()) {
        return Err(syntax("Atoi", text));
    }
    text.parse().map_err(|_| NumberError::Range.text("Atoi", text))
}

enum NumberError {
    Syntax,
    Range,
}

impl NumberError {
    fn text(self, function: &str, text: &str) -> String {
        match self {
            Self::Syntax => syntax(function, text),
            Self::Range => format!("strconv.{function}: parsing {text:?}: value out of range"),
        }
    }
}

fn syntax(function: &str, text: &str) -> String {
    format!("strconv.{function}: parsing {text:?}: invalid syntax")
}

fn digits(text: &str) -> Result<u64, NumberError> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(NumberError::Syntax);
    }
    u64::from_str_radix(digits, radix).map_err(|_| NumberError::Range)
}

/// A Go duration; `negative` ones are legal there, and mean "unset" wherever Dapr takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration {
    pub negative: bool,
    pub magnitude: Duration,
}

impl GoDuration {
    /// What is left of it where only positive values make sense.
    pub fn positive(self) -> Option<Duration> {
        (!self.negative && !self.magnitude.is_zero()).then_some(self.magnitude)
    }
}

/// `time.ParseDuration`: `1h2m3.5s`, `300ms`, `-1m`; `0` alone needs no unit.
pub fn parse_duration(text: &str) -> Result<GoDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) | None => (false, text),
    };
    if rest == "0" {
        return Ok(GoDuration { negative: false, magnitude: Duration::ZERO });
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end =
            |text: &str| text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, tail) = rest.split_at(end(rest));
        let unit_end = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let scale = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        nanos += part(whole, fraction, scale).ok_or_else(invalid)?;
        if nanos > i64::MAX as u128 {
            return Err(invalid());
        }
        rest = tail;
    }
    let nanos = u64::try_from(nanos).map_err(|_| invalid())?;
    Ok(GoDuration { negative, magnitude: Duration::from_nanos(nanos) })
}

/// `Duration.String`: `1m0s`, `1.5s`, `70ms`, `250µs`.
pub fn format_duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let below_second = |unit: u128, name: &str| fraction(nanos, unit) + name;
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => below_second(1_000, "µs"),
        1_000_000..1_000_000_000 => below_second(1_000_000, "ms"),
        _ => {
            let minutes = time.as_secs() / 60;
            let seconds = fraction(nanos - u128::from(minutes) * 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Decimal, without zeros at its end.
fn fraction(nanos: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", nanos / unit, nanos % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn part(whole: &str, fraction: &str, scale: u128) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.bytes().take(18) {
        unit /= 10;
        nanos += u128::from(digit - b'0') * unit;
    }
    Some(nanos)
}

/// Dapr's `IsTruthy` (`kit/strings`).
pub fn truthy(text: &str) -> bool {
    matches!(text.trim().to_lowercase().as_str(), "y" | "yes" | "true" | "t" | "on" | "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        assert_eq!(parse_int("-1"), Ok(-1));
        assert_eq!(parse_int("0x10"), Ok(16));
        assert_eq!(parse_int("010"), Ok(8));
        assert_eq!(parse_int("0"), Ok(0));
        let text = r#"strconv.ParseInt: parsing "x": invalid syntax"#;
        assert_eq!(parse_int("x"), Err(text.to_owned()));
        let text = r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#;
        assert_eq!(parse_int("9223372036854775808"), Err(text.to_owned()));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        let text = r#"strconv.ParseUint: parsing "-1": invalid syntax"#;
        assert_eq!(parse_uint("-1"), Err(text.to_owned()));
        let text = r#"strconv.Atoi: parsing "x": invalid syntax"#;
        assert_eq!(atoi("x"), Err(text.to_owned()));
        assert_eq!(atoi("007"), Ok(7));
        assert_eq!(atoi("-7"), Ok(-7));
        assert!(atoi("").is_err() && atoi("+").is_err() && atoi("0x1").is_err());
    }

    #[test]
    fn durations() {
        let of = |text: &str| parse_duration(text).unwrap();
        assert_eq!(of("1h2m3.5s").magnitude, Duration::from_millis(3_723_500));
        assert_eq!(of("300ms").magnitude, Duration::from_millis(300));
        assert_eq!(of(".5s").magnitude, Duration::from_millis(500));
        assert_eq!(of("0").magnitude, Duration::ZERO);
        assert_eq!(of("-1m"), GoDuration { negative: true, magnitude: Duration::from_secs(60) });
        assert_eq!(of("-1m").positive(), None);
        let error = |text: &str| parse_duration(text).unwrap_err();
        assert_eq!(error("5"), r#"time: missing unit in duration "5""#);
        assert_eq!(error(""), r#"time: invalid duration """#);
        assert_eq!(error("5x"), r#"time: unknown unit "x" in duration "5x""#);
        assert_eq!(error("s"), r#"time: invalid duration "s""#);
        assert_eq!(error("9999999999h"), r#"time: invalid duration "9999999999h""#);
    }

    /// From the documentation and tests of Go's `time`.
    #[test]
    fn durations_are_written() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (1_000_000_000, "1s"),
            (3_300_000_000, "3.3s"),
            (60_000_000_000, "1m0s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (480_000_000_001, "8m0.000000001s"),
        ] {
            assert_eq!(format_duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn truth() {
        for text in ["y", " YES ", "True", "t", "on", "1"] {
            assert!(truthy(text), "{text}");
        }
        for text in ["", "0", "no", "enabled"] {
            assert!(!truthy(text), "{text}");
        }
        assert_eq!(parse_bool("T"), Ok(true));
        assert_eq!(parse_bool("False"), Ok(false));
        let text = r#"strconv.ParseBool: parsing "yes": invalid syntax"#;
        assert_eq!(parse_bool("yes"), Err(text.to_owned()));
    }
}

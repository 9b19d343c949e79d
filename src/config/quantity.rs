//! Resource quantities as Kubernetes writes them: `4Mi`, `512k`, `1e3`, `0.5Gi`.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`; a fraction of an octet rounds up.

/// What a text that is no quantity is answered with, as daprd prints it.
pub const INVALID: &str = "quantities must match the regular expression \
    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Most digits looked at; more cannot fit in the result.
const DIGITS_MAX: usize = 30;

pub fn parse(text: &str) -> Result<i64, &'static str> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) | None => (false, text),
    };
    let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = whole.len() + fraction.len();
    if digits == 0 || digits > DIGITS_MAX || fraction.contains('.') {
        return Err(INVALID);
    }
    // The value is mantissa / 10^fraction.len() × base^exponent.
    let mantissa: i128 = format!("{whole}{fraction}").parse().map_err(|_| INVALID)?;
    let (base, exponent) = scale(suffix).ok_or(INVALID)?;
    let mut numerator = mantissa;
    let mut denominator = power(10, fraction.len() as u32).ok_or(INVALID)?;
    if exponent >= 0 {
        let factor = power(base, exponent.unsigned_abs());
        numerator = factor.and_then(|f| numerator.checked_mul(f)).unwrap_or(i128::MAX);
    } else {
        let factor = power(base, exponent.unsigned_abs());
        denominator = factor.and_then(|f| denominator.checked_mul(f)).unwrap_or(i128::MAX);
    }
    let up = numerator % denominator != 0;
    let value = numerator / denominator + i128::from(up);
    let value = value.min(i128::from(i64::MAX)) as i64;
    Ok(if negative { -value } else { value })
}

fn power(base: i128, exponent: u32) -> Option<i128> {
    base.checked_pow(exponent)
}

/// Base and exponent of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (10, 0),
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (10, exponent)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_kubernetes() {
        for (text, value) in [
            ("4Mi", 4 << 20),
            ("4Ki", 4096),
            ("4M", 4_000_000),
            ("16", 16),
            ("0", 0),
            ("-1", -1),
            ("1e3", 1000),
            ("0.5Gi", 1 << 29),
            ("1.5k", 1500),
            (".1", 1),
            ("100m", 1),
            ("+2", 2),
            ("16Ei", i64::MAX),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
        for text in ["", "foo", "4mi", "4 Mi", "Mi", "1.2.3", "1e", "-", "."] {
            assert_eq!(parse(text), Err(INVALID), "{text}");
        }
    }
}

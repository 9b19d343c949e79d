//! Values on the command line: durations, schedules, metadata.
//!
//! Refuses to know which argument they belong to.

use crate::plan::Segment;
use std::time::Duration;

/// So long that nobody waits for it, and that no clock overflows.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// `250us`, `1.5s`, `2m`; a year at most.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 500ms, 10s or 2m");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    if duration > DURATION_MAX {
        return Err(format!("{text:?} is longer than a year"));
    }
    Ok(duration)
}

/// `step:1000@5s,2000@5s` or `ramp:0..5000@30s`, segments separated by commas.
pub fn segments(text: &str) -> Result<Vec<Segment>, String> {
    let wrong =
        || format!("{text:?} is no schedule such as step:1000@5s,2000@5s or ramp:100..5000@30s");
    let (kind, list) = text.split_once(':').ok_or_else(wrong)?;
    list.split(',')
        .map(|segment| {
            let (rates, length) = segment.split_once('@').ok_or_else(wrong)?;
            let (from, to) = match (kind, rates.split_once("..")) {
                ("step", None) => (rates, rates),
                ("ramp", Some(rates)) => rates,
                _ => return Err(wrong()),
            };
            let length = duration(length)?;
            Ok(Segment { from: rate(from)?, to: rate(to)?, length })
        })
        .collect()
}

/// Calls per second.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0);
    rate.ok_or_else(|| format!("{text:?} is no number of calls per second"))
}

/// `key=value`; of `-bin` keys the value is base64, as on the wire.
pub fn metadata(text: &str) -> Result<(String, Vec<u8>), String> {
    let wrong = || format!("{text:?} is no metadata such as dapr-app-id=server");
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    if key.is_empty() {
        return Err(wrong());
    }
    let key = key.to_ascii_lowercase();
    if !key.ends_with("-bin") {
        return Ok((key, value.as_bytes().to_vec()));
    }
    let unpadded = value.trim_end_matches('=').as_bytes();
    let octets = data_encoding::BASE64_NOPAD.decode(unpadded);
    let octets = octets.map_err(|_| format!("the value of {text:?} is no base64"))?;
    Ok((key, octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "10", "s", "-1s", "1 s", "1d", "1e400s", "nans"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration("8784h"), Ok(DURATION_MAX));
        let longer = duration("18000000000000000000s").unwrap_err();
        assert_eq!(longer, "\"18000000000000000000s\" is longer than a year");
    }

    #[test]
    fn schedules() {
        let segment =
            |from, to, seconds| Segment { from, to, length: Duration::from_secs(seconds) };
        let steps = vec![segment(1000.0, 1000.0, 5), segment(2000.0, 2000.0, 60)];
        assert_eq!(segments("step:1000@5s,2000@1m"), Ok(steps));
        assert_eq!(segments("ramp:0..10.5@3s"), Ok(vec![segment(0.0, 10.5, 3)]));
        for wrong in ["", "step:", "step:1", "step:1..2@3s", "ramp:1@3s", "line:1@3s", "step:-1@3s"]
        {
            assert!(segments(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn metadata_values_are_raw_octets() {
        assert_eq!(metadata("A=b=c"), Ok(("a".to_owned(), b"b=c".to_vec())));
        assert_eq!(metadata("a-bin=//79AQ=="), Ok(("a-bin".to_owned(), vec![255, 254, 253, 1])));
        for wrong in ["a", "=b", "a-bin=%"] {
            assert!(metadata(wrong).is_err(), "{wrong}");
        }
    }
}

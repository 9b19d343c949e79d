//! How reloads went: what metrics and metadata tell. No I/O.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Since the start, which counts as the first good reading.
#[derive(Clone, Debug)]
pub struct Record {
    /// Readings since then.
    pub readings: u64,
    /// Readings that found something wrong.
    pub failures: u64,
    /// Of the last reading that was good.
    pub good_at: SystemTime,
    /// When what is in force was read; `None`: at the start.
    changed_at: Option<SystemTime>,
    /// Since when something that files say is refused.
    refused_at: Option<SystemTime>,
    /// Something changed that holds only for a whole run.
    pub restart_pending: bool,
}

/// What became of a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Something new is in force.
    pub changed: bool,
    /// Something was refused that was not before.
    pub failed: bool,
    /// Something that the files say now is not in force.
    pub refused: bool,
}

impl Record {
    pub fn new(now: SystemTime) -> Self {
        Self {
            readings: 0,
            failures: 0,
            good_at: now,
            changed_at: None,
            refused_at: None,
            restart_pending: false,
        }
    }

    /// What the files say is in force.
    pub fn is_good(&self) -> bool {
        self.refused_at.is_none()
    }

    pub fn count(&mut self, outcome: Outcome, now: SystemTime) {
        let Outcome { changed, failed, refused } = outcome;
        self.readings = self.readings.saturating_add(1);
        self.failures = self.failures.saturating_add(u64::from(failed));
        if !refused {
            self.good_at = now;
        }
        if changed {
            self.changed_at = Some(now);
        }
        self.refused_at = self.refused_at.filter(|_| refused && !failed).or(refused.then_some(now));
    }

    /// At the start: something was left out.
    pub fn begins_refused(&mut self) {
        self.refused_at = Some(self.good_at);
    }

    pub fn last_was_good(&self) -> bool {
        self.refused_at.is_none()
    }

    /// Seconds since 1970 of the last good reading.
    pub fn good_seconds(&self) -> u64 {
        let since = self.good_at.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since: Duration| since.as_secs())
    }

    /// What the metadata tells besides: nothing while everything is as it was at the start.
    pub fn tell(&self, extended: &mut BTreeMap<String, String>) {
        for (name, at) in [
            ("ringsideConfigurationSince", self.changed_at),
            ("ringsideConfigurationRefused", self.refused_at),
        ] {
            if let Some(at) = at {
                extended.insert(name.to_owned(), shown(at));
            }
        }
        if self.restart_pending {
            extended.insert("ringsideRestartPending".to_owned(), "true".to_owned());
        }
    }
}

fn shown(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_in_force() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7);
        let mut record = Record::new(at(0));
        let told = |record: &Record| {
            let mut told = BTreeMap::new();
            record.tell(&mut told);
            told.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!((told(&record).len(), record.good_seconds()), (0, 0));
        let nothing = Outcome::default();
        let changed = Outcome { changed: true, ..nothing };
        let failed = Outcome { failed: true, refused: true, ..nothing };
        record.count(nothing, at(1));
        assert_eq!((told(&record).len(), record.good_seconds()), (0, 1));
        record.count(changed, at(60));
        record.count(failed, at(61));
        record.count(Outcome { refused: true, ..nothing }, at(62));
        record.restart_pending = true;
        let since = "ringsideConfigurationSince=1970-01-01T00:01:00Z";
        let refused = "ringsideConfigurationRefused=1970-01-01T00:01:01Z";
        assert_eq!(told(&record), [refused, since, "ringsideRestartPending=true"]);
        assert_eq!((record.good_seconds(), record.last_was_good()), (60, false));
        record.count(nothing, at(63));
        record.restart_pending = false;
        assert_eq!(told(&record), [since]);
        assert_eq!((record.readings, record.failures, record.last_was_good()), (5, 1, true));
        record.begins_refused();
        assert_eq!((told(&record).len(), record.last_was_good()), (2, false));
    }
}

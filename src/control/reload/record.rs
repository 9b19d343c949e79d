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
    pub refused: u64,
    /// Of the last reading that was good.
    pub good_at: SystemTime,
    /// When what is in force was read; `None`: at the start.
    changed_at: Option<SystemTime>,
    /// When what there is now was refused.
    refused_at: Option<SystemTime>,
    /// Something changed that holds only for a whole run.
    pub restart_pending: bool,
}

/// What became of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Changed,
    Unchanged,
    Refused,
}

impl Record {
    pub fn new(now: SystemTime) -> Self {
        Self {
            readings: 0,
            refused: 0,
            good_at: now,
            changed_at: None,
            refused_at: None,
            restart_pending: false,
        }
    }

    pub fn count(&mut self, outcome: Outcome, now: SystemTime) {
        self.readings = self.readings.saturating_add(1);
        match outcome {
            Outcome::Refused => {
                self.refused = self.refused.saturating_add(1);
                self.refused_at = Some(now);
            }
            Outcome::Changed | Outcome::Unchanged => {
                self.good_at = now;
                self.refused_at = None;
            }
        }
        if outcome == Outcome::Changed {
            self.changed_at = Some(now);
        }
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
        record.count(Outcome::Unchanged, at(1));
        assert_eq!((told(&record).len(), record.good_seconds()), (0, 1));
        record.count(Outcome::Changed, at(60));
        record.count(Outcome::Refused, at(61));
        record.restart_pending = true;
        let since = "ringsideConfigurationSince=1970-01-01T00:01:00Z";
        let refused = "ringsideConfigurationRefused=1970-01-01T00:01:01Z";
        assert_eq!(told(&record), [refused, since, "ringsideRestartPending=true"]);
        assert_eq!((record.good_seconds(), record.last_was_good()), (60, false));
        record.count(Outcome::Unchanged, at(62));
        record.restart_pending = false;
        assert_eq!(told(&record), [since]);
        assert_eq!((record.readings, record.refused, record.last_was_good()), (4, 1, true));
    }
}

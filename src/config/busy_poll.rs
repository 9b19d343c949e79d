//! `--ringside-busy-poll`: how long an event loop looks for something to do before it sleeps.

use super::settings::SettingsError;
use std::time::Duration;

/// A millisecond: whoever waits longer than that gains nothing that is worth the CPU.
pub const MICROSECONDS_MAX: u64 = 1000;

/// `off`, or microseconds.
pub(super) fn parse(text: &str) -> Result<Option<Duration>, SettingsError> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse() {
        Ok(window @ 1..=MICROSECONDS_MAX) => Ok(Some(Duration::from_micros(window))),
        Ok(_) | Err(_) => Err(SettingsError(format!(
            "invalid value for 'ringside-busy-poll': {text:?} is neither off nor \
             1 to {MICROSECONDS_MAX} microseconds"
        ))),
    }
}

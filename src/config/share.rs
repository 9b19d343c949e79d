//! A share in percent, or none at all.

use super::settings::SettingsError;

/// Ten for each one.
pub const PERCENT_MAX: u32 = 1000;

pub(super) fn parse(flag: &str, text: &str) -> Result<Option<u32>, SettingsError> {
    match text.parse() {
        Ok(percent @ 0..=PERCENT_MAX) => Ok(Some(percent)),
        Ok(_) | Err(_) if text != "off" => Err(SettingsError(format!(
            "invalid value for '{flag}': {text:?} is neither off nor 0 to {PERCENT_MAX}"
        ))),
        Ok(_) | Err(_) => Ok(None),
    }
}

//! One line that is asked of the admin socket.
//!
//! ```text
//! config | names | pools | limits | breakers | level [LEVEL]
//!        | tap [app=ID] [method=TEXT] [status=N]
//! ```

use crate::observe::account::Filter;
use crate::observe::log::Severity;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    Config,
    Names,
    Pools,
    Limits,
    Breakers,
    Level,
    SetLevel(Severity),
    Tap(Filter),
}

impl Question {
    /// The error says what was wrong.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let question = match first {
            "config" => Self::Config,
            "names" => Self::Names,
            "pools" => Self::Pools,
            "limits" => Self::Limits,
            "breakers" => Self::Breakers,
            "level" => match words.next() {
                None => Self::Level,
                Some(word) => Self::SetLevel(Severity::parse(word).ok_or_else(|| {
                    format!("{word:?} is none of debug, info, warn, error, fatal")
                })?),
            },
            "tap" => Self::Tap(filter(&mut words)?),
            _ => {
                return Err(format!(
                    "{first:?} is none of config, names, pools, limits, breakers, level, tap"
                ));
            }
        };
        match words.next() {
            None => Ok(question),
            Some(word) => Err(format!("{word:?} is one word too many for {first}")),
        }
    }
}

fn filter<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Filter, String> {
    let mut filter = Filter::default();
    for word in words {
        match word.split_once('=') {
            Some(("app", value)) => filter.app = Some(value.to_owned()),
            Some(("method", value)) => filter.method = Some(value.to_owned()),
            Some(("status", value)) => {
                let status = value.parse().map_err(|_| format!("{value:?} is no gRPC status"))?;
                filter.status = Some(status);
            }
            Some(_) | None => {
                return Err(format!("{word:?} is none of app=, method=, status="));
            }
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_questions() {
        assert_eq!(Question::parse(" pools \r\n"), Ok(Question::Pools));
        assert_eq!(Question::parse("level"), Ok(Question::Level));
        assert_eq!(Question::parse("level WARN"), Ok(Question::SetLevel(Severity::Warning)));
        let filter = Filter { app: Some("a".into()), method: Some("/b=C".into()), status: Some(5) };
        assert_eq!(Question::parse("tap status=5 app=a method=/b=C"), Ok(Question::Tap(filter)));
        for bad in ["", "conf", "pools 1", "level loud", "tap x", "tap status=OK", "tap a=b"] {
            assert!(Question::parse(bad).is_err(), "{bad}");
        }
    }
}

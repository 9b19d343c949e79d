//! What was looked at, what was found, what to do.

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// A sidecar would work, but not as well as it could.
    Warn,
    /// A sidecar would not start, or do nothing of use.
    Fail,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// Empty when there is nothing to do.
    pub advice: String,
}

impl Finding {
    pub fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }

    pub fn warn(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Warn, found: found.into(), advice: advice.into() }
    }

    pub fn fail(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Fail, found: found.into(), advice: advice.into() }
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

pub fn as_json(findings: &[Finding]) -> Value {
    let one = |finding: &Finding| {
        let Finding { what, verdict, found, advice } = finding;
        json!({ "check": what, "verdict": verdict.name(), "found": found, "advice": advice })
    };
    findings.iter().map(one).collect()
}

pub fn as_text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { what, verdict, found, advice } in findings {
        text.push_str(&format!("{:4}  {what:width$}  {found}\n", verdict.name()));
        if !advice.is_empty() {
            text.push_str(&format!("{:4}  {:width$}  -> {advice}\n", "", ""));
        }
    }
    let count = |wanted| findings.iter().filter(|finding| finding.verdict == wanted).count();
    let (warned, failed) = (count(Verdict::Warn), count(Verdict::Fail));
    text.push_str(&match (failed, warned) {
        (0, 0) => "a sidecar would work here\n".to_owned(),
        (0, _) => format!("a sidecar would work here; warnings: {warned}\n"),
        _ => format!("a sidecar would not work here; failures: {failed}, warnings: {warned}\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_below_what_was_found() {
        let findings = [Finding::ok("a", "well"), Finding::fail("bcd", "ill", "rest")];
        let text = "ok    a    well\nfail  bcd  ill\n           -> rest\n\
                    a sidecar would not work here; failures: 1, warnings: 0\n";
        assert_eq!(as_text(&findings), text);
        let json = as_json(&findings);
        assert_eq!((&json[1]["verdict"], &json[0]["advice"]), (&"fail".into(), &"".into()));
    }
}

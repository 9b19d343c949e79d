//! The process's environment, read once by `main` and handed in; nobody else asks for it.

use std::collections::BTreeMap;

/// Names and values; what is not UTF-8 is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// `None` when unset.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `None` when unset or empty.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.var(name).filter(|value| !value.is_empty())
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Go's `os.ExpandEnv`: `$NAME`, `${NAME}`; what is unset becomes nothing.
    pub fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let (name, width) = reference(after);
            match name {
                Some(name) => out.push_str(self.var(name).unwrap_or_default()),
                // As in Go: a `$` before nothing stays, bad syntax such as `${}` is eaten.
                None if width == 0 => out.push('$'),
                None => {}
            }
            rest = &after[width..];
        }
        out.push_str(rest);
        out
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// The name that follows a `$`, and how many octets it takes (`getShellName` of Go's `os`).
fn reference(after: &str) -> (Option<&str>, usize) {
    let bytes = after.as_bytes();
    match bytes.first() {
        Some(b'{') => match after.find('}') {
            Some(1) => (None, 2),
            Some(end) => (Some(&after[1..end]), end + 1),
            None => (None, 1),
        },
        Some(b'*' | b'#' | b'$' | b'@' | b'!' | b'?' | b'-' | b'0'..=b'9') => {
            (Some(&after[..1]), 1)
        }
        Some(_) | None => {
            let name = |b: &u8| *b == b'_' || b.is_ascii_alphanumeric();
            let width = bytes.iter().take_while(|b| name(b)).count();
            (after.get(..width).filter(|name| !name.is_empty()), width)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_go() {
        let env: Environment = [("A", "1"), ("LONG_NAME2", "two")].into_iter().collect();
        assert_eq!(env.expand("x $A ${A} ${LONG_NAME2}$LONG_NAME2-"), "x 1 1 twotwo-");
        assert_eq!(env.expand("$UNSET|${UNSET}|"), "||");
        assert_eq!(env.expand("100$ and $ and ${} and ${open"), "100$ and $ and  and open");
        assert_eq!(env.expand("$$A $1x"), "A x");
        assert_eq!(env.expand("é$é"), "é$é");
    }
}

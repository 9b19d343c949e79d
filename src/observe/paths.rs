//! Patterns of paths, under which requests on the HTTP API are told. PURE.
//!
//! 1. At most one pattern fits best: no two fit the same paths, and of two that fit one path one
//!    fits whatever the other does.
//! 2. Bounded: [`PATTERNS_MAX`] are taken, each once more for what is invoked by its path.
//!
//! Sources: patterns of Go's `net/http.ServeMux`; which ones Dapr's `newPathMatching` makes of
//! those that are given, and what it tells of a path, is daprd 1.18.1's as it was seen to be.

use std::collections::BTreeSet;

/// Patterns that a Configuration may give.
pub const PATTERNS_MAX: usize = 256;
/// What an app serves is told by its own pattern, wherever it is invoked.
const INVOKED: &str = "/v1.0/invoke/{app_id}/method";

/// See the file's text.
#[derive(Debug, Default)]
pub struct Paths(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// `{name}`
    Any,
    /// `{$}`: the path ends with this slash.
    End,
    /// `{name...}`, or nothing behind a slash: whatever follows.
    Rest,
}

/// Of what one pattern fits to what another does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    More,
    Less,
    Overlap,
    Apart,
}

impl Paths {
    pub const NONE: Self = Self(Vec::new());

    /// The error names the pattern, and says what is wrong with it.
    pub fn new(given: &[String]) -> Result<Self, String> {
        if given.len() > PATTERNS_MAX {
            return Err(format!("there are more than {PATTERNS_MAX} patterns"));
        }
        let texts = given.iter().flat_map(|text| {
            let text = single_slashes(text);
            [format!("{INVOKED}{text}"), text]
        });
        let texts: BTreeSet<String> = texts.collect();
        let mut patterns: Vec<Pattern> = Vec::new();
        for text in texts {
            let pattern = Pattern::parse(text)?;
            for other in &patterns {
                let why = match pattern.relation(other) {
                    Relation::Same => "fits the same paths as",
                    Relation::Overlap => "fits some paths that are also of",
                    Relation::More | Relation::Less | Relation::Apart => continue,
                };
                return Err(format!("{} {why} {}", pattern.text, other.text));
            }
            patterns.push(pattern);
        }
        Ok(Self(patterns))
    }

    /// The pattern that fits best. Of a path without its last slash, too, if nothing else is it.
    pub fn of(&self, path: &str) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let path = clean(path);
        let found = self.best(&path).filter(|found| found.is_exact(&path));
        let with_slash = || {
            let path = format!("{path}/");
            self.best(&path).filter(|found| found.is_exact(&path))
        };
        let found = found
            .or_else(|| if path.ends_with('/') { None } else { with_slash() })
            .or_else(|| self.best(&path));
        found.map(|found| found.text.as_str())
    }

    fn best(&self, path: &str) -> Option<&Pattern> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let fitting = self.0.iter().filter(|pattern| pattern.fits(&parts));
        fitting.reduce(|best, next| match next.relation(best) {
            Relation::Less => next,
            Relation::Same | Relation::More | Relation::Overlap | Relation::Apart => best,
        })
    }
}

impl Pattern {
    fn parse(text: String) -> Result<Self, String> {
        let fault = |why: &str| Err(format!("{text}: {why}"));
        if text.contains([' ', '\t']) {
            return fault("a pattern has no blanks");
        }
        let mut segments = Vec::new();
        let mut names = BTreeSet::new();
        let mut parts = text.split('/').skip(1).peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            if part.is_empty() && is_last {
                segments.push(Segment::Rest);
                break;
            }
            if !part.contains('{') {
                segments.push(Segment::Literal(unescape(part)));
                continue;
            }
            let inner = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            let Some(inner) = inner else {
                return fault("a wildcard is a whole segment, {name}");
            };
            let (name, segment) = match (inner, inner.strip_suffix("...")) {
                ("$", _) => (None, Segment::End),
                (_, Some(name)) => (Some(name), Segment::Rest),
                (name, None) => (Some(name), Segment::Any),
            };
            if segment != Segment::Any && !is_last {
                return fault("{$} and {name...} are for the end");
            }
            if name.is_some_and(|name| !is_name(name)) {
                return fault("a wildcard's name is letters, digits and underscores");
            }
            if name.is_some_and(|name| !names.insert(name)) {
                return fault("two wildcards have the same name");
            }
            segments.push(segment);
        }
        Ok(Self { segments, text })
    }

    /// What is between a path's slashes; nothing behind the last one is an empty part.
    fn fits(&self, parts: &[&str]) -> bool {
        let ends_open = self.segments.last() == Some(&Segment::Rest);
        let enough = match ends_open {
            true => parts.len() >= self.segments.len(),
            false => parts.len() == self.segments.len(),
        };
        enough
            && self.segments.iter().zip(parts).all(|(segment, part)| match segment {
                Segment::Literal(text) => text == part,
                Segment::Any => !part.is_empty(),
                Segment::End => part.is_empty(),
                Segment::Rest => true,
            })
    }

    /// Of a path that it fits: nothing is left to an open end but a slash.
    fn is_exact(&self, path: &str) -> bool {
        self.segments.last() != Some(&Segment::Rest)
            || path.ends_with('/') && path.matches('/').count() == self.segments.len()
    }

    fn relation(&self, other: &Self) -> Relation {
        let both = self.segments.iter().zip(&other.segments);
        let common = both.fold(Relation::Same, |so_far, (a, b)| so_far.and(a.relation(b)));
        let open = |pattern: &Self| pattern.segments.last() == Some(&Segment::Rest);
        match self.segments.len().cmp(&other.segments.len()) {
            std::cmp::Ordering::Equal => common,
            std::cmp::Ordering::Less if open(self) => common.and(Relation::More),
            std::cmp::Ordering::Greater if open(other) => common.and(Relation::Less),
            std::cmp::Ordering::Less | std::cmp::Ordering::Greater => Relation::Apart,
        }
    }
}

impl Segment {
    fn relation(&self, other: &Self) -> Relation {
        match (self, other) {
            (Self::Literal(one), Self::Literal(two)) if one != two => Relation::Apart,
            (Self::Any | Self::Literal(_), Self::End)
            | (Self::End, Self::Any | Self::Literal(_)) => Relation::Apart,
            (Self::Literal(_), Self::Literal(_))
            | (Self::Any, Self::Any)
            | (Self::End, Self::End)
            | (Self::Rest, Self::Rest) => Relation::Same,
            (Self::Rest, Self::Any | Self::Literal(_) | Self::End)
            | (Self::Any, Self::Literal(_)) => Relation::More,
            (Self::Any | Self::Literal(_) | Self::End, Self::Rest)
            | (Self::Literal(_), Self::Any) => Relation::Less,
        }
    }
}

impl Relation {
    /// Of two patterns, from those of their parts.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Apart, _) | (_, Self::Apart) => Self::Apart,
            (Self::Same, relation) | (relation, Self::Same) => relation,
            (one, two) if one == two => one,
            (Self::More | Self::Less | Self::Overlap, _) => Self::Overlap,
        }
    }
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_numeric())
}

/// With one slash in front.
fn single_slashes(path: &str) -> String {
    let mut single = String::from("/");
    for c in path.chars() {
        if c != '/' || !single.ends_with('/') {
            single.push(c);
        }
    }
    single
}

/// Without empty parts, `.` and `..`; a last slash stays.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{slash}", parts.join("/"))
}

/// A literal as it is compared; one whose escapes are wrong stands for itself.
fn unescape(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else { return text.to_owned() };
        octets.push((high << 4 | low) as u8);
    }
    String::from_utf8(octets).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(given: &[&str]) -> Result<Paths, String> {
        Paths::new(&given.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    /// What daprd 1.18.1 told of such paths under such patterns.
    #[test]
    fn fits_as_daprd_does() {
        let mixed = [
            "v1.0/a",
            "/b/",
            "/c/{x...}",
            "/d/{$}",
            "/e/{x}/f",
            "/h%20i",
            "/a/b/../c",
            "//dd",
            "/b/",
            "/k//l/",
        ];
        let all = paths(&mixed).unwrap();
        for (path, told) in [
            ("/v1.0/a", Some("/v1.0/a")),
            ("/v1.0/a/", None),
            ("/b", Some("/b/")),
            ("/b/", Some("/b/")),
            ("/b/x/y", Some("/b/")),
            ("/c", Some("/c/{x...}")),
            ("/c/", Some("/c/{x...}")),
            ("/c/1/2", Some("/c/{x...}")),
            ("/d", Some("/d/{$}")),
            ("/d/", Some("/d/{$}")),
            ("/d/x", None),
            ("/e/1/f", Some("/e/{x}/f")),
            ("/e//f", None),
            ("/e/1/f/", None),
            ("/h i", Some("/h%20i")),
            ("/h%20i", None),
            ("/a/c", None),
            ("/a/b/../c", None),
            ("//dd", Some("/dd")),
            ("/v1.0/a/.", Some("/v1.0/a")),
            ("/", None),
            ("/zz/../b/q", Some("/b/")),
            ("/k/l/m", Some("/k/l/")),
            ("/v1.0/healthz", None),
            ("/v1.0/invoke/app/method/e/1/f", Some("/v1.0/invoke/{app_id}/method/e/{x}/f")),
        ] {
            assert_eq!(all.of(path), told, "{path}");
        }
        let root = paths(&["/", "/v1.0/state/{x}"]).unwrap();
        for (path, told) in [
            ("/orders/1", "/"),
            ("/v1.0/invoke/app/method/orders/1", "/v1.0/invoke/{app_id}/method/"),
            ("/v1.0/state/1/k", "/"),
            ("/v1.0/state/1", "/v1.0/state/{x}"),
        ] {
            assert_eq!(root.of(path), Some(told), "{path}");
        }
        assert_eq!(paths(&[""]).unwrap().of("/a"), Some("/"));
        let rest = paths(&["/{x...}", "/b"]).unwrap();
        assert_eq!(rest.of("/v1.0/invoke/a"), Some("/{x...}"));
        assert_eq!(rest.of("/b"), Some("/b"));
        assert_eq!(paths(&["/{$}"]).unwrap().of("/"), Some("/{$}"));
        assert_eq!(Paths::default().of("/"), None);
    }

    /// With each of them daprd 1.18.1 ends at its start.
    #[test]
    fn what_is_no_set_of_patterns_is_an_error() {
        for given in [
            &["/{a}/k", "/z/{b}"][..],
            &["/{a}/k", "/{b}/k"],
            &["/a/", "/a/{r...}"],
            &["/x{y}"],
            &["/{y}x"],
            &["/{a}/{a}"],
            &["/{$}/x"],
            &["/{a-b}"],
            &["/{}"],
            &["/a/{r...}/b"],
            &["GET /a"],
        ] {
            let error = paths(given).unwrap_err();
            let named = given.iter().any(|text| error.contains(text.trim_start_matches('/')));
            assert!(named, "{given:?}: {error}");
        }
        let many: Vec<String> = (0..=PATTERNS_MAX).map(|n| format!("/{n}")).collect();
        assert!(Paths::new(&many).unwrap_err().contains("more than 256"));
        assert!(Paths::new(&many[1..]).is_ok());
    }
}

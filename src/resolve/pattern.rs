//! From a target to the text of its address, by a rule that the Configuration gives. PURE.
//!
//! Sources: components-contrib's `nameresolution/kubernetes/kubernetes.go` and
//! `nameresolution/nameformat/nameformat.go`. Of Go's templates this is what can name anything:
//! `{{.ID}}`, `{{.Namespace}}`, `{{.Port}}` and `{{.Data}}`, which daprd leaves empty. A template
//! that needs more is refused whole.

use crate::identity::Target;

/// See the file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The Service that Dapr's operator makes for an app.
    Kubernetes { cluster_domain: String },
    /// daprd's `template`.
    Template(Vec<Piece>),
    /// `{appid}`, and for our own `dns` `{namespace}`, stand for themselves.
    Format(String),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Id,
    Namespace,
    Port,
}

impl Pattern {
    pub fn template(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut trimmed = false;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) =
                after.split_once("}}").ok_or_else(|| "template: unclosed action".to_owned())?;
            // A minus beside the braces eats the white space on its side.
            let (action, eats_left) = match action.strip_prefix('-') {
                Some(inner) if inner.starts_with(char::is_whitespace) => (inner, true),
                Some(_) | None => (action, false),
            };
            let (action, eats_right) = match action.strip_suffix('-') {
                Some(inner) if inner.ends_with(char::is_whitespace) => (inner, true),
                Some(_) | None => (action, false),
            };
            let before = if trimmed { before.trim_start() } else { before };
            let before = if eats_left { before.trim_end() } else { before };
            pieces.push(Piece::Text(before.to_owned()));
            pieces.extend(Piece::of(action.trim())?);
            (rest, trimmed) = (after, eats_right);
        }
        let rest = if trimmed { rest.trim_start() } else { rest };
        pieces.push(Piece::Text(rest.to_owned()));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self::Template(pieces))
    }

    /// `port` is our own internal port: daprd takes it for everybody's.
    pub fn address(&self, target: &Target, port: u16) -> String {
        let (id, namespace) = (target.app_id.as_str(), target.namespace.as_str());
        match self {
            Self::Kubernetes { cluster_domain } => {
                format!("{id}-dapr.{namespace}.svc.{cluster_domain}:{port}")
            }
            Self::Template(pieces) => {
                let mut address = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => address.push_str(text),
                        Piece::Id => address.push_str(id),
                        Piece::Namespace => address.push_str(namespace),
                        Piece::Port => address.push_str(&port.to_string()),
                    }
                }
                address
            }
            Self::Format(format) => format.replace("{namespace}", namespace).replace("{appid}", id),
        }
    }
}

impl Piece {
    /// `None`: a comment.
    fn of(action: &str) -> Result<Option<Self>, String> {
        let is_name = |text: &str| {
            let mut characters = text.chars();
            characters.next().is_some_and(|c| c.is_alphabetic() || c == '_')
                && characters.all(|c| c.is_alphanumeric() || c == '_')
        };
        match action {
            ".ID" => Ok(Some(Self::Id)),
            ".Namespace" => Ok(Some(Self::Namespace)),
            ".Port" => Ok(Some(Self::Port)),
            // What Go prints of a map that is nil, and of what is not in it.
            ".Data" => Ok(Some(Self::Text("map[]".to_owned()))),
            _ if action.strip_prefix(".Data.").is_some_and(is_name) => {
                Ok(Some(Self::Text("<no value>".to_owned())))
            }
            _ if action.starts_with("/*") && action.ends_with("*/") => Ok(None),
            _ => Err(format!(
                "template: {{{{{action}}}}} is more than ringside knows: {{{{.ID}}}}, \
                 {{{{.Namespace}}}}, {{{{.Port}}}} and {{{{.Data.name}}}}"
            )),
        }
    }
}

/// Host and port of an address, cut as daprd cuts it: at the last colon, if a text follows.
pub fn cut(address: &str) -> (&str, Option<&str>) {
    match address.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() => (host, Some(port)),
        Some(_) | None => (address, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Namespace;

    fn address(pattern: &Pattern) -> String {
        let target = Target::parse("server.production", &Namespace::new("default")).unwrap();
        pattern.address(&target, 50002)
    }

    fn template(text: &str) -> Result<String, String> {
        Pattern::template(text).map(|pattern| address(&pattern))
    }

    #[test]
    fn kubernetes_names_the_service_of_dapr() {
        let pattern = Pattern::Kubernetes { cluster_domain: "cluster.local".into() };
        let expected = "server-dapr.production.svc.cluster.local:50002";
        assert_eq!(address(&pattern), expected);
    }

    /// Go 1.26's `text/template` gives each of these over daprd's request.
    #[test]
    fn templates_as_go_reads_them() {
        for (text, expected) in [
            ("{{.ID}}.internal:9999", "server.internal:9999"),
            ("{{ .ID }}-{{.Namespace}}:{{ .Port}}", "server-production:50002"),
            ("a {{- .ID -}} b", "aserverb"),
            ("a {{-  /* why */ -}} b", "ab"),
            ("{{.ID}}-{{.Data.region}}.internal", "server-<no value>.internal"),
            ("{{.Data}}", "map[]"),
            ("plain:1", "plain:1"),
            ("{ID} }} {", "{ID} }} {"),
        ] {
            assert_eq!(template(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["{{.ID", "{{.Id}}", "{{ID}}", "{{if .ID}}x{{end}}", "{{.ID | printf}}", "{{}}"]
        {
            assert!(template(text).is_err(), "{text}");
        }
    }

    #[test]
    fn formats() {
        let format = Pattern::Format("{appid}.{namespace}.org:1".into());
        assert_eq!(address(&format), "server.production.org:1");
    }

    #[test]
    fn cuts_at_the_last_colon() {
        assert_eq!(cut("a.b:1"), ("a.b", Some("1")));
        assert_eq!(cut("[::1]:1"), ("[::1]", Some("1")));
        assert_eq!(cut("a.b"), ("a.b", None));
        assert_eq!(cut("a.b:"), ("a.b:", None));
    }
}

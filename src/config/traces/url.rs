//! Where an exporter's requests go.

use http::Uri;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub tls: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// With its query.
    pub path: String,
    /// `user:password` of HTTP's basic authentication.
    pub user: Option<String>,
}

impl Url {
    /// The errors are those of Go's Zipkin exporter.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = |why: &str| format!("invalid collector URL {text:?}: {why}");
        let uri: Uri = text.parse().map_err(|error| invalid(&format!("{error}")))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(invalid("no scheme or host"));
        };
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(invalid("the scheme is neither http nor https")),
        };
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(invalid("no scheme or host"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if tls => 443,
            None => 80,
        };
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user.to_owned());
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host: host.to_owned(), port, path, user })
    }

    /// `host:port`, as a Host field and a line of the log have it.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        let url = Url::parse("http://zipkin:9411/api/v2/spans?x=1").unwrap();
        assert_eq!((url.tls, url.authority().as_str()), (false, "zipkin:9411"));
        assert_eq!((url.path.as_str(), url.user), ("/api/v2/spans?x=1", None));
        let url = Url::parse("https://me:pw@[::1]").unwrap();
        assert_eq!((url.tls, url.authority().as_str()), (true, "[::1]:443"));
        assert_eq!((url.path.as_str(), url.user.as_deref()), ("/", Some("me:pw")));
        assert_eq!(Url::parse("http://z").unwrap().port, 80);
        for wrong in ["", "zipkin:9411", "/api/v2/spans", "ftp://z/", "http://", "http://a b/"] {
            let error = Url::parse(wrong).unwrap_err();
            assert!(error.starts_with(&format!("invalid collector URL {wrong:?}: ")), "{error}");
        }
    }
}

//! Which endpoint a path and a method mean. No I/O.
//!
//! Source: Dapr's `pkg/api/http/{server,middlewares,directmessaging}.go`.

use crate::policy::apis::{Apis, Endpoint};
use data_encoding::Encoding;
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap};
use std::sync::LazyLock;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Healthz,
    HealthzOutbound,
    Metadata,
    /// The key, unescaped.
    PutMetadata(String),
    Shutdown,
    /// daprd's fallback for what no other route matches: HTTP service invocation.
    Invoke,
    /// On the public port, and without invocation, nothing falls back.
    NotFound,
    MethodNotAllowed,
}

impl Route {
    /// As `IsHealthCheck` of Dapr's endpoints.
    pub fn is_health_check(&self) -> bool {
        match self {
            Self::Healthz | Self::HealthzOutbound => true,
            Self::Metadata
            | Self::PutMetadata(_)
            | Self::Shutdown
            | Self::Invoke
            | Self::NotFound
            | Self::MethodNotAllowed => false,
        }
    }
}

const METADATA: Endpoint = Endpoint { group: "v1/metadata", route: "v1.0/metadata" };
const PUT_METADATA: Endpoint = Endpoint { group: "v1/metadata", route: "v1.0/metadata/{key}" };
const SHUTDOWN: Endpoint = Endpoint { group: "v1/shutdown", route: "v1.0/shutdown" };
const INVOKE: Endpoint = Endpoint { group: "v1/invoke", route: "v1.0/invoke/*" };

/// The routes of the API port, or only those that the public port has. What a list of APIs takes
/// away is not there; health always is.
pub fn route(method: &Method, path: &str, public: bool, apis: &Apis) -> Route {
    let path = clean(path);
    let get = *method == Method::GET;
    let known = match path.as_str() {
        "/v1.0/healthz" => Some((get, Route::Healthz, None)),
        "/v1.0/healthz/outbound" => Some((get, Route::HealthzOutbound, None)),
        "/v1.0/metadata" => Some((get, Route::Metadata, Some(METADATA))),
        "/v1.0/shutdown" if !public => {
            Some((*method == Method::POST, Route::Shutdown, Some(SHUTDOWN)))
        }
        path => path
            .strip_prefix("/v1.0/metadata/")
            .filter(|key| !key.contains('/'))
            .and_then(|key| unescape(key, true).ok())
            .map(|key| (*method == Method::PUT, Route::PutMetadata(key), Some(PUT_METADATA))),
    };
    let served = |endpoint: &Option<Endpoint>| endpoint.is_none_or(|e| apis.serves_endpoint(e));
    let falls_back = !public && apis.serves_endpoint(INVOKE);
    match known.filter(|(.., endpoint)| served(endpoint)) {
        Some((true, route, _)) => route,
        Some((false, ..)) | None if falls_back => Route::Invoke,
        Some((false, ..)) => Route::MethodNotAllowed,
        None => Route::NotFound,
    }
}

/// Go's server refuses a path whose escapes are wrong before anybody else sees it.
pub fn is_escaped_well(path: &str) -> bool {
    unescape(path, false).is_ok()
}

/// Does the API token not matter here? daprd looks at the path as sent, but for its escapes.
pub fn without_token(method: &Method, path: &str) -> bool {
    let path = unescape(path, false).unwrap_or_default();
    let path = path.trim_matches('/');
    *method == Method::GET && (path == "v1.0/healthz" || path == "v1.0/healthz/outbound")
}

/// What HTTP service invocation is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    pub app_id: String,
    pub method: String,
}

/// Whom an invocation is for: header, Basic auth, then path.
pub fn invoked(headers: &HeaderMap, path: &str) -> Option<Invocation> {
    let path = unescape(path, false).ok()?;
    let method = |path: &str| clean(path).trim_start_matches('/').to_owned();
    if let Some(id) = headers.get("dapr-app-id").filter(|id| !id.is_empty()) {
        let app_id = String::from_utf8_lossy(id.as_bytes()).into_owned();
        return Some(Invocation { app_id, method: method(&path) });
    }
    if let Some(app_id) = headers.get(AUTHORIZATION).and_then(|value| basic(value.as_bytes())) {
        return Some(Invocation { app_id, method: method(&path) });
    }
    let mut rest = path.trim_start_matches('/').strip_prefix("v1.0/")?;
    rest = rest.trim_start_matches('/').strip_prefix("invoke/")?;
    let rest = rest.trim_start_matches('/');
    let (id, rest) = rest.split_once("/method/").filter(|(id, _)| !id.is_empty())?;
    let plain = unescape(id, true).ok().filter(|id| !id.is_empty());
    Some(Invocation { app_id: plain.unwrap_or_else(|| id.to_owned()), method: method(rest) })
}

/// The password of Basic credentials whose user is `dapr-app-id`.
fn basic(value: &[u8]) -> Option<String> {
    let decoded = base64(value.strip_prefix(b"Basic ")?)?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, id) = text.split_once(':')?;
    (user.eq_ignore_ascii_case("dapr-app-id") && !id.contains(':') && !id.is_empty())
        .then(|| id.to_owned())
}

/// Go's `StdEncoding`: RFC 4648 §4 with padding, whatever the bits that fill its last digit.
static STANDARD: LazyLock<Encoding> = LazyLock::new(|| {
    let mut standard = data_encoding::BASE64.specification();
    standard.check_trailing_bits = false;
    // It differs from a right one in that alone.
    standard.encoding().unwrap_or(data_encoding::BASE64)
});

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    // The library takes one text behind another; Go does not.
    let padding = text.iter().rev().take_while(|octet| **octet == b'=').count();
    let is_one = text.iter().filter(|octet| **octet == b'=').count() == padding;
    STANDARD.decode(text).ok().filter(|_| is_one)
}

/// Go's `path.Clean` of a rooted path.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Percent-decoding; in a query also `+`. What cannot be an escape is the error.
pub fn unescape(text: &str, query: bool) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.as_bytes();
    while let [first, rest @ ..] = octets {
        octets = rest;
        match first {
            b'+' if query => out.push(b' '),
            b'%' => {
                let digits = rest.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
                let hex = |text: &&str| text.bytes().all(|digit| digit.is_ascii_hexdigit());
                let digits = digits.filter(hex);
                let octet = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let (Some(octet), Some(after)) = (octet, rest.get(2..)) else {
                    let bad = rest.get(..rest.len().min(2)).unwrap_or_default();
                    return Err(format!("%{}", String::from_utf8_lossy(bad)));
                };
                out.push(octet);
                octets = after;
            }
            octet => out.push(*octet),
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::access::{ApiRule, ApiRules};

    fn of(method: Method, path: &str) -> Route {
        route(&method, path, false, &Apis::default())
    }

    #[test]
    fn cleans_paths_as_go_does() {
        assert_eq!(of(Method::GET, "//v1.0//healthz/"), Route::Healthz);
        assert_eq!(of(Method::GET, "/v1.0/x/../healthz/./outbound"), Route::HealthzOutbound);
        assert_eq!(of(Method::GET, "/../../v1.0/metadata"), Route::Metadata);
        assert_eq!(of(Method::GET, "/V1.0/metadata"), Route::Invoke);
        assert_eq!(of(Method::GET, "*"), Route::Invoke);
    }

    #[test]
    fn methods_matter() {
        assert_eq!(of(Method::POST, "/v1.0/healthz"), Route::Invoke);
        assert_eq!(of(Method::GET, "/v1.0/shutdown"), Route::Invoke);
        assert_eq!(of(Method::POST, "/v1.0/shutdown"), Route::Shutdown);
        let public = |path| route(&Method::POST, path, true, &Apis::default());
        assert_eq!(public("/v1.0/shutdown"), Route::NotFound);
        assert_eq!(public("/v1.0/healthz"), Route::MethodNotAllowed);
    }

    #[test]
    fn keys_are_unescaped() {
        let put = |path| of(Method::PUT, path);
        assert_eq!(put("/v1.0/metadata/a%2Fb+c%25"), Route::PutMetadata("a/b c%".to_owned()));
        assert_eq!(put("/v1.0/metadata/a/b"), Route::Invoke);
        for path in ["/v1.0/metadata/%zz", "/%", "/a%+1", "/%1"] {
            assert!(!is_escaped_well(path), "{path}");
        }
    }

    #[test]
    fn only_health_checks_go_without_token() {
        assert!(without_token(&Method::GET, "/v1.0/healthz/"));
        assert!(without_token(&Method::GET, "/v1.0/healthz/outbound"));
        assert!(!without_token(&Method::POST, "/v1.0/healthz"));
        assert!(!without_token(&Method::GET, "/v1.0/metadata"));
        assert!(!without_token(&Method::GET, "/x/../v1.0/healthz"), "as sent, not cleaned");
    }

    #[test]
    fn finds_whom_an_invocation_is_for() {
        let none = HeaderMap::new();
        let invoked = |headers: &HeaderMap, path: &str| {
            invoked(headers, path).map(|it| (it.app_id, it.method))
        };
        let of = |app_id: &str, method: &str| Some((app_id.to_owned(), method.to_owned()));
        assert_eq!(invoked(&none, "/v1.0/invoke/a.b/method/x/y%20z"), of("a.b", "x/y z"));
        assert_eq!(invoked(&none, "//v1.0//invoke/a%252Fb/method/"), of("a/b", ""));
        assert_eq!(invoked(&none, "/v1.0/invoke/a"), None);
        assert_eq!(invoked(&none, "/hello"), None);
        let mut headers = HeaderMap::new();
        // `dapr-app-id:server` in base64.
        headers.insert(AUTHORIZATION, "Basic ZGFwci1hcHAtaWQ6c2VydmVy".parse().unwrap());
        assert_eq!(invoked(&headers, "/hello"), of("server", "hello"));
        headers.insert("dapr-app-id", "other".parse().unwrap());
        assert_eq!(invoked(&headers, "//hello/"), of("other", "hello"));
    }

    #[test]
    fn base64_of_rfc_4648() {
        for (text, octets) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYg==", "foob")] {
            assert_eq!(base64(text.as_bytes()), Some(octets.into()));
        }
        assert_eq!(base64(b"Zh=="), Some(b"f".into()), "Go looks at no bit that is left over");
        for bad in ["Zg=", "Z", "Zm9v!!!!", "====", "Zg==Zg==", "Zg"] {
            assert_eq!(base64(bad.as_bytes()), None, "{bad}");
        }
    }

    /// What is taken away is as any unknown path.
    #[test]
    fn lists_of_apis_take_routes_away() {
        let rule = |name: &str| ApiRule {
            name: name.into(),
            version: "v1".into(),
            protocol: "http".into(),
        };
        let without = |names: &[&str]| {
            let denied = names.iter().map(|name| rule(name)).collect();
            Apis::new(&ApiRules { allowed: Vec::new(), denied })
        };
        let metadata = without(&["metadata"]);
        let get = |path, public, apis: &Apis| route(&Method::GET, path, public, apis);
        assert_eq!(get("/v1.0/metadata", false, &metadata), Route::Invoke);
        assert_eq!(get("/v1.0/metadata", true, &metadata), Route::NotFound);
        assert_eq!(get("/v1.0/healthz", true, &without(&["healthz"])), Route::Healthz);
        let both = without(&["metadata", "invoke"]);
        assert_eq!(get("/v1.0/metadata", false, &both), Route::NotFound);
        assert_eq!(get("/v1.0/invoke/a/method/b", false, &both), Route::NotFound);
        assert_eq!(get("/v1.0/shutdown", false, &both), Route::MethodNotAllowed);
        let put = route(&Method::PUT, "/v1.0/metadata/a", false, &both);
        assert_eq!(put, Route::NotFound);
        let only = Apis::new(&ApiRules { allowed: vec![rule("shutdown")], denied: Vec::new() });
        assert_eq!(get("/v1.0/metadata", false, &only), Route::NotFound);
        assert_eq!(route(&Method::POST, "/v1.0/shutdown", false, &only), Route::Shutdown);
        assert_eq!(get("/v1.0/healthz", false, &only), Route::Healthz);
    }
}

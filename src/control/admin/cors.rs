//! `--allowed-origins`: what a browser is told. No I/O.
//!
//! Sources: the Fetch standard's CORS protocol; `useCors` in Dapr's `pkg/api/http/server.go`,
//! which allows six methods and every header, without credentials.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN,
    VARY,
};
use hyper::{Method, StatusCode};

const METHODS: [Method; 6] =
    [Method::HEAD, Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// `Some` answers a preflight; otherwise the fields go onto whatever the answer is.
pub fn preflight(method: &Method, headers: &HeaderMap, allowed: &str) -> Option<HeaderMap> {
    if allowed.is_empty() || *method != Method::OPTIONS {
        return None;
    }
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let mut fields = HeaderMap::new();
    fields.insert(
        VARY,
        HeaderValue::from_static(
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ),
    );
    let known = METHODS.iter().any(|method| method.as_str().as_bytes() == asked.as_bytes());
    if let (Some(origin), true) = (told(headers, allowed), known) {
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        fields.insert(ACCESS_CONTROL_ALLOW_METHODS, asked.clone());
        if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }
    Some(fields)
}

/// The status of an answered preflight.
pub const PREFLIGHT_STATUS: StatusCode = StatusCode::NO_CONTENT;

/// Adds the fields of an ordinary answer.
pub fn decorate(method: &Method, request: &HeaderMap, allowed: &str, response: &mut HeaderMap) {
    if allowed.is_empty() {
        return;
    }
    response.append(VARY, HeaderValue::from_static("Origin"));
    if let (Some(origin), true) = (told(request, allowed), METHODS.contains(method)) {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}

/// The value of Access-Control-Allow-Origin for this request.
fn told(headers: &HeaderMap, allowed: &str) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    if allowed.split(',').any(|one| one == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let text = origin.to_str().ok()?.to_ascii_lowercase();
    let matches = |one: &str| {
        let one = one.to_ascii_lowercase();
        match one.split_once('*') {
            None => one == text,
            Some((start, end)) => {
                text.len() >= start.len() + end.len()
                    && text.starts_with(start)
                    && text.ends_with(end)
            }
        }
    };
    allowed.split(',').any(matches).then(|| origin.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn off_by_default() {
        let headers = request(&[("origin", "http://a"), ("access-control-request-method", "GET")]);
        assert_eq!(preflight(&Method::OPTIONS, &headers, ""), None);
        let mut response = HeaderMap::new();
        decorate(&Method::GET, &headers, "", &mut response);
        assert!(response.is_empty());
    }

    #[test]
    fn answers_a_preflight() {
        let headers = request(&[
            ("origin", "http://a.example"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "dapr-api-token"),
        ]);
        let fields = preflight(&Method::OPTIONS, &headers, "http://b,http://*.example").unwrap();
        assert_eq!(fields[ACCESS_CONTROL_ALLOW_ORIGIN], "http://a.example");
        assert_eq!(fields[ACCESS_CONTROL_ALLOW_METHODS], "PUT");
        assert_eq!(fields[ACCESS_CONTROL_ALLOW_HEADERS], "dapr-api-token");
        let fields = preflight(&Method::OPTIONS, &headers, "http://b").unwrap();
        assert!(!fields.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(preflight(&Method::GET, &headers, "*"), None);
    }

    #[test]
    fn decorates_an_answer() {
        let mut response = HeaderMap::new();
        decorate(&Method::GET, &request(&[("origin", "http://a")]), "*", &mut response);
        assert_eq!(response[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let mut response = HeaderMap::new();
        decorate(&Method::GET, &request(&[("origin", "http://a")]), "http://A", &mut response);
        assert_eq!(response[ACCESS_CONTROL_ALLOW_ORIGIN], "http://a");
        let mut response = HeaderMap::new();
        decorate(&Method::GET, &request(&[("origin", "http://ab")]), "http://a", &mut response);
        assert!(!response.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}

//! The web page of a running sidecar: what it does now, for eyes.
//!
//! 1. Nothing is loaded from elsewhere: three files of ours, and `/live.json`, which the page asks
//!    once a second. Rates and percentiles are the browser's to work out.
//! 2. Nothing can be changed here. No answer holds a token, a key, or what a call carried.
//! 3. On loopback without a token, only requests for a loopback name are answered, so that a page
//!    from elsewhere cannot have a browser read this one under a name of its own (DNS rebinding).
//! 4. Served as the other HTTP ports are (`control::admin`), within the same bounds.

mod live;

use crate::config::page::Page;
use crate::control::state::State;
use crate::policy::token;
use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Full;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap,
    HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use std::net::IpAddr;

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PLAIN: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// One request.
pub async fn answer<B>(request: &Request<B>, page: &Page, state: &State) -> Answer {
    let headers = request.headers();
    if let Some(refusal) = refuse(headers, request.uri().host(), page) {
        return refusal;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "this page is for looking only\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/" => typed(StatusCode::OK, "text/html; charset=utf-8", HTML),
        "/page.css" => typed(StatusCode::OK, "text/css; charset=utf-8", CSS),
        "/page.js" => typed(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
        "/live.json" => {
            let live = live::render(state).await;
            typed(StatusCode::OK, "application/json", live)
        }
        _ => plain(StatusCode::NOT_FOUND, "there is nothing here; the page is at /\n"),
    }
}

fn refuse(headers: &HeaderMap, authority: Option<&str>, page: &Page) -> Option<Answer> {
    match &page.token {
        Some(expected) if given(headers).is_some_and(|given| token::matches(expected, &given)) => {
            None
        }
        Some(_) => {
            let told = "the token of RINGSIDE_PAGE_TOKEN is asked for: as a password, with any \
                        user name, or as a bearer token\n";
            let mut answer = plain(StatusCode::UNAUTHORIZED, told);
            let basic = HeaderValue::from_static("Basic realm=\"ringside\", charset=\"UTF-8\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, basic);
            Some(answer)
        }
        None => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok()).or(authority);
            let told = "this page is for localhost: ask for it under that name\n";
            (!host.is_some_and(is_loopback)).then(|| plain(StatusCode::FORBIDDEN, told))
        }
    }
}

/// RFC 7617's password, or RFC 6750's token.
fn given(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64.decode(rest.trim().as_bytes()).ok()?;
    let colon = decoded.iter().position(|octet| *octet == b':')?;
    decoded.get(colon + 1..).map(<[u8]>::to_vec)
}

/// A name of this machine alone, with or without a port.
fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let local = bare.eq_ignore_ascii_case("localhost");
    local || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    typed(status, PLAIN, text)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::state::tests::options;

    fn page(token: Option<&str>) -> Page {
        let address = IpAddr::from([127, 0, 0, 1]);
        Page { address, port: 1, token: token.map(str::to_owned) }
    }

    async fn status(page: &Page, method: &str, path: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let state = State::new(options());
        answer(&request.body(()).unwrap(), page, &state).await.status().as_u16()
    }

    #[tokio::test]
    async fn serves_its_files_and_nothing_else() {
        let page = page(None);
        let host = ("host", "localhost:9");
        for path in ["/", "/page.css", "/page.js", "/live.json", "/?x=1"] {
            assert_eq!(status(&page, "GET", path, &[host]).await, 200, "{path}");
        }
        assert_eq!(status(&page, "GET", "/../etc/passwd", &[host]).await, 404);
        assert_eq!(status(&page, "POST", "/", &[host]).await, 405);
    }

    /// What a browser would send for a page elsewhere whose name was made to lead here.
    #[tokio::test]
    async fn other_names_are_refused_without_a_token() {
        let page = page(None);
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1:80", "[::2]:80", ""] {
            assert_eq!(status(&page, "GET", "/live.json", &[("host", host)]).await, 403, "{host}");
        }
        assert_eq!(status(&page, "GET", "/live.json", &[]).await, 403);
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "127.1.2.3", "[::1]:80"] {
            assert_eq!(status(&page, "GET", "/live.json", &[("host", host)]).await, 200, "{host}");
        }
    }

    #[tokio::test]
    async fn a_token_is_asked_for_whoever_asks() {
        let page = page(Some("sesame"));
        let get = async |fields: &[(&str, &str)]| status(&page, "GET", "/live.json", fields).await;
        assert_eq!(get(&[("host", "localhost")]).await, 401);
        for wrong in ["Bearer Sesame", "Bearer", "Basic c2VzYW1l", "Basic !", "Digest sesame", ""] {
            assert_eq!(get(&[("authorization", wrong)]).await, 401, "{wrong}");
        }
        assert_eq!(get(&[("authorization", "Bearer sesame")]).await, 200);
        // `any:sesame`.
        let basic = ("authorization", "basic YW55OnNlc2FtZQ==");
        assert_eq!(get(&[("host", "its.name"), basic]).await, 200);
    }

    /// The page holds to the policy that it is served under.
    #[test]
    fn nothing_comes_from_elsewhere() {
        for text in [HTML, CSS, SCRIPT] {
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("//www.") && !elsewhere.contains("http"), "{text}");
            assert!(!text.contains("innerHTML") && !text.contains("style=\""));
        }
    }
}

//! From a request head to where it goes, or to why it goes nowhere.
//!
//! 1. The order of the checks is daprd's: shape of the request, list of APIs, API token, target.
//! 2. The internal port delivers to its own app and nobody else (docs/parity.md).

use super::Listener;
use super::failure::Failure;
use super::head::{RequestHead, is_grpc};
use super::local::Method;
use crate::config::{Config, Tracing};
use crate::grpc::{Code, MessageScanner};
use crate::identity::Target;
use crate::policy::apis::Apis;
use crate::policy::{method, token};

/// Where a call goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// Our own app.
    App,
    /// Another app's sidecar; the text as the caller gave it, known to be a target.
    Remote(&'a str),
    /// This sidecar itself.
    Here(Method),
}

pub fn judge<'a>(
    head: &RequestHead<'a>,
    listener: Listener,
    config: &'a Config,
    apis: &Apis,
) -> Result<Destination<'a>, Failure> {
    enter(head, listener, config, apis)?;
    if let Some(method) = Method::of(head, listener) {
        return method.map(Destination::Here);
    }
    check_invocation(head, listener)?;
    let text = match listener {
        Listener::Forward(index) => match config.forwards.get(index) {
            Some(forward) => forward.app_id.as_str(),
            None => return Err(no_target(head, config)),
        },
        Listener::Api | Listener::Internal => target_text(head, config)?,
    };
    let (id, _namespace) = Target::split(text).map_err(|error| Failure::target(&error))?;
    let own = id == config.app_id.as_str();
    match listener {
        Listener::Internal if !own => Err(Failure::not_here(text, &config.app_id)),
        Listener::Internal | Listener::Api | Listener::Forward(_) if own => Ok(Destination::App),
        Listener::Internal | Listener::Api | Listener::Forward(_) => Ok(Destination::Remote(text)),
    }
}

/// As far as daprd's interceptors let a request whose target nobody has looked at.
pub fn enter(
    head: &RequestHead<'_>,
    listener: Listener,
    config: &Config,
    apis: &Apis,
) -> Result<(), Failure> {
    check_protocol(head, listener)?;
    check_api(head, listener, apis)?;
    check_token(head, listener, config)
}

/// What each call must show by itself, though its path and target are known to be good.
pub fn admit(head: &RequestHead<'_>, listener: Listener, config: &Config) -> Result<(), Failure> {
    check_request(head, listener)?;
    check_token(head, listener, config)
}

/// Does a request get as far as daprd's proxy, behind whose interceptors the log of the API's calls
/// is kept? With tracing one of them refuses what names no app.
pub fn reaches_proxy(
    head: &RequestHead<'_>,
    listener: Listener,
    config: &Config,
    apis: &Apis,
) -> bool {
    let names_app = head.callee_app_id.or(head.app_id).is_some()
        || matches!(listener, Listener::Forward(_))
        || Failure::is_of_proxy(config.tracing != Tracing::Off, head.path);
    enter(head, listener, config, apis).is_ok() && names_app
}

/// grpc-go's `http2_server.go` and `server.go`; and, at every port and before any policy, that the
/// path is nothing that another reader takes for another path: what is judged is what is
/// dispatched.
fn check_protocol(head: &RequestHead<'_>, listener: Listener) -> Result<(), Failure> {
    check_request(head, listener)?;
    let shape = match listener {
        Listener::Forward(_) => method::check_absolute(head.path),
        Listener::Api | Listener::Internal => method::check_shape(head.path),
    };
    let refuse = |code| move |error| Failure::new(code, method::error_message(head.path, error));
    shape.map_err(refuse(Code::Unimplemented))?;
    method::check_characters(head.path)
        .and_then(|()| method::check_clean(head.path))
        .map_err(refuse(Code::InvalidArgument))
}

/// Is it a gRPC request? A forward port takes any request: it is there for
/// clients that know nothing of Dapr, and what its callee thinks of them is the callee's affair.
fn check_request(head: &RequestHead<'_>, listener: Listener) -> Result<(), Failure> {
    if matches!(listener, Listener::Forward(_)) {
        return Ok(());
    }
    let content_type = head.content_type.unwrap_or_default();
    if !is_grpc(content_type) {
        let quoted = method::quote(content_type);
        let message = format!("invalid gRPC request content-type {quoted}");
        return Err(Failure::not_grpc(415, Code::InvalidArgument, message));
    }
    if head.method != b"POST" {
        let quoted = method::quote(head.method);
        let message =
            format!("Received a HEADERS frame with :method {quoted} which should be POST");
        return Err(Failure::not_grpc(405, Code::Internal, message));
    }
    Ok(())
}

/// What counts the request's messages: what is no gRPC has none. Whoever answers in gRPC is counted
/// even so.
pub fn scanner(head: &RequestHead<'_>, listener: Listener) -> MessageScanner {
    match listener {
        Listener::Forward(_) if !head.content_type.is_some_and(is_grpc) => {
            MessageScanner::of_none()
        }
        Listener::Api | Listener::Internal | Listener::Forward(_) => MessageScanner::default(),
    }
}

fn check_token(head: &RequestHead<'_>, listener: Listener, config: &Config) -> Result<(), Failure> {
    let (Some(expected), Listener::Api | Listener::Forward(_)) = (&config.api_token, listener)
    else {
        return Ok(());
    };
    match head.api_token {
        None => Err(Failure::unauthenticated("missing api token in request metadata")),
        Some(given) if token::matches(expected, given) => Ok(()),
        Some(_) => Err(Failure::unauthenticated("authentication error: api token mismatch")),
    }
}

/// Is this one of Dapr's own methods that the Configuration takes away?
fn check_api(head: &RequestHead<'_>, listener: Listener, apis: &Apis) -> Result<(), Failure> {
    match listener {
        Listener::Api | Listener::Forward(_) if !apis.serves_method(head.path) => {
            Err(Failure::not_available())
        }
        Listener::Api | Listener::Forward(_) | Listener::Internal => Ok(()),
    }
}

/// Calls between sidecars that daprd has for its HTTP API: never proxied.
fn check_invocation(head: &RequestHead<'_>, listener: Listener) -> Result<(), Failure> {
    const INVOCATION: &[u8] = b"/dapr.proto.internals.v1.ServiceInvocation/";
    // With a target the method may be one that daprd does not know either: then it is proxied.
    let targeted = head.app_id.is_some() || head.callee_app_id.is_some();
    if listener == Listener::Internal && head.path.starts_with(INVOCATION) && !targeted {
        let path = String::from_utf8_lossy(head.path);
        let message = format!("{path} is not served by ringside; it proxies gRPC calls to apps");
        return Err(Failure::new(Code::Unimplemented, message));
    }
    Ok(())
}

fn no_target(head: &RequestHead<'_>, config: &Config) -> Failure {
    Failure::no_target(config.tracing != Tracing::Off, head.path)
}

fn target_text<'a>(head: &RequestHead<'a>, config: &Config) -> Result<&'a str, Failure> {
    let value = head.callee_app_id.or(head.app_id);
    let value = value.ok_or_else(|| no_target(head, config))?;
    std::str::from_utf8(value).map_err(|_| {
        let lossy = String::from_utf8_lossy(value);
        Failure::new(Code::Unknown, format!("invalid app id {lossy}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::config;

    fn head(app_id: Option<&'static str>) -> RequestHead<'static> {
        RequestHead {
            method: b"POST",
            path: b"/a.B/C",
            content_type: Some(b"application/grpc"),
            app_id: app_id.map(str::as_bytes),
            ..RequestHead::default()
        }
    }

    #[test]
    fn routes_by_id() {
        let config = config();
        let judge = |head, listener| judge(&head, listener, &config, &Apis::default());
        assert_eq!(judge(head(Some("server")), Listener::Api), Ok(Destination::Remote("server")));
        assert_eq!(judge(head(Some("client")), Listener::Api), Ok(Destination::App));
        assert_eq!(judge(head(Some("client.zzz")), Listener::Api), Ok(Destination::App));
        assert_eq!(judge(head(Some("client")), Listener::Internal), Ok(Destination::App));
        let refused = judge(head(Some("server")), Listener::Internal).unwrap_err();
        assert_eq!(refused.code, Code::Unavailable);
        assert!(refused.message.contains("client") && refused.message.contains("server"));
    }

    /// Texts of spec 14.
    #[test]
    fn refuses_as_daprd() {
        let config = config();
        let fail = |head| judge(&head, Listener::Api, &config, &Apis::default()).unwrap_err();
        assert_eq!(fail(head(Some("a.b.c"))).message, "invalid app id a.b.c");
        assert_eq!(fail(head(Some(""))).message, "app id is empty");
        assert_eq!(
            fail(head(None)).message,
            "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata"
        );
        let json = RequestHead { content_type: Some(b"application/json"), ..head(Some("x")) };
        let failure = fail(json);
        assert_eq!((failure.http_status, failure.code), (415, Code::InvalidArgument));
        assert_eq!(failure.message, "invalid gRPC request content-type \"application/json\"");
        let short = RequestHead { path: b"/xyz", ..head(Some("x")) };
        assert_eq!(fail(short).code, Code::Unimplemented);
    }

    #[test]
    fn callee_header_wins() {
        let config = config();
        let both = RequestHead { callee_app_id: Some(b"other"), ..head(Some("server")) };
        assert_eq!(
            judge(&both, Listener::Api, &config, &Apis::default()),
            Ok(Destination::Remote("other"))
        );
    }

    #[test]
    fn token_guards_the_api_ports_only() {
        let config = Config { api_token: Some("s3cret".into()), ..config() };
        let with = |token: Option<&'static str>| RequestHead {
            api_token: token.map(str::as_bytes),
            ..head(Some("client"))
        };
        assert!(judge(&with(Some("s3cret")), Listener::Api, &config, &Apis::default()).is_ok());
        assert!(judge(&with(None), Listener::Internal, &config, &Apis::default()).is_ok());
        let missing = judge(&with(None), Listener::Api, &config, &Apis::default()).unwrap_err();
        let wrong = judge(&with(Some("x")), Listener::Api, &config, &Apis::default()).unwrap_err();
        assert_eq!((missing.code, wrong.code), (Code::Unauthenticated, Code::Unauthenticated));
        assert_ne!(missing.details, wrong.details);
    }

    /// grpc-go's answer to what is not POST (`http2_server.go`).
    #[test]
    fn only_post_is_a_call() {
        let config = config();
        let get = RequestHead { method: b"GET", ..head(Some("server")) };
        for listener in [Listener::Api, Listener::Internal] {
            let failure = judge(&get, listener, &config, &Apis::default()).unwrap_err();
            assert_eq!((failure.http_status, failure.code), (405, Code::Internal));
            let text = "Received a HEADERS frame with :method \"GET\" which should be POST";
            assert_eq!(failure.message, text);
        }
    }

    /// Each on the port where daprd serves it; elsewhere such a method is anybody's.
    #[test]
    fn daprs_own_methods_end_here() {
        let config = config();
        let head = |path: &'static [u8], app_id| RequestHead { path, ..head(app_id) };
        let judge = |head, listener| judge(&head, listener, &config, &Apis::default());
        let here = |method| Ok(Destination::Here(method));
        for (path, method) in [
            (&b"/dapr.proto.runtime.v1.Dapr/GetMetadata"[..], Method::GetMetadata),
            (b"/dapr.proto.runtime.v1.Dapr/SetMetadata", Method::SetMetadata),
            (b"/dapr.proto.runtime.v1.Dapr/Shutdown", Method::Shutdown),
        ] {
            // Whatever metadata they carry, as in daprd.
            for app_id in [None, Some("server")] {
                assert_eq!(judge(head(path, app_id), Listener::Api), here(method));
            }
            let code = judge(head(path, None), Listener::Internal).unwrap_err().code;
            assert_eq!(code, Code::Unknown);
        }
        let there = Ok(Destination::Remote("server"));
        for path in [
            &b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"[..],
            b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(judge(head(path, None), Listener::Api), here(Method::Reflection));
            // An app's own reflection is worth more than ours.
            assert_eq!(judge(head(path, Some("server")), Listener::Api), there);
        }
        let secret = Config { api_token: Some("s3cret".into()), ..config.clone() };
        let unknown = head(b"/dapr.proto.runtime.v1.Dapr/GetMetadata", None);
        let failure = super::judge(&unknown, Listener::Api, &secret, &Apis::default()).unwrap_err();
        assert_eq!(failure.code, Code::Unauthenticated);
    }

    /// What Dapr has and ringside does not is said in a sentence.
    #[test]
    fn other_methods_of_daprs_are_not_served() {
        let config = config();
        let judge = |path, app_id, listener| {
            judge(&RequestHead { path, ..head(app_id) }, listener, &config, &Apis::default())
        };
        let invoke = b"/dapr.proto.runtime.v1.Dapr/InvokeService";
        let local = b"/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream";
        for app_id in [None, Some("server")] {
            let failure = judge(invoke, app_id, Listener::Api).unwrap_err();
            assert_eq!(failure.code, Code::Unimplemented);
            assert!(failure.message.contains("a Dapr sidecar for gRPC service invocation"));
        }
        let failure = judge(local, None, Listener::Internal).unwrap_err();
        assert_eq!(failure.code, Code::Unimplemented);
        let there = Ok(Destination::Remote("server"));
        assert_eq!(judge(local, Some("server"), Listener::Api), there);
    }
}

//! The log of the HTTP API's calls.
//!
//! Source: `useAPILogging` in Dapr's `pkg/api/http/server.go`: behind CORS and the token, so that
//! what they answer is not told.

use super::route::{self, Route};
use crate::config::spec::ApiLogging;
use crate::policy::apis::Apis;
use hyper::header::USER_AGENT;
use hyper::{Request, StatusCode};
use tokio::time::Instant;

const SCOPE: &str = "dapr.runtime.http-info";

/// A request that will be told of.
#[derive(Debug)]
pub struct Called {
    method: String,
    user_agent: Option<String>,
    begun: Instant,
}

impl Called {
    /// `None`: it is not to be told.
    pub fn begin<T>(request: &Request<T>, logging: ApiLogging, apis: &Apis) -> Option<Self> {
        if !logging.enabled {
            return None;
        }
        let (verb, path) = (request.method(), request.uri().path());
        let route = route::route(verb, path, false, apis);
        if route.is_health_check() && logging.omit_health_checks {
            return None;
        }
        let method = match logging.obfuscate_urls {
            true => name(&route, request),
            false => format!("{verb} {}", route::unescape(path, false).unwrap_or_default()),
        };
        let user_agent = request.headers().get(USER_AGENT).filter(|value| !value.is_empty());
        let user_agent = user_agent.map(|value| String::from_utf8_lossy(value.as_bytes()).into());
        Some(Self { method, user_agent, begun: Instant::now() })
    }

    pub fn end(self, status: StatusCode, size: u64) {
        let Self { method, user_agent, begun } = self;
        let duration = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (method, useragent, code) = (&*method, user_agent.as_deref(), status.as_u16());
        tracing::info!(scope = SCOPE, method, code, duration, size, useragent, "HTTP API Called");
    }
}

/// As Dapr names the endpoint, whoever asks for what.
fn name<T>(route: &Route, request: &Request<T>) -> String {
    match route {
        Route::Healthz => "Healthz".to_owned(),
        Route::HealthzOutbound => "HealthzOutbound".to_owned(),
        Route::Metadata => "GetMetadata".to_owned(),
        Route::PutMetadata(_) => "PutMetadata".to_owned(),
        Route::Shutdown => "Shutdown".to_owned(),
        Route::Invoke => match route::invoked(request.headers(), request.uri().path()) {
            Some(invocation) => format!("InvokeService/{}", invocation.app_id),
            None => "InvokeService".to_owned(),
        },
        Route::NotFound | Route::MethodNotAllowed => String::new(),
    }
}

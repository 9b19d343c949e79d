//! Zipkin's JSON, version 2, as OpenTelemetry's exporter for Go writes it.

use super::http::{Client, Request};
use super::{Finished, Refused, SCOPE, hex, since_epoch};
use crate::config::traces::{TlsFiles, Url};
use crate::observe::span::SpanKind;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

pub(super) struct Zipkin {
    client: Client,
    resource: Rc<[(String, String)]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Model<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    name: &'a str,
    kind: &'static str,
    /// Microseconds.
    timestamp: u128,
    duration: u128,
    local_endpoint: Endpoint<'a>,
    tags: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    service_name: &'a str,
}

impl Zipkin {
    pub(super) fn new(url: Url, resource: Rc<[(String, String)]>) -> Result<Self, String> {
        Ok(Self { client: Client::new(url, &TlsFiles::default())?, resource })
    }

    /// daprd takes 202 alone for a success; a proxy before Zipkin may answer 200.
    pub(super) async fn export(&mut self, batch: &[Rc<Finished>]) -> Result<Refused, String> {
        let models: Vec<Model<'_>> = batch.iter().map(|span| self.model(span)).collect();
        let body = serde_json::to_vec(&models).map_err(|error| error.to_string())?;
        let (content_type, body) = ("application/json", body.into());
        let request = Request { content_type, headers: &[], gzip: false, body };
        let answer = self.client.post(request).await?;
        match answer.status {
            200..=299 => Ok(Refused::default()),
            status => Err(format!("failed to send spans to zipkin server with status {status}")),
        }
    }

    fn model<'a>(&'a self, Finished { span, begun, ended }: &'a Finished) -> Model<'a> {
        let resource = self.resource.iter();
        let service = resource.clone().find(|(name, _)| name == "service.name");
        let mut tags: BTreeMap<&str, &str> = span
            .attributes
            .iter()
            .chain(resource)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| *name != "error")
            .collect();
        if let Some(error) = &span.error {
            tags.insert("otel.status_code", "ERROR");
            tags.insert("error", error);
        }
        tags.insert("otel.scope.name", SCOPE);
        let (begun, ended) = (since_epoch(*begun), since_epoch(*ended));
        Model {
            trace_id: hex(&span.context.trace_id),
            id: hex(&span.context.span_id),
            parent_id: span.parent.map(|parent| hex(&parent)),
            name: &span.name,
            kind: match span.kind {
                SpanKind::Client => "CLIENT",
                SpanKind::Server => "SERVER",
            },
            timestamp: begun.as_micros(),
            // Zipkin takes 0 for unknown.
            duration: ended.saturating_sub(begun).as_micros().max(1),
            local_endpoint: Endpoint {
                service_name: service.map_or("", |(_, name)| name.as_str()),
            },
            tags,
        }
    }
}

impl fmt::Display for Zipkin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zipkin at {}", self.client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::spans::tests::finished;
    use serde_json::json;

    #[test]
    fn is_zipkins_model() {
        let resource = [("service.name", "client"), ("team", "a")];
        let resource: Vec<_> =
            resource.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let url = Url::parse("http://localhost:9411/api/v2/spans").unwrap();
        let zipkin = Zipkin::new(url, resource.into()).unwrap();
        assert_eq!(zipkin.to_string(), "Zipkin at http://localhost:9411/api/v2/spans");
        let mut span = finished();
        let expected = json!({
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
            "id": "00f067aa0ba902b7",
            "parentId": "1111111111111111",
            "name": "/a.B/C",
            "kind": "CLIENT",
            "timestamp": 1_700_000_000_123_456_u64,
            "duration": 2_000_u64,
            "localEndpoint": {"serviceName": "client"},
            "tags": {
                "dapr-app-id": "server",
                "service.name": "client",
                "team": "a",
                "otel.status_code": "ERROR",
                "error": "not now",
                "otel.scope.name": "dapr-diagnostics",
            },
        });
        assert_eq!(serde_json::to_value(zipkin.model(&span)).unwrap(), expected);
        (span.span.parent, span.span.error, span.span.kind) = (None, None, SpanKind::Server);
        let model = serde_json::to_value(zipkin.model(&span)).unwrap();
        assert_eq!((&model["parentId"], &model["kind"]), (&json!(null), &json!("SERVER")));
        let tags = model["tags"].as_object().unwrap();
        assert!(!tags.contains_key("error") && !tags.contains_key("otel.status_code"));
    }
}

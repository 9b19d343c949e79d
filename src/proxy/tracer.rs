//! Trace contexts on their way through: whose child a call is, and what its callee is told.
//!
//! 1. Where spans are made, each hop is one: its callee is told its own context and no other, as
//!    `traceparent` and as `grpc-trace-bin`; attempts of one call are told the same.
//! 2. A call that is not sampled costs two fields and allocates nothing.
//!
//! Source: Dapr's `pkg/diagnostics/grpc_tracing.go`, whose callee side tells its app nothing
//! (docs/parity.md).

use super::contract::Listener;
use super::head::class;
use crate::config::Tracing;
use crate::http2::FieldSection;
use crate::observe::trace::{Context, Ids, Sampler};

#[derive(Debug)]
pub(super) struct Tracer {
    /// `None`: contexts pass.
    sampler: Option<Sampler>,
    ids: Ids,
}

impl Tracer {
    pub(super) fn new(tracing: Tracing) -> Self {
        let sampler = match tracing {
            Tracing::Off | Tracing::Passed => None,
            Tracing::Sampled { rate } => Some(Sampler::new(rate)),
        };
        Self { sampler, ids: Ids::new([0; 2]) }
    }

    pub(super) fn seed(&mut self, seed: [u64; 2]) {
        self.ids = Ids::new(seed);
    }

    /// The span that a call is here; `None`: it is none.
    #[inline]
    pub(super) fn begin(&mut self, fields: &FieldSection, listener: Listener) -> Option<Context> {
        let sampler = self.sampler?;
        let parent = parent(fields, listener);
        Some(self.ids.span(parent.as_ref(), sampler))
    }
}

/// Whose child it is. Of an app's own fields the first counts, and the binary one before the text,
/// as in daprd. Other sidecars add theirs behind those that came, so that the last one counts.
fn parent(fields: &FieldSection, listener: Listener) -> Option<Context> {
    let mut values = fields.classed();
    match listener {
        Listener::Api | Listener::Forward(_) => {
            let mut text = None;
            for (class, value) in values {
                match class {
                    class::TRACE_BIN => return Context::from_binary(value),
                    class::TRACEPARENT => text = text.or(Some(value)),
                    _ => {}
                }
            }
            Context::from_text(text?)
        }
        Listener::Internal => {
            let text = values.by_ref().filter(|(class, _)| *class == class::TRACEPARENT);
            let text = text.filter_map(|(_, value)| Context::from_text(value)).last();
            text.or_else(|| {
                let binary = fields.classed().filter(|(class, _)| *class == class::TRACE_BIN);
                binary.filter_map(|(_, value)| Context::from_binary(value)).last()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::section;

    const CALLERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const SIDECARS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01";
    const VOID: &str = "00-00000000000000000000000000000000-0000000000000000-00";

    fn binary(text: &str) -> String {
        let context = Context::from_text(text.as_bytes()).unwrap();
        String::from_utf8(context.binary().to_vec()).unwrap()
    }

    fn parent_of(fields: &[(&str, &str)], listener: Listener) -> Option<String> {
        let parent = parent(&section(fields), listener)?;
        Some(String::from_utf8(parent.text().to_vec()).unwrap())
    }

    #[test]
    fn an_apps_first_binary_context_counts() {
        let (callers, sidecars) = (binary(CALLERS), binary(SIDECARS));
        for (fields, expected) in [
            (&[][..], None),
            (&[("traceparent", CALLERS), ("traceparent", SIDECARS)], Some(CALLERS)),
            (&[("traceparent", "nonsense"), ("traceparent", SIDECARS)], None),
            (&[("traceparent", CALLERS), ("grpc-trace-bin", &sidecars)], Some(SIDECARS)),
            (&[("grpc-trace-bin", &callers), ("grpc-trace-bin", &sidecars)], Some(CALLERS)),
            // daprd does not fall back either.
            (&[("grpc-trace-bin", "AAAA"), ("traceparent", CALLERS)], None),
        ] {
            for listener in [Listener::Api, Listener::Forward(0)] {
                assert_eq!(parent_of(fields, listener).as_deref(), expected, "{fields:?}");
            }
        }
    }

    #[test]
    fn a_sidecars_last_context_counts() {
        let (callers, sidecars) = (binary(CALLERS), binary(SIDECARS));
        for (fields, expected) in [
            (&[][..], None),
            (&[("traceparent", CALLERS), ("traceparent", SIDECARS)], Some(SIDECARS)),
            (&[("traceparent", CALLERS), ("traceparent", VOID)], Some(CALLERS)),
            (&[("grpc-trace-bin", &callers), ("traceparent", SIDECARS)], Some(SIDECARS)),
            (&[("grpc-trace-bin", &callers), ("grpc-trace-bin", &sidecars)], Some(SIDECARS)),
            (&[("traceparent", VOID), ("grpc-trace-bin", &callers)], Some(CALLERS)),
        ] {
            let found = parent_of(fields, Listener::Internal);
            assert_eq!(found.as_deref(), expected, "{fields:?}");
        }
    }
}

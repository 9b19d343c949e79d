//! Fields stripped and added at each hop (spec 03 §3.5).
//!
//! 1. What is not named here passes untouched: order, repetition, `-bin` values, case.
//! 2. `strip` happens when a call arrives, `stamp` when its upstream stream opens: authority and
//!    remaining time are not known before.

use super::head::class;
use crate::config::Config;
use crate::grpc::timeout;
use crate::http2::{Field, FieldSection};
use crate::identity::Target;
use data_encoding::BASE64_NOPAD;
use std::time::Duration;

/// What daprd's codec name makes of every content type on its way to a callee.
pub const CONTENT_TYPE: &[u8] = b"application/grpc+proto";

/// Hop 1: from our app to another sidecar.
pub fn strip_outbound(fields: &mut FieldSection, config: &Config, target: &Target, forced: bool) {
    let drop_token = config.api_token.is_some();
    fields.retain(|field| match field.class {
        class::APP_ID => false,
        // On a forward port the port decides, whatever the client says.
        class::CALLEE_APP_ID => !forced,
        class::API_TOKEN => !drop_token,
        _ => keep_always(field),
    });
    fields.push(b"dapr-caller-app-id", config.app_id.as_str().as_bytes());
    fields.push(b"dapr-callee-app-id", target.app_id.as_str().as_bytes());
}

/// Hop 2, and calls to one's own app ID: to the app.
pub fn strip_inbound(fields: &mut FieldSection, config: &Config) {
    let mut last_traceparent = None;
    let mut last_trace_bin = None;
    for (index, field) in fields.iter().enumerate() {
        match field.class {
            class::TRACEPARENT if !is_void_traceparent(field.value) => {
                last_traceparent = Some(index);
            }
            class::TRACE_BIN if !is_void_trace_bin(field.value) => last_trace_bin = Some(index),
            _ => {}
        }
    }
    let mut index = 0;
    fields.retain(|field| {
        let at = Some(index);
        index += 1;
        match field.class {
            class::APP_ID | class::API_TOKEN => false,
            class::TRACEPARENT => at == last_traceparent,
            class::TRACE_BIN => at == last_trace_bin,
            _ => keep_always(field),
        }
    });
    if let Some(token) = &config.app_token {
        fields.push(b"dapr-api-token", token.as_bytes());
    }
}

/// Reserved by gRPC in requests, or made anew by [`stamp`].
fn keep_always(field: Field<'_>) -> bool {
    !matches!(
        field.class,
        class::HOST
            | class::TE
            | class::TIMEOUT
            | class::CONTENT_TYPE
            | class::GRPC_STATUS
            | class::GRPC_MESSAGE
            | class::GRPC_MESSAGE_TYPE
    )
}

/// The last touch before HEADERS leave: where to, and how long.
pub fn stamp(fields: &mut FieldSection, authority: &[u8], remaining: Option<Duration>) {
    if !fields.replace(b":authority", authority) {
        // A request without `:authority` had a Host field or nothing: the callee wants one, and a
        // pseudo-header field may not come after the others.
        fields.push_front(b":authority", authority);
    }
    fields.push(b"content-type", CONTENT_TYPE);
    fields.push(b"te", b"trailers");
    if let Some(remaining) = remaining {
        let (text, len) = timeout::encode(remaining);
        let (name, class) = (b"grpc-timeout", class::TIMEOUT);
        fields.push_field(Field { name, value: &text[..len], class, flags: 0, sensitive: false });
    }
}

/// A response head on its way back: the caller's own content type.
pub fn response(fields: &mut FieldSection, content_type: &[u8]) {
    if !fields.replace(b"content-type", content_type) {
        fields.push(b"content-type", content_type);
    }
}

/// daprd without a trace of its own sends zeros (spec 14); they are no context.
fn is_void_traceparent(value: &[u8]) -> bool {
    let mut parts = value.split(|b| *b == b'-').skip(1);
    let zeros = |part: Option<&[u8]>| part.is_none_or(|p| p.iter().all(|b| *b == b'0'));
    zeros(parts.next()) || zeros(parts.next())
}

/// `grpc-trace-bin` in base64, padded or not (spec 10 §10.3: version, field 0 with 16 octets of
/// trace ID, field 1 with 8 of span ID, field 2 with flags). What is no such thing is no context.
fn is_void_trace_bin(value: &[u8]) -> bool {
    const OCTETS: usize = 29;
    let text = value.strip_suffix(b"=").unwrap_or(value);
    let mut raw = [0u8; OCTETS];
    if BASE64_NOPAD.decode_len(text.len()) != Ok(OCTETS) {
        return true;
    }
    let decoded = BASE64_NOPAD.decode_mut(text, &mut raw).is_ok();
    let zeros = |range: std::ops::Range<usize>| raw[range].iter().all(|b| *b == 0);
    !decoded || zeros(2..18) || zeros(19..27)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::{config, section};

    fn text(section: &FieldSection) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        section.iter().map(|f| (text(f.name), text(f.value))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn outbound_replaces_target_and_keeps_the_rest() {
        let config = config();
        let target = Target::parse("server.prod", &config.namespace).unwrap();
        let mut fields = section(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", "localhost:50007"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", "2S"),
            ("dapr-app-id", "server.prod"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("blob-bin", "AAEC"),
            ("user-agent", "me/1"),
        ]);
        strip_outbound(&mut fields, &config, &target, false);
        stamp(&mut fields, b"10.0.0.9:50002", Some(Duration::from_millis(5)));
        let expected = pairs(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", "10.0.0.9:50002"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("blob-bin", "AAEC"),
            ("user-agent", "me/1"),
            ("dapr-caller-app-id", "client"),
            ("dapr-callee-app-id", "server"),
            ("content-type", "application/grpc+proto"),
            ("te", "trailers"),
            ("grpc-timeout", "5000000n"),
        ]);
        assert_eq!(text(&fields), expected);
    }

    #[test]
    fn inbound_replaces_tokens_and_leaves_one_trace() {
        let mut config = config();
        config.app_token = Some("apps".into());
        let real = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let void = "00-00000000000000000000000000000000-0000000000000000-00";
        let mut fields = section(&[
            ("dapr-app-id", "server"),
            ("dapr-api-token", "callers"),
            ("traceparent", real),
            ("traceparent", void),
            ("grpc-trace-bin", "AAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAACAA"),
            ("dapr-caller-app-id", "client"),
        ]);
        strip_inbound(&mut fields, &config);
        let names: Vec<_> = text(&fields);
        assert!(names.contains(&("traceparent".into(), real.into())));
        assert!(!names.contains(&("traceparent".into(), void.into())));
        assert!(names.contains(&("dapr-api-token".into(), "apps".into())));
        assert!(!names.contains(&("dapr-api-token".into(), "callers".into())));
        assert!(!names.iter().any(|(name, _)| name == "dapr-app-id"));
        assert!(names.iter().any(|(name, _)| name == "dapr-caller-app-id"));
    }

    /// 29 octets: 00 00 <16 zeros> 01 <8 zeros> 02 00 (spec 10 §10.3).
    #[test]
    fn knows_a_void_binary_context() {
        let mut raw = [0u8; 29];
        raw[18] = 1;
        raw[27] = 2;
        let text = BASE64_NOPAD.encode(&raw);
        assert!(is_void_trace_bin(text.as_bytes()), "{text}");
        raw[5] = 7;
        raw[20] = 7;
        let text = BASE64_NOPAD.encode(&raw);
        assert!(!is_void_trace_bin(text.as_bytes()), "{text}");
    }

    /// Whatever the two ends agree on, known to us or not.
    #[test]
    fn compression_and_baggage_pass_both_hops() {
        let config = config();
        let target = Target::parse("server", &config.namespace).unwrap();
        let kept = [
            ("grpc-encoding", "zstd"),
            ("grpc-accept-encoding", "zstd,gzip"),
            ("baggage", "not = w3c = at all"),
            ("grpc-previous-rpc-attempts", "1"),
        ];
        let mut fields = section(&kept);
        strip_outbound(&mut fields, &config, &target, false);
        strip_inbound(&mut fields, &config);
        assert_eq!(text(&fields)[..kept.len()], pairs(&kept));
    }

    /// Without a token of its own the sidecar does not know that the field is one.
    #[test]
    fn only_the_token_that_is_required_is_dropped() {
        let target = Target::parse("server", &config().namespace).unwrap();
        for (required, left) in [(None, 1), (Some("s3cret".into()), 0)] {
            let config = Config { api_token: required, ..config() };
            let mut fields = section(&[("dapr-api-token", "s3cret")]);
            strip_outbound(&mut fields, &config, &target, false);
            let tokens = fields.iter().filter(|field| field.name == b"dapr-api-token").count();
            assert_eq!(tokens, left);
        }
    }
}

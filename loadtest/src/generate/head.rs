//! The request's head, made once and copied per call (gRPC over HTTP/2, "Requests"), with what is
//! to differ in every call.
//!
//! Refuses to know connections.

use super::RunError;
use crate::plan::Plan;
use data_encoding::BASE64_NOPAD;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Uri, Version};
use std::cell::Cell;
use std::time::Duration;

pub(super) struct Head {
    uri: Uri,
    fields: HeaderMap,
    unique: Vec<HeaderName>,
    /// Values given out.
    given: Cell<u64>,
}

impl Head {
    pub(super) fn new(plan: &Plan) -> Result<Self, RunError> {
        if !plan.path.starts_with('/') {
            return Err(RunError::Plan(format!("the path {:?} has no / in front", plan.path)));
        }
        let uri = Uri::builder().scheme("http").authority(plan.authority.as_str());
        let uri = uri.path_and_query(plan.path.as_str()).build().map_err(|error| {
            let (authority, path) = (&plan.authority, &plan.path);
            RunError::Plan(format!("{authority:?} and {path:?} make no URI: {error}"))
        })?;
        let mut fields = HeaderMap::with_capacity(plan.metadata.len() + 4);
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(USER_AGENT, HeaderValue::from_static("grpc-loadtest/0.1.0"));
        if let Some(timeout) = plan.timeout {
            fields.insert(HeaderName::from_static("grpc-timeout"), timeout_value(timeout));
        }
        for (key, value) in &plan.metadata {
            let (name, value) = field(key, value)?;
            fields.append(name, value);
        }
        let unique = plan.unique.iter().map(|key| Ok(field(key, &[])?.0));
        let unique = unique.collect::<Result<_, RunError>>()?;
        Ok(Self { uri, fields, unique, given: Cell::new(0) })
    }

    pub(super) fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.fields.clone();
        for name in &self.unique {
            request.headers_mut().append(name.clone(), self.unique_value());
        }
        request
    }

    /// 32 hexadecimal digits, as trace and request IDs are; never the same ones.
    fn unique_value(&self) -> HeaderValue {
        let number = self.given.get();
        self.given.set(number.wrapping_add(1));
        // An odd factor: no two numbers have the same product.
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        HeaderValue::try_from(format!("{:016x}{scattered:016x}", scattered.rotate_left(32)))
            .expect("digits and letters")
    }
}

fn field(key: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), RunError> {
    let refused = |what: &str| RunError::Plan(format!("the metadata {key:?} {what}"));
    let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| refused("is no field name"))?;
    let value = if name.as_str().ends_with("-bin") {
        HeaderValue::try_from(BASE64_NOPAD.encode(value))
    } else {
        HeaderValue::from_bytes(value)
    };
    Ok((name, value.map_err(|_| refused("has octets that a field's value cannot have"))?))
}

/// At most eight digits and a unit ("Timeout").
fn timeout_value(timeout: Duration) -> HeaderValue {
    const DIGITS: u128 = 100_000_000;
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (u128::from(timeout.as_secs()), 'S'),
        (u128::from(timeout.as_secs() / 60), 'M'),
    ];
    let fitting = units.iter().find(|(value, _)| *value < DIGITS);
    let (value, unit) = fitting.copied().unwrap_or((DIGITS - 1, 'H'));
    HeaderValue::try_from(format!("{value}{unit}")).expect("digits and a letter")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::slot::tests::plan;
    use std::collections::BTreeSet;

    #[test]
    fn timeouts_have_at_most_eight_digits() {
        let of = |timeout| timeout_value(timeout).to_str().expect("ASCII").to_owned();
        assert_eq!(of(Duration::from_millis(50)), "50000000n");
        assert_eq!(of(Duration::from_millis(100)), "100000u");
        assert_eq!(of(Duration::from_secs(100)), "100000m");
        assert_eq!(of(Duration::from_secs(100_000_000)), "1666666M");
        assert_eq!(of(Duration::MAX), "99999999H");
    }

    #[test]
    fn binary_metadata_is_base64_without_padding() {
        let (name, value) = field("Trace-Bin", &[0xff, 0xfe, 0xfd, 0x01]).expect("allowed");
        assert_eq!((name.as_str(), value.as_bytes()), ("trace-bin", &b"//79AQ"[..]));
    }

    #[test]
    fn unique_values_differ_within_a_call_and_between_calls() {
        let unique = ["x-a", "x-b"].map(str::to_owned).to_vec();
        let head = Head::new(&Plan { unique, ..plan() }).expect("a good plan");
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            let request = head.request();
            for name in ["x-a", "x-b"] {
                let value = request.headers()[name].to_str().expect("ASCII").to_owned();
                assert_eq!(value.len(), 32);
                assert!(seen.insert(value), "a value comes twice");
            }
        }
        let refused = Plan { unique: vec!["a b".to_owned()], ..plan() };
        assert!(Head::new(&refused).is_err());
    }

    #[test]
    fn what_no_field_can_be_is_refused_by_name() {
        let text = field("a b", b"c").expect_err("a space").to_string();
        assert_eq!(text, "the metadata \"a b\" is no field name");
        let text = field("a", b"c\r\nd").expect_err("a line break").to_string();
        assert_eq!(text, "the metadata \"a\" has octets that a field's value cannot have");
    }
}

//! The call that the benchmarks make: the request head of grpc-go's greeter.

use ringside::http2::FieldSection;

/// Ends with the one field that not every client sends.
pub const REQUEST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/helloworld.Greeter/SayHello"),
    (":authority", "127.0.0.1:50007"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.70.0"),
    ("te", "trailers"),
    ("dapr-app-id", "server"),
    ("grpc-accept-encoding", "identity,deflate,gzip"),
];

pub fn section(fields: &[(&str, &str)]) -> FieldSection {
    let mut section = FieldSection::new();
    for (name, value) in fields {
        section.push(name.as_bytes(), value.as_bytes());
    }
    section
}

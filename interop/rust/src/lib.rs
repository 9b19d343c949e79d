//! The interop test service, and what its client and server share.

tonic::include_proto!("grpc.testing");

pub const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";
pub const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";

impl Payload {
    /// `size` zero octets.
    pub fn zeros(size: usize) -> Self {
        Self { r#type: PayloadType::Compressable.into(), body: vec![0; size] }
    }
}

/// The value of `--name=value` on the command line.
pub fn argument(name: &str) -> String {
    let flag = format!("--{name}=");
    std::env::args()
        .find_map(|given| Some(given.strip_prefix(&flag)?.to_owned()))
        .unwrap_or_default()
}

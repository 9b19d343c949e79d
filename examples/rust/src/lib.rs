//! What `build.rs` makes of greeter.proto.

tonic::include_proto!("helloworld");

//! The generated code of `proto/envoy/ext_proc.proto`.

#![expect(clippy::pedantic, clippy::allow_attributes_without_reason, unreachable_pub, reason = "generated")]

include!("proto/generated.rs");

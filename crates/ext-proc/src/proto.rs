//! The generated code of `proto/envoy/ext_proc.proto`.

#![expect(clippy::pedantic, clippy::clone_on_ref_ptr, clippy::allow_attributes_without_reason, reason = "generated")]

include!("proto/generated.rs");

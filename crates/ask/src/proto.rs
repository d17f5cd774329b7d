//! The generated code of `proto/thalamus/ask/v1/ask.proto`.

#![expect(
    clippy::pedantic,
    clippy::clone_on_ref_ptr,
    clippy::large_enum_variant,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

include!("proto/generated.rs");

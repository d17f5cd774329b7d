//! The generated code of `proto/thalamus/publish/v1/tables.proto`.

#![expect(
    clippy::pedantic,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]

include!("proto/generated.rs");

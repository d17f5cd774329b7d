//! Between whole and real numbers, where sizes and lengths are.

/// Rounded down, and kept within the range: an absurd size stays absurd.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are not negative")]
pub(super) fn whole(number: f64) -> u64 {
    number as u64
}

#[expect(clippy::cast_precision_loss, reason = "pixels and frames are far below 2^52")]
pub(super) fn real(number: u64) -> f64 {
    number as f64
}

//! Changes in the middle of a body, in buffers that Envoy lets be changed at their ends.

use bytes::Bytes;
use director::{Rejection, Reservation};
use request::{Splice, splice};

use crate::abi::{Body, Stream};

/// Where a decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// In a hook that brings the end of the body.
    Body,
    /// In any other, where all of it is kept already.
    Elsewhere,
}

/// Puts the splices into the body, and says how long it is then. Envoy's buffers can be drained at their front and added to at their end: a
/// splice in the part that the hook brings costs a copy of that part, and one in what was kept before a copy of all.
pub(crate) fn splice_body(
    stream: &mut Stream<'_>,
    splices: &[Splice],
    at: At,
    reservation: &mut Reservation,
) -> Result<usize, Rejection> {
    let size = |of: Body| stream.body_size(of);
    let (kept, brought) = match at {
        At::Body if stream.brings_what_was_kept() => (0, size(Body::ReceivedOfRequest)),
        At::Body => (size(Body::KeptOfRequest), size(Body::ReceivedOfRequest)),
        At::Elsewhere => (size(Body::KeptOfRequest), 0),
    };
    let begins = splices.first().map_or(0, |splice| splice.range.start);
    // What was kept can stay as it is.
    let stays = if at == At::Body && begins >= kept as u64 { kept } else { 0 };
    let copied = (kept + brought - stays) as u64;
    reservation.grow(copied)?;
    let mut bytes = Vec::with_capacity(kept + brought - stays);
    if stays < kept {
        stream.body(Body::KeptOfRequest).into_iter().for_each(|piece| bytes.extend_from_slice(piece));
    }
    if at == At::Body {
        stream.body(Body::ReceivedOfRequest).into_iter().for_each(|piece| bytes.extend_from_slice(piece));
    }
    let start = stays as u64;
    let shifted: Vec<Splice> = splices
        .iter()
        .map(|splice| Splice { range: splice.range.start - start..splice.range.end - start, with: splice.with.clone() })
        .collect();
    let pieces = splice([Bytes::from(bytes)], &shifted);
    let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
    if stays < kept && at == At::Body {
        stream.replace_body(Body::KeptOfRequest, &[]);
    }
    let into = if at == At::Body { Body::ReceivedOfRequest } else { Body::KeptOfRequest };
    stream.replace_body(into, &pieces);
    reservation.shrink(copied);
    Ok(pieces.iter().map(|piece| piece.len()).sum::<usize>() + stays)
}

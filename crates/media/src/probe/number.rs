//! Numbers where they stand in a header; 0 where there are none.

fn at<const N: usize>(seen: &[u8], at: usize) -> [u8; N] {
    seen.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

pub(super) fn le16(seen: &[u8], place: usize) -> u16 {
    u16::from_le_bytes(at(seen, place))
}

pub(super) fn be16(seen: &[u8], place: usize) -> u16 {
    u16::from_be_bytes(at(seen, place))
}

pub(super) fn le32(seen: &[u8], place: usize) -> u32 {
    u32::from_le_bytes(at(seen, place))
}

pub(super) fn be32(seen: &[u8], place: usize) -> u32 {
    u32::from_be_bytes(at(seen, place))
}

pub(super) fn be64(seen: &[u8], place: usize) -> u64 {
    u64::from_be_bytes(at(seen, place))
}

pub(super) fn le24(seen: &[u8], place: usize) -> u32 {
    let [a, b, c] = at(seen, place);
    u32::from_le_bytes([a, b, c, 0])
}

use proptest::prelude::*;

use super::*;

const VALUE: &[u8] = b"outbound|9002||x";

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

fn fields() -> Vec<u8> {
    [&[0x83, 0x86, 0x84, 0x41, 16], VALUE, &[0x88]].concat()
}

fn mended_fields() -> Vec<u8> {
    [&[0x83, 0x86, 0x84, 0x41, 16], &[b'x'; 16][..], &[0x88]].concat()
}

/// What passes of `bytes` when they come in pieces of these sizes, again and again, and what was still held at the end.
fn passed(bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<u8>, usize) {
    let (mut mender, mut out, mut held) = (Mender::default(), Vec::new(), Vec::new());
    let (mut wanted, mut replaced) = (0, 0);
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        rest = more;
        held.extend_from_slice(piece);
        if held.len() < wanted {
            continue;
        }
        let passed = mender.pass(&mut held);
        replaced += passed.mended;
        out.extend(held.drain(..passed.bytes));
        assert!(held.is_empty() == (passed.wanted == 0) && (held.is_empty() || held.len() < passed.wanted));
        assert!(passed.wanted <= MAX_HELD + FRAME_HEAD);
        wanted = passed.wanted;
    }
    (out, held, replaced)
}

#[track_caller]
fn check(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
    let (bytes, expected) = (frames.concat(), expected.concat());
    let bytes = [PREFACE, &*bytes].concat();
    let (out, held, mended) = passed(&bytes, &[usize::MAX]);
    assert_eq!((&out[PREFACE.len()..], held.len()), (&*expected, 0));
    assert_eq!(mended > 0, bytes[PREFACE.len()..] != expected);
    for size in 1..40 {
        assert_eq!(passed(&bytes, &[size]), (out.clone(), vec![], mended), "in pieces of {size}");
    }
}

#[test]
fn blocks_are_mended_whatever_frames_they_come_in() {
    let (fields, mended) = (fields(), mended_fields());
    let settings = frame(4, 0, &[0; 6]);
    let data = frame(0, 1, &fields);
    let same = || [settings.clone(), data.clone()];
    check(&same(), &same());
    let whole = |fields: &[u8]| vec![settings.clone(), frame(1, 4, fields), data.clone(), frame(1, 4, fields)];
    check(&whole(&fields), &whole(&mended));
    let padded = |fields: &[u8]| vec![frame(1, 4 | 8 | 32, &[&[3, 0, 0, 0, 0, 7], fields, &[0; 3]].concat())];
    check(&padded(&fields), &padded(&mended));
    for cut in 0..=fields.len() {
        let two = |fields: &[u8]| vec![frame(1, 0, &fields[..cut]), frame(9, 4, &fields[cut..]), data.clone()];
        check(&two(&fields), &two(&mended));
        let three = |fields: &[u8]| {
            vec![frame(1, 0, &fields[..cut]), frame(9, 0, &[]), frame(9, 4, &fields[cut..]), data.clone()]
        };
        check(&three(&fields), &three(&mended));
    }
}

#[test]
fn what_h2_refuses_for_another_reason_passes_as_it_is() {
    let fields = fields();
    let as_it_is = |frames: Vec<Vec<u8>>| check(&frames, &frames);
    as_it_is(vec![frame(1, 0, &fields), frame(0, 0, b"between"), frame(9, 4, &[])]);
    as_it_is(vec![frame(1, 4 | 8, &[]), frame(1, 4 | 8, &[200, 1]), frame(1, 4 | 32, &[1])]);
    as_it_is(vec![frame(9, 4, &fields), frame(1, 4, &[0x41, 0xff, 0xff])]);
    let large = vec![0; MAX_HELD];
    as_it_is(vec![frame(1, 4, &large), frame(1, 0, &large[..30_000]), frame(9, 0, &large[..40_000]), frame(9, 4, &[])]);
}

#[test]
fn other_protocols_pass() {
    for bytes in [&b"GET / HTTP/1.1\r\nhost: a|b\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"P"] {
        assert_eq!(passed(bytes, &[1]), (bytes.to_vec(), vec![], 0));
    }
}

/// Frames of any kind, some with a name to mend.
fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        Just(fields()),
        (0_usize..22).prop_map(|cut| fields()[..cut].to_vec()),
        (0_usize..22).prop_map(|cut| fields()[cut..].to_vec()),
    ];
    let kind = prop_oneof![3 => Just(1_u8), 2 => Just(9_u8), 1 => any::<u8>()];
    let flags = prop_oneof![Just(4_u8), Just(0_u8), any::<u8>()];
    let one = (kind, flags, payload).prop_map(|(kind, flags, payload)| frame(kind, flags, &payload));
    proptest::collection::vec(one, 0..12).prop_map(|frames| [&PREFACE[..], &frames.concat()].concat())
}

proptest! {
    #[test]
    fn pieces_change_nothing_and_lengths_stay(bytes in any_frames(), sizes in proptest::collection::vec(1_usize..50, 1..5)) {
        let (out, held, mended) = passed(&bytes, &[usize::MAX]);
        prop_assert_eq!(out.len() + held.len(), bytes.len());
        prop_assert_eq!(passed(&bytes, &sizes), (out.clone(), held, mended));
        // What was mended once needs no more of it.
        prop_assert_eq!(passed(&out, &[usize::MAX]).2, 0);
    }
}

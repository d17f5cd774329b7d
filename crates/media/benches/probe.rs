//! Reading sizes beside a library, and what hashing and decoding cost beside scanning: `cargo bench -p media`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use media::{ByteReader, Facts, Probe, Spelling, TextReader};

fn main() {
    divan::main();
}

const PNG: &[u8] = include_bytes!("../testdata/picture.png");
const JPEG: &[u8] = include_bytes!("../testdata/picture.jpg");
const AVIF: &[u8] = include_bytes!("../testdata/picture.avif");

fn probe(bytes: &[u8]) -> Facts {
    let mut probe = Probe::default();
    probe.feed(bytes);
    probe.finish()
}

#[divan::bench(args = ["png", "jpeg", "avif"])]
fn sizes_by_probe(bencher: Bencher<'_, '_>, name: &str) {
    let picture = picture(name);
    bencher.bench_local(|| probe(black_box(picture)).size);
}

#[divan::bench(args = ["png", "jpeg", "avif"])]
fn sizes_by_imagesize(bencher: Bencher<'_, '_>, name: &str) {
    let picture = picture(name);
    bencher.bench_local(|| imagesize::blob_size(black_box(picture)).expect("a picture"));
}

fn picture(name: &str) -> &'static [u8] {
    match name {
        "png" => PNG,
        "jpeg" => JPEG,
        _ => AVIF,
    }
}

const SIZES: [usize; 3] = [200 << 10, 2 << 20, 20 << 20];

/// A picture of about `size` bytes in base64.
fn encoded(size: usize) -> String {
    let mut bytes = PNG.to_vec();
    bytes.resize(size / 4 * 3, 7);
    BASE64_STANDARD.encode(bytes)
}

/// Decoded, hashed and probed.
#[divan::bench(args = SIZES)]
fn text_reader(bencher: Bencher<'_, '_>, size: usize) {
    let text = encoded(size);
    let mut reader = TextReader::default();
    bencher.counter(BytesCount::new(text.len())).bench_local(|| {
        reader.start(Spelling::Data);
        reader.feed(black_box(text.as_bytes()));
        reader.finish()
    });
}

/// The hash alone, of the text as it is.
#[divan::bench(args = SIZES)]
fn blake3_of_the_text(bencher: Bencher<'_, '_>, size: usize) {
    let text = encoded(size);
    bencher.counter(BytesCount::new(text.len())).bench_local(|| blake3::hash(black_box(text.as_bytes())));
}

/// The decoding alone, by the library that most use.
#[divan::bench(args = SIZES)]
fn base64_crate_decode(bencher: Bencher<'_, '_>, size: usize) {
    let text = encoded(size);
    let mut buffer = vec![0; size];
    bencher
        .counter(BytesCount::new(text.len()))
        .bench_local(|| BASE64_STANDARD.decode_slice(black_box(&text), &mut buffer).expect("base64"));
}

/// An upload: hashed and probed, nothing decoded.
#[divan::bench(args = SIZES)]
fn byte_reader(bencher: Bencher<'_, '_>, size: usize) {
    let bytes = vec![7; size];
    let mut reader = ByteReader::default();
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        reader.feed(black_box(&bytes));
        reader.finish()
    });
}

use super::*;

fn probe(bytes: &[u8], piece: usize) -> Facts {
    let mut probe = Probe::default();
    bytes.chunks(piece).for_each(|piece| probe.feed(piece));
    probe.finish()
}

/// `PNG 112x84`, `MP4 64x48 2000 ms 16 frames`.
fn shown(facts: &Facts) -> String {
    let mut words = vec![facts.format.map_or("?".to_owned(), |format| format.to_string())];
    words.extend(facts.size.map(|(width, height)| format!("{width}x{height}")));
    words.extend(facts.milliseconds.map(|milliseconds| format!("{milliseconds} ms")));
    words.extend(facts.frames.map(|frames| format!("{frames} frames")));
    words.join(" ")
}

#[track_caller]
fn check(name: &str, bytes: &[u8], expected: &str) {
    for piece in [usize::MAX, 1, 2, 3, 7, 64, 1000] {
        assert_eq!(shown(&probe(bytes, piece)), expected, "{name} in pieces of {piece}");
    }
}

/// Made by ffmpeg 5.1; lengths are those that ffprobe tells, to the millisecond.
#[test]
fn files_of_real_encoders_are_read() {
    for (name, bytes, expected) in [
        ("picture.png", &include_bytes!("../../testdata/picture.png")[..], "PNG 112x84"),
        ("picture.jpg", include_bytes!("../../testdata/picture.jpg"), "JPEG 112x84"),
        ("picture.gif", include_bytes!("../../testdata/picture.gif"), "GIF 112x84"),
        ("picture.webp", include_bytes!("../../testdata/picture.webp"), "WebP 112x84"),
        ("lossless.webp", include_bytes!("../../testdata/lossless.webp"), "WebP 112x84"),
        ("picture.avif", include_bytes!("../../testdata/picture.avif"), "AVIF 112x84"),
        ("picture.bmp", include_bytes!("../../testdata/picture.bmp"), "BMP 112x84"),
        ("picture.tiff", include_bytes!("../../testdata/picture.tiff"), "TIFF 112x84"),
        ("tone.wav", include_bytes!("../../testdata/tone.wav"), "WAV 250 ms"),
        ("tone.mp3", include_bytes!("../../testdata/tone.mp3"), "MP3 1584 ms"),
        ("bare.mp3", include_bytes!("../../testdata/bare.mp3"), "MP3 1584 ms"),
        ("tone.flac", include_bytes!("../../testdata/tone.flac"), "FLAC 1500 ms"),
        ("opus.ogg", include_bytes!("../../testdata/opus.ogg"), "OGG 1500 ms"),
        ("vorbis.ogg", include_bytes!("../../testdata/vorbis.ogg"), "OGG 1500 ms"),
        ("tone.m4a", include_bytes!("../../testdata/tone.m4a"), "M4A 1500 ms"),
        ("clip.mp4", include_bytes!("../../testdata/clip.mp4"), "MP4 64x48 2000 ms 16 frames"),
        ("faststart.mp4", include_bytes!("../../testdata/faststart.mp4"), "MP4 64x48 2000 ms 16 frames"),
        ("fragmented.mp4", include_bytes!("../../testdata/fragmented.mp4"), "MP4 64x48"),
        ("with-sound.mp4", include_bytes!("../../testdata/with-sound.mp4"), "MP4 64x48 2000 ms 16 frames"),
        ("clip.mov", include_bytes!("../../testdata/clip.mov"), "QuickTime 64x48 2000 ms 16 frames"),
        ("clip.webm", include_bytes!("../../testdata/clip.webm"), "WebM 64x48 2000 ms 16 frames"),
        ("clip.mkv", include_bytes!("../../testdata/clip.mkv"), "Matroska 64x48 2000 ms 16 frames"),
    ] {
        check(name, bytes, expected);
    }
}

#[test]
fn a_library_reads_the_same_sizes() {
    for bytes in [
        &include_bytes!("../../testdata/picture.png")[..],
        include_bytes!("../../testdata/picture.jpg"),
        include_bytes!("../../testdata/picture.gif"),
        include_bytes!("../../testdata/picture.webp"),
        include_bytes!("../../testdata/lossless.webp"),
        include_bytes!("../../testdata/picture.avif"),
        include_bytes!("../../testdata/picture.bmp"),
        include_bytes!("../../testdata/picture.tiff"),
    ] {
        let size = imagesize::blob_size(bytes).unwrap();
        let (width, height) = probe(bytes, usize::MAX).size.unwrap();
        assert_eq!((width as usize, height as usize), (size.width, size.height));
    }
}

/// Half a megabyte of preview before the frame, as cameras write it.
#[test]
fn a_header_is_found_however_late_it_comes() {
    let picture = include_bytes!("../../testdata/picture.jpg");
    let mut preview = vec![0xff, 0xd8];
    for _ in 0..8 {
        preview.extend([0xff, 0xe1, 0xff, 0xff]);
        preview.resize(preview.len() + 0xfffd, 7);
    }
    preview.extend(&picture[2..]);
    check("a picture behind its preview", &preview, "JPEG 112x84");

    let sound = include_bytes!("../../testdata/bare.mp3");
    let mut tagged = b"ID3\x04\0\0\0\x06\x0d\x40".to_vec();
    tagged.resize(10 + (6 << 14 | 13 << 7 | 64), 1);
    tagged.extend(sound);
    check("sound behind its cover", &tagged, "MP3 1584 ms");
}

/// What Pillow opens as 20,000 pixels square.
#[test]
fn the_largest_of_several_claims_counts() {
    let png = include_bytes!("../../testdata/picture.png");
    let mut bomb = png[8..33].to_vec();
    bomb[8..16].copy_from_slice(&[0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20]);
    let two = [&png[..33], &bomb, &png[33..]].concat();
    check("two headers", &two, "PNG 20000x20000");
    let gif = include_bytes!("../../testdata/picture.gif");
    let picture = gif.iter().rposition(|byte| *byte == 0x2c).unwrap();
    let frame = gif.windows(10).position(|part| part[0] == 0x2c && part[5..9] == [112, 0, 84, 0]).unwrap_or(picture);
    let mut large = gif.to_vec();
    large[frame + 5..frame + 9].copy_from_slice(&[0x20, 0x4e, 0x20, 0x4e]);
    check("a picture larger than its screen", &large, "GIF 20000x20000");
}

#[test]
fn what_is_cut_or_odd_is_not_made_up() {
    check("nothing", b"", "?");
    check("a word", b"hello", "?");
    check("a signature", b"\x89PNG\r\n\x1a\n", "PNG");
    check("a document", b"%PDF-1.7 and so on", "PDF");
    check("a box of no size", b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\0free\0\0\0\x08moov\0\0\0\x04trak", "MP4");
    check(
        "no channels",
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0data\0\0\0\0abc",
        "WAV",
    );
    let clip = include_bytes!("../../testdata/clip.mp4");
    check("a video without its index", &clip[..1000], "MP4");
}

/// A header that never comes costs no more than looking for it.
#[test]
fn tiny_pieces_without_end_are_given_up() {
    let mut fill = vec![0xff; 1 << 20];
    fill[1] = 0xd8;
    let mut probe = Probe::default();
    probe.feed(&fill);
    assert!(matches!(probe.machine, Machine::Done));
    assert!(probe.gathered.capacity() <= MAX_WANT);
}

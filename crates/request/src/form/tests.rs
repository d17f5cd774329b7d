use super::*;

#[derive(Debug, Default)]
struct Parts {
    all: Vec<(PartHead, u64, u64, Vec<u8>)>,
}

impl FormSink for Parts {
    fn begin(&mut self, head: PartHead, at: u64) -> Result<(), Unreadable> {
        self.all.push((head, at, 0, Vec::new()));
        Ok(())
    }

    fn content(&mut self, piece: &[u8]) -> Result<(), Unreadable> {
        self.all.last_mut().unwrap().3.extend_from_slice(piece);
        Ok(())
    }

    fn end(&mut self, at: u64) -> Result<(), Unreadable> {
        self.all.last_mut().unwrap().2 = at;
        Ok(())
    }
}

fn read(body: &[u8], piece: usize) -> Result<Vec<String>, String> {
    let mut reader = FormReader::new("multipart/form-data; boundary=xyz").unwrap();
    let mut parts = Parts::default();
    for piece in body.chunks(piece) {
        reader.feed(piece, &mut parts).map_err(|error| error.to_string())?;
    }
    reader.finish().map_err(|error| error.to_string())?;
    let shown = parts.all.into_iter().map(|(head, begin, end, content)| {
        let place = usize::try_from(begin).unwrap()..usize::try_from(end).unwrap();
        assert_eq!(body[place], content, "the place of a part is where its content is");
        let file = if head.is_file { " (file)" } else { "" };
        let kind = head.media_type.map(|kind| format!(" {kind}")).unwrap_or_default();
        format!("{}{file}{kind}: {}", head.name, String::from_utf8_lossy(&content))
    });
    Ok(shown.collect())
}

/// A form of these parts, each with its header; line ends are `\r\n`.
#[track_caller]
fn check(body: &str, expected: Result<&[&str], &str>) {
    let body = body.replace('\n', "\r\n");
    for piece in [usize::MAX, 1, 2, 3, 5, 8, 13] {
        let parts = read(body.as_bytes(), piece);
        let shown = parts.as_ref().map(|parts| parts.iter().map(String::as_str).collect::<Vec<_>>());
        match (shown, expected) {
            (Ok(parts), Ok(expected)) => assert_eq!(parts, expected, "in pieces of {piece}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "in pieces of {piece}: {error}"),
            (found, _) => panic!("in pieces of {piece}: {found:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn parts_are_told_apart_wherever_chunks_are_cut() {
    check(
        "--xyz\nContent-Disposition: form-data; name=\"model\"\n\nwhisper\n--xyz\ncontent-disposition: form-data; name=file; filename=\"a b.wav\"\nContent-Type: Audio/WAV; x=y\n\nRIFF\n--xy\n\n--\n--xyz--\nwhatever",
        Ok(&["model: whisper", "file (file) audio/wav: RIFF\r\n--xy\r\n\r\n--"]),
    );
    check("--xyz\nContent-Disposition: form-data; name=\"a\"\n\n\n--xyz--", Ok(&["a: "]));
    check("--xyz--", Ok(&[]));
}

#[test]
fn what_real_clients_write_is_taken() {
    let file = |head: &str| format!("--xyz\n{head}\n\nv\n--xyz--\n");
    for head in [
        r#"Content-Disposition: form-data; name="file"; filename="a \"b\" c.wav""#,
        r#"Content-Disposition: form-data; name="file"; filename="C:\sounds\a.wav""#,
        r#"Content-Disposition: form-data; name="file"; filename="a\\""#,
        r#"Content-Disposition: form-data; name="file"; filename="my \"name\".wav""#,
        r#"Content-Disposition: form-data; name="file"; filename="a.wav"; filename*=utf-8''b"#,
        r#"Content-Disposition: form-data; name="file"; filename="a.wav"; size=7"#,
        "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\nContent-Transfer-Encoding: 8Bit",
        "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\nContent-Transfer-Encoding: BINARY",
    ] {
        check(&file(head), Ok(&["file (file): v"]));
        check(&format!("\n{}", file(head)), Ok(&["file (file): v"]));
        check(&format!("\n\n{}", file(head)), Ok(&["file (file): v"]));
    }
    let latin = b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"h\xe9.wav\"\r\n\r\nv\r\n--xyz--";
    assert_eq!(read(latin, 3).unwrap(), ["file (file): v"]);
    // A name that one reader finds and another does not.
    check(
        &file(r#"Content-Disposition: form-data; name="file"; filename="a\"; name="model""#),
        Err("malformed header parameter"),
    );
    check(&file(r#"Content-Disposition: form-data; filename="a\"; name=\"model"; name=file"#), Err("malformed"));
    check(&file("Content-Disposition: form-data; name=file; filename*=utf-8''a"), Err("encoded file name alone"));
    let latin = b"--xyz\r\nContent-Disposition: form-data; name=\"h\xe9\"\r\n\r\nv\r\n--xyz--";
    assert!(read(latin, 3).unwrap_err().contains("not UTF-8"));
    check("\rhello", Err("expected the boundary"));
}

#[test]
fn what_readers_take_apart_in_two_ways_is_refused() {
    let part = |head: &str| format!("--xyz\n{head}\n\nv\n--xyz--\n");
    for (body, expected) in [
        (String::new(), "the body is empty"),
        ("--xy".into(), "unexpected end of the form"),
        ("hello".into(), "expected the boundary"),
        ("--xyz\nContent-Disposition: form-data; name=a\n\nv".into(), "unexpected end of the form"),
        ("--xyzz\n".into(), "expected a line break after the boundary"),
        (part("Content-Type: text/plain"), "without content-disposition"),
        (part("Content-Disposition: form-data"), "without a name"),
        (part("Content-Disposition: attachment; name=a"), "other than form-data"),
        (part("Content-Disposition: form-data; name=a; name=b"), "two names"),
        (part("Content-Disposition: form-data; name*=utf-8''a"), "encoded name"),
        (part("Content-Disposition: form-data; nAme=a"), "malformed header parameter"),
        (part("Content-Disposition: form-data; name=\"a\\\"; x=\"b\""), "malformed header parameter"),
        (
            part("Content-Disposition: form-data; name=a\nContent-Disposition: form-data; name=b"),
            "duplicate part header",
        ),
        (part("Content-Disposition: form-data;\n name=a"), "folded"),
        (
            part("Content-Disposition: form-data; name=a\nContent-Transfer-Encoding: base64"),
            "content-transfer-encoding",
        ),
        (part("Content-Disposition : form-data; name=a"), "a space in its name"),
        (part(&format!("Content-Disposition: form-data; name=a\nX: {}", "x".repeat(9000))), "too long"),
        ("--xyz\nContent-Disposition: form-data; name=a\n\nv\n--xyz ".into(), "expected a line break"),
    ] {
        check(&body, Err(expected));
    }
    // A bare line feed ends no line.
    let bare = b"--xyz\r\nContent-Disposition: form-data; name=a\nContent-Type: x\r\n\r\nv\r\n--xyz--";
    assert!(read(bare, 7).unwrap_err().contains("control character"));
}

#[test]
fn boundaries_are_sound_or_refused() {
    let is_sound = |content_type: &str| FormReader::new(content_type).is_ok();
    assert!(is_sound("multipart/form-data; boundary=\"a b:c\""));
    assert!(is_sound("multipart/form-data; charset=utf-8; BOUNDARY=----x"));
    assert!(is_sound("multipart/form-data; boundary==_Part:1/2"));
    for bad in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a\"b",
        "multipart/form-data; boundary=é",
        "multipart/form-data; charset=utf-7; boundary=x",
        "multipart/form-data; boundary=x; start=y",
        &format!("multipart/form-data; boundary={}", "x".repeat(71)),
    ] {
        assert!(!is_sound(bad), "{bad}");
    }
}

#[test]
fn a_form_of_parts_without_end_is_refused() {
    let part = "--xyz\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n";
    assert!(read(part.repeat(1100).as_bytes(), 10_000).unwrap_err().contains("more than 1024"));
}

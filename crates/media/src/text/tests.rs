use super::*;
use crate::Reach;
use routing::Format;

const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAHAAAABUCAIAAADVvyQ8AAAAMklEQVR4nO3BAQ0AAADCoPdPbQ43oAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAHg1bpQAAW8w0nEAAAAASUVORK5CYII=";

/// Reads a text in every way to cut it once, and in single bytes; the result must not differ.
fn read(spelling: Spelling, text: &str) -> TextFound {
    let mut reader = TextReader::default();
    let mut found: Option<TextFound> = None;
    let cuts = (0..=text.len().min(700)).map(|cut| vec![&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
    for pieces in cuts.chain([text.as_bytes().chunks(1).collect()]) {
        reader.start(spelling);
        for piece in &pieces {
            reader.feed(piece);
        }
        let one = reader.finish();
        assert!(found.as_ref().is_none_or(|before| *before == one), "{text}: {one:?} instead of {found:?}");
        found = Some(one);
    }
    found.unwrap()
}

/// `inline image/png PNG 112x84`, `url example.com`, `fault: …`.
fn shown(found: &TextFound) -> String {
    let facts = found.facts;
    let mut words = match &found.url {
        Some(Ok(url)) => vec![format!("url {} {:?}", url.host, url.reach)],
        Some(Err(fault)) => vec![format!("fault: {fault}")],
        None => vec!["inline".to_owned()],
    };
    words.extend(found.media_type.clone());
    words.extend(facts.format.map(|format| format.to_string()));
    words.extend(facts.size.map(|(width, height)| format!("{width}x{height}")));
    words.extend(found.undecodable.then(|| "undecodable".to_owned()));
    words.join(" ")
}

#[track_caller]
fn check(spelling: Spelling, text: &str, expected: &str) {
    assert_eq!(shown(&read(spelling, text)), expected, "{text}");
}

#[test]
fn what_a_text_is_depends_on_its_beginning_and_its_place() {
    check(Spelling::Url, &format!("data:image/png;base64,{PNG}"), "inline image/png PNG 112x84");
    check(Spelling::Url, &format!("DATA:image/PNG;charset=x;BASE64,{PNG}"), "inline image/png PNG 112x84");
    check(Spelling::Data, PNG, "inline PNG 112x84");
    check(Spelling::Data, &format!("data:;base64,{PNG}"), "inline PNG 112x84");
    check(Spelling::Url, PNG, "inline PNG 112x84");
    check(Spelling::Url, "data:text/plain,hello%20world", "inline text/plain");
    check(Spelling::Url, "data:image/png;base64,", "inline image/png");
    check(Spelling::Url, "https://example.com/a.png", "url example.com Public");
    check(Spelling::Url, "http://169.254.169.254/latest", "url 169.254.169.254 Private");
    check(Spelling::Data, "AAAA", "inline");
    check(Spelling::Data, "http://x", "inline undecodable");
    check(Spelling::Url, "data:image/png;base64,A*", "inline image/png undecodable");
}

#[test]
fn what_some_reader_might_fetch_or_open_is_a_fault() {
    let unclear = "fault: it is neither an http(s) URL, nor a data: URL, nor base64 of a known media format";
    for text in ["/etc/passwd", "x", "AAAA", "cat.png", "", " data:image/png;base64,AAAA", "ht\ttp://127.0.0.1/"] {
        check(Spelling::Url, text, unclear);
    }
    check(
        Spelling::Url,
        "file:///etc/passwd",
        "fault: it is a file: URL, which would be read from the model server's own disk",
    );
    let endless = "fault: it begins with data: and has no comma in its first 512 bytes";
    check(Spelling::Url, &format!("data:video/jpeg;{};base64,AAAA", "a".repeat(600)), endless);
    check(Spelling::Data, "data:image/png;base64", endless);
    check(Spelling::Url, "ftp://example.com/", "fault: its scheme is not http, https or data");
    check(Spelling::Url, &format!("https://example.com/{}", "a".repeat(9000)), "fault: it is longer than 8192 bytes");
}

#[test]
fn the_same_picture_is_the_same_however_it_is_spelled() {
    let plain = read(Spelling::Url, &format!("data:image/png;base64,{PNG}"));
    let lines: Vec<_> = PNG.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
    let lines = lines.join("\n");
    for text in [
        format!("data:image/jpeg;base64,{PNG}"),
        format!("data:;base64,{lines}"),
        lines,
        PNG.to_owned(),
        PNG.trim_end_matches('=').to_owned(),
    ] {
        assert_eq!(read(Spelling::Data, &text).identity, plain.identity, "{text}");
    }
    assert_ne!(read(Spelling::Data, &PNG.replace("HAAAAB", "HAAAAC")).identity, plain.identity);
    assert!(plain.identity.is_some());
}

#[test]
fn a_reader_is_used_again_and_again() {
    let mut reader = TextReader::default();
    reader.start(Spelling::Url);
    reader.feed(b"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAHAAAABUCAIA");
    // Given up in the middle.
    reader.start(Spelling::Data);
    reader.feed(b"AAAA");
    let found = reader.finish();
    assert_eq!((found.facts.format, found.facts.bytes), (None, 3));
    reader.start(Spelling::Data);
    reader.feed(PNG.as_bytes());
    assert_eq!(reader.finish().facts.format, Some(Format::Png));
}

#[test]
fn a_long_text_tells_its_bytes() {
    let text = "A".repeat(100_000);
    let found = read(Spelling::Data, &text);
    assert_eq!((found.bytes, found.facts.bytes), (100_000, 75_000));
    assert_eq!(Reach::of_host("localhost"), Reach::Private);
}

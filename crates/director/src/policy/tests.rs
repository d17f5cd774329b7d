//! Each known weakness of model servers that a picker can blunt has a test here; `docs/security.md` lists them by name.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use request::{Limits, RequestHead, Scanner};
use routing::{Capability, Family, HostPattern, Target};

use super::*;

/// Held against a model of one target that takes everything, with this policy.
#[derive(Default)]
struct Check {
    policy: MediaPolicy,
    family: Option<Family>,
}

impl Check {
    fn ask(&self, path: &str, body: &[u8], content_type: Option<&str>) -> String {
        let head = RequestHead { path, content_type, ..RequestHead::default() };
        let mut scanner = Scanner::new(&head, Limits::default()).unwrap();
        scanner.feed(body).unwrap();
        let request = scanner.finish().unwrap();
        let target = Target { family: self.family, ..Target::new("t", "p", Capability::ANY) };
        let model = Model { media: self.policy.clone(), ..Model::new(vec![target]) };
        let target = &model.targets[0];
        let checked = check("m", &model, &request, &["corp.example.com".to_owned()]);
        let typed = placeholder(Some(&model.media), target.capability, target.family, &request);
        match checked.and_then(|()| typed.map_or(Ok(()), |token| Err(placeholder_refused("m", token)))) {
            Ok(()) => "taken".into(),
            Err(rejection) => {
                let at = rejection.param().map(|at| format!(" at {at}")).unwrap_or_default();
                format!("{}{at}: {rejection}", rejection.code().as_str())
            }
        }
    }

    #[track_caller]
    fn chat(&self, part: &str, expected: &str) {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":["x",{part}]}}]}}"#);
        let shown = self.ask("/v1/chat/completions", body.as_bytes(), None);
        assert!(shown.starts_with(expected), "{part}: {shown} instead of {expected}");
    }
}

fn rule(modality: Modality, rule: MediaRule) -> Check {
    Check { policy: MediaPolicy { rules: [(modality, rule)].into(), ..MediaPolicy::default() }, ..Check::default() }
}

fn allow(feature: UnsafeFeature) -> Check {
    Check { policy: MediaPolicy { allowed: [feature].into(), ..MediaPolicy::default() }, ..Check::default() }
}

fn url(url: &str) -> String {
    format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#)
}

fn inline(key: &str, bytes: &[u8]) -> String {
    format!(r#"{{"type":"{key}","{key}":{{"url":"data:;base64,{}"}}}}"#, BASE64_STANDARD.encode(bytes))
}

const PICTURE: &[u8] = include_bytes!("../../../media/testdata/picture.png");
const TONE: &[u8] = include_bytes!("../../../media/testdata/tone.mp3");
const CLIP: &[u8] = include_bytes!("../../../media/testdata/clip.mp4");

/// GHSA-3f6c-7fw2-ppm4, CVE-2026-24779, CVE-2026-25960, CVE-2026-34753: server-side request forgery by URLs that two readers read
/// differently, or that lead inside.
#[test]
fn urls_that_lead_inside_or_are_read_in_two_ways_are_refused() {
    let check = Check::default();
    check.chat(&url("https://example.com/a.png"), "taken");
    for inside in [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/",
        "http://localhost:8000/",
        "http://metadata.google.internal/",
        "http://kubernetes.default.svc/",
    ] {
        check.chat(&url(inside), "media_host_not_allowed at messages[0].content[1]");
    }
    for odd in [
        r"https://good.com\\evil.com/",
        "https://good.com@evil.com/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "gopher://x/",
        "https://good.com%2f@evil.com",
        "/etc/passwd",
    ] {
        check.chat(&url(odd), "media_url_not_allowed at messages[0].content[1]");
    }
}

/// vllm#57157: any host is fetched from unless somebody says otherwise.
#[test]
fn hosts_and_schemes_are_limited_as_the_owner_says() {
    let hosts = MediaRule {
        allowed_hosts: vec![HostPattern::new("*.example.com"), HostPattern::new("10.0.0.7"), HostPattern::new("minio")],
        ..MediaRule::default()
    };
    let check = rule(Modality::Image, hosts);
    check.chat(&url("https://a.example.com/"), "taken");
    check.chat(&url("http://10.0.0.7/"), "taken");
    check.chat(&url("http://minio:9000/"), "taken");
    check.chat(
        &url("https://example.org/"),
        r#"media_host_not_allowed at messages[0].content[1]: model "m" does not accept image from host "example.org""#,
    );
    check.chat(&url("http://10.0.0.8/"), "media_host_not_allowed");
    // Who allows every host means every public one.
    let hosts = |pattern| MediaRule { allowed_hosts: vec![HostPattern::new(pattern)], ..MediaRule::default() };
    let anywhere = rule(Modality::Image, hosts("*"));
    anywhere.chat(&url("https://example.org/"), "taken");
    for inside in ["10.0.0.8", "kubernetes.default", "metadata.goog", "files.corp.example.com"] {
        let shown = format!(
            "media_host_not_allowed at messages[0].content[1]: model \"m\" does not accept image from private host {inside:?}"
        );
        anywhere.chat(&url(&format!("http://{inside}/")), &shown);
        rule(Modality::Image, hosts(inside)).chat(&url(&format!("http://{inside}/")), "taken");
    }
    rule(Modality::Image, hosts("*.storage.svc")).chat(&url("http://minio.storage.svc/"), "taken");
    rule(Modality::Image, hosts("*.corp.example.com")).chat(&url("http://files.corp.example.com/"), "taken");
    rule(Modality::Image, hosts("*.goog")).chat(&url("http://metadata.goog/"), "media_host_not_allowed");
    let https = rule(Modality::Image, MediaRule { https_only: true, ..MediaRule::default() });
    https.chat(&url("http://example.com/"), "media_url_not_allowed");
    https.chat(&url("https://example.com/"), "taken");
    let inline_only = rule(Modality::Image, MediaRule { sources: vec![MediaSource::Inline], ..MediaRule::default() });
    inline_only.chat(&url("https://example.com/"), "media_source_not_allowed");
    inline_only.chat(&inline("image_url", PICTURE), "taken");
}

/// CVE-2026-100650: media is read and decoded before limits are looked at.
#[test]
fn count_and_bytes_are_limited_before_an_engine_reads_anything() {
    let one = rule(Modality::Image, MediaRule { max_items: Some(1), ..MediaRule::default() });
    one.chat(&url("https://example.com/"), "taken");
    let two = format!("{0},{0}", url("https://example.com/"));
    one.chat(&two, "too_many_media_items at messages[0].content[2]");
    let small = rule(Modality::Image, MediaRule { max_item_bytes: Some(100), ..MediaRule::default() });
    small.chat(&inline("image_url", PICTURE), "media_item_too_large");
}

/// CVE-2026-55646: an upload is read before its size is looked at.
#[test]
fn an_upload_is_limited_as_well() {
    let small = rule(Modality::Audio, MediaRule { max_item_bytes: Some(1000), ..MediaRule::default() });
    let head = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n";
    let body = [head.as_bytes(), TONE, b"\r\n--xyz--\r\n"].concat();
    let form = Some("multipart/form-data; boundary=xyz");
    let shown = small.ask("/v1/audio/transcriptions", &body, form);
    assert!(shown.starts_with("media_item_too_large at file"), "{shown}");
    assert_eq!(Check::default().ask("/v1/audio/transcriptions", &body, form), "taken");
}

/// GHSA-6pr9-rp53-2pmc: a small file of compressed audio is hours of samples.
#[test]
fn seconds_are_limited() {
    let short = rule(Modality::Audio, MediaRule { max_seconds: Some(1), ..MediaRule::default() });
    let long = rule(Modality::Audio, MediaRule { max_seconds: Some(2), ..MediaRule::default() });
    short.chat(&inline("audio_url", TONE), "media_item_too_long");
    long.chat(&inline("audio_url", TONE), "taken");
    long.chat(r#"{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}"#, "media_unreadable");
    let films = rule(Modality::Video, MediaRule { max_seconds: Some(1), ..MediaRule::default() });
    films.chat(&inline("video_url", CLIP), "media_item_too_long");
}

/// CVE-2026-22773: a picture one pixel wide; and pictures of a few bytes and many pixels.
#[test]
fn pixels_and_thin_strips_are_limited() {
    let pixels = |max, min| rule(Modality::Image, MediaRule { max_pixels: max, min_side: min, ..MediaRule::default() });
    pixels(Some(112 * 84), None).chat(&inline("image_url", PICTURE), "taken");
    pixels(Some(112 * 84 - 1), None).chat(&inline("image_url", PICTURE), "media_size_not_allowed");
    pixels(None, Some(84)).chat(&inline("image_url", PICTURE), "taken");
    pixels(None, Some(85)).chat(&inline("image_url", PICTURE), "media_size_not_allowed");
    pixels(Some(1), None).chat(&inline("image_url", b"no picture at all"), "media_unreadable");
}

#[test]
fn formats_are_limited_by_content_and_not_by_name() {
    let png = rule(Modality::Image, MediaRule { formats: vec![Format::Png, Format::Jpeg], ..MediaRule::default() });
    png.chat(&inline("image_url", PICTURE), "taken");
    let lying = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(CLIP));
    png.chat(
        &url(&lying),
        r#"media_format_not_allowed at messages[0].content[1]: model "m" accepts image as PNG, JPEG, not MP4"#,
    );
    png.chat(&url("data:image/png;base64,AAAA"), "media_format_not_allowed");
}

/// CVE-2026-34755: frames without end in `video/jpeg`.
#[test]
fn lists_of_frames_are_off() {
    let frames = r#"{"type":"video_url","video_url":{"url":"data:video/jpeg;base64,AAAA,AAAA"}}"#;
    Check::default().chat(frames, "unsafe_feature at messages[0].content[1]");
    allow(UnsafeFeature::FrameLists).chat(frames, "taken");
}

/// CVE-2026-105758: `media_io_kwargs` of a request, by way of /tokenize too.
#[test]
fn arguments_for_the_processor_are_off() {
    let body = br#"{"model":"m","prompt":"x","media_io_kwargs":{"video":{"num_frames":100000}}}"#;
    for path in ["/tokenize", "/v1/chat/completions"] {
        assert!(Check::default().ask(path, body, None).starts_with("unsafe_feature at media_io_kwargs"));
        assert_eq!(allow(UnsafeFeature::ProcessorArguments).ask(path, body, None), "taken");
    }
}

/// CVE-2026-44222, PYSEC-2026-4353: placeholder tokens in text.
#[test]
fn placeholders_are_off_for_models_that_have_them() {
    let text = r#"{"type":"text","text":"<|vision_start|><|image_pad|><|vision_end|>"}"#;
    let of = |family| Check { family, ..Check::default() };
    of(Some(Family::Qwen2Vl)).chat(text, "unsafe_feature: ");
    of(None).chat(text, "unsafe_feature: ");
    of(Some(Family::Gemma3)).chat(text, "taken");
    // Its template writes a place of its own for the picture, and the engine would bind the picture to the stranger's.
    of(Some(Family::Qwen2Vl)).chat(&format!("{text},{}", url("https://example.com/a.png")), "unsafe_feature: ");
    allow(UnsafeFeature::PlaceholderTokens).chat(text, "taken");
    let tools = br#"{"model":"m","messages":[],"tools":[{"function":{"description":"<|image_pad|>"}}]}"#;
    assert!(of(Some(Family::Qwen2Vl)).ask("/v1/chat/completions", tools, None).starts_with("unsafe_feature"));
}

/// CVE-2025-62164, CVE-2026-56340: tensors that nobody checked.
#[test]
fn tensors_are_off() {
    for part in [
        r#"{"type":"image_embeds","image_embeds":"AAAA"}"#,
        r#"{"type":"audio_embeds","audio_embeds":{"a":"AAAA"}}"#,
        r#"{"type":"video_embeds","video_embeds":"AAAA"}"#,
        r#"{"type":"prompt_embeds","prompt_embeds":"AAAA"}"#,
        r#"{"type":"prompt_embeds","data":"AAAA"}"#,
    ] {
        Check::default().chat(part, "unsafe_feature at messages[0].content[1]");
        allow(UnsafeFeature::Embeds).chat(part, "taken");
    }
    let body = br#"{"model":"m","prompt_embeds":"AAAA"}"#;
    assert!(Check::default().ask("/v1/completions", body, None).starts_with("unsafe_feature at prompt_embeds"));
}

/// CVE-2026-115912, PYSEC-2026-4353: inner forms of the engine; `image_pil` opens files (seen with vLLM 0.32).
#[test]
fn inner_forms_of_the_engine_are_off() {
    let body = br#"{"model":"m","token_ids":[1],"features":{"kwargs_data":{}}}"#;
    assert!(Check::default().ask("/inference/v1/generate", body, None).starts_with("unsafe_feature at features"));
    Check::default().chat(r#"{"type":"image_pil","image_pil":"/etc/passwd"}"#, "unsafe_feature");
}

/// vLLM reads files for whoever asks, once `--allowed-local-media-path` is set.
#[test]
fn files_of_the_server_are_off() {
    Check::default().chat(&url("file:///etc/passwd"), "unsafe_feature at messages[0].content[1]");
    allow(UnsafeFeature::FileUrls).chat(&url("file:///data/a.png"), "taken");
}

/// CVE-2025-46722: a hash that did not hold all of a picture.
#[test]
fn pictures_that_differ_in_a_byte_are_different() {
    let identity = |bytes: &[u8]| {
        let body = format!(r#"{{"messages":[{{"content":[{}]}}]}}"#, inline("image_url", bytes));
        let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
        let mut scanner = Scanner::new(&head, Limits::default()).unwrap();
        scanner.feed(body.as_bytes()).unwrap();
        scanner.finish().unwrap().media[0].identity
    };
    let mut other = PICTURE.to_vec();
    other[20] ^= 1;
    assert_ne!(identity(PICTURE), identity(&other));
}

/// A header may be sound before the break, and claim little.
#[test]
fn broken_base64_is_refused_and_so_are_several_strings_in_one_part() {
    let whole = BASE64_STANDARD.encode(TONE);
    let broken =
        format!(r#"{{"type":"audio_url","audio_url":{{"url":"data:;base64,{}*{}"}}}}"#, &whole[..400], &whole[400..]);
    Check::default().chat(&broken, "media_unreadable at messages[0].content[1]");
    let picture = BASE64_STANDARD.encode(PICTURE);
    let both = format!(r#"{{"image_url":{{"url":"https://example.com/","data":"data:;base64,{picture}"}}}}"#);
    Check::default().chat(&both, "media_url_not_allowed at messages[0].content[1]");
}

#[test]
fn a_pool_that_nobody_declared_anything_of_is_guarded_too() {
    let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default()).unwrap();
    let body = format!(r#"{{"model":"q","messages":[{{"content":[{}]}}]}}"#, url("http://10.0.0.1/"));
    scanner.feed(body.as_bytes()).unwrap();
    let rejection = check_undeclared(&scanner.finish().unwrap(), &[]).unwrap_err();
    assert_eq!(rejection.code(), Code::MediaHostNotAllowed);
}

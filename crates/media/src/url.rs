//! URLs that a model server would be asked to fetch from, read once and strictly.
//!
//! Two readers that disagree about a URL are how requests reach hosts that a list forbids (CVE-2026-24779: a backslash). So whatever
//! readers are known to disagree on is a fault, and no URL with a fault passes.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{Identity, Reach};

/// A URL that every reader reads alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaUrl {
    pub scheme: Scheme,
    /// In lower case; an IPv6 address without brackets.
    pub host: String,
    pub reach: Reach,
    pub identity: Identity,
    /// The same without what signs it, where anything does: for objects that never change, signed anew for whoever asks.
    pub unsigned: Option<Identity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    Http,
    Https,
}

/// Why a URL is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum UrlFault {
    #[error("it is a file: URL, which would be read from the model server's own disk")]
    File,
    #[error("its scheme is not http, https or data")]
    Scheme,
    #[error("it is neither an http(s) URL, nor a data: URL, nor base64 of a known media format")]
    Unclear,
    #[error("it begins with data: and has no comma in its first {MAX_HEADER} bytes")]
    Header,
    #[error("it is longer than {MAX_URL} bytes")]
    TooLong,
    #[error("it contains a control character, a space or a backslash")]
    OddCharacter,
    #[error("it contains a user name")]
    UserInfo,
    #[error("its host is missing or malformed")]
    Host,
    #[error("its port is not a number from 1 to 65535")]
    Port,
    #[error("this part has several URLs, and it is unclear which one a model server would use")]
    Several,
}

/// A `data:` header is short; a longer one may be read by one reader and not by another.
pub(crate) const MAX_HEADER: usize = 512;

/// Longest URL that is taken. Signed ones of object stores have some 2 KB.
pub(crate) const MAX_URL: usize = 8192;

impl UrlFault {
    pub const ALL: [Self; 10] = [
        Self::File,
        Self::Scheme,
        Self::Unclear,
        Self::Header,
        Self::TooLong,
        Self::OddCharacter,
        Self::UserInfo,
        Self::Host,
        Self::Port,
        Self::Several,
    ];

    /// A word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Scheme => "scheme",
            Self::Unclear => "unclear",
            Self::Header => "header",
            Self::TooLong => "too_long",
            Self::OddCharacter => "odd_character",
            Self::UserInfo => "user_info",
            Self::Host => "host",
            Self::Port => "port",
            Self::Several => "several",
        }
    }
}

impl MediaUrl {
    /// One that somebody else has read.
    pub fn of_parts(scheme: Scheme, host: String, identity: Identity, unsigned: Option<Identity>) -> Self {
        Self { scheme, reach: Reach::of_host(&host), host, identity, unsigned }
    }

    /// Reads a URL. It must begin with `http:` or `https:` in any case.
    pub fn parse(url: &[u8]) -> Result<Self, UrlFault> {
        if url.len() > MAX_URL {
            return Err(UrlFault::TooLong);
        }
        let url = std::str::from_utf8(url).map_err(|_| UrlFault::OddCharacter)?;
        if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'\\') {
            return Err(UrlFault::OddCharacter);
        }
        let (scheme, rest) = url.split_once(':').ok_or(UrlFault::Scheme)?;
        let scheme = match &*scheme.to_ascii_lowercase() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "file" => return Err(UrlFault::File),
            _ => return Err(UrlFault::Scheme),
        };
        let rest = rest.strip_prefix("//").ok_or(UrlFault::Host)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlFault::UserInfo);
        }
        let (host, port) = host_and_port(authority)?;
        let port = port.filter(|port| *port != scheme.default_port());
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let identity = |path: &str| Identity::of_url(&format!("{scheme}://{host}{port}{slash}{path}"));
        let (identity, unsigned) = (identity(path), unsigned(path).map(|path| identity(&path)));
        Ok(Self { scheme, reach: Reach::of_host(&host), host, identity, unsigned })
    }
}

/// Parameters that sign a URL, or say for whom and until when: of Amazon S3 and those that speak as it does (both versions), Google Cloud Storage,
/// Azure Storage (its SAS), and `CloudFront`. In lower case.
const SIGNING: [&str; 27] = [
    "awsaccesskeyid",
    "expires",
    "googleaccessid",
    "key-pair-id",
    "policy",
    "se",
    "sig",
    "signature",
    "sip",
    "ske",
    "skoid",
    "sks",
    "skt",
    "sktid",
    "skv",
    "sp",
    "spr",
    "sr",
    "srt",
    "ss",
    "st",
    "sv",
    "saoid",
    "suoid",
    "scid",
    "sdd",
    "si",
];
const SIGNING_BEGINNINGS: [&str; 2] = ["x-amz-", "x-goog-"];

/// Without these nothing is signed, whatever else a URL calls `policy` or `st`.
const SIGNATURES: [&str; 4] = ["signature", "sig", "x-amz-signature", "x-goog-signature"];

/// A path and its query without what signs it; none where nothing does.
fn unsigned(path: &str) -> Option<String> {
    let (path, query) = path.split_once('?')?;
    let name = |parameter: &str| parameter.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let parameters = || query.split('&');
    if !parameters().any(|parameter| SIGNATURES.contains(&&*name(parameter))) {
        return None;
    }
    let signs = |parameter: &&str| {
        let name = name(parameter);
        SIGNING.contains(&&*name) || SIGNING_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
    };
    let rest: Vec<&str> = parameters().filter(|parameter| !signs(parameter)).collect();
    Some(if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) })
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), UrlFault> {
    let authority = authority.to_ascii_lowercase();
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(UrlFault::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| UrlFault::Host)?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(UrlFault::Host)?) };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = authority.split_once(':').map_or((&*authority, None), |(host, port)| (host, Some(port)));
            (name_or_v4(host)?, port)
        }
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port
        .map(|port| {
            if digits(port) {
                port.parse().ok().filter(|port| *port > 0).ok_or(UrlFault::Port)
            } else {
                Err(UrlFault::Port)
            }
        })
        .transpose()?;
    Ok((host, port))
}

/// A name of letters, digits, hyphens and underscores, or an IPv4 address in its one usual spelling. `2130706433`, `0x7f.1` and `127.1`
/// are addresses to some readers and names to others (WHATWG's URL standard, "ends in a number").
fn name_or_v4(host: &str) -> Result<String, UrlFault> {
    let sound = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if host.len() > 253 || !host.split('.').all(sound) {
        return Err(UrlFault::Host);
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if numeric {
        // The standard parser takes four decimal numbers without leading zeros and nothing else.
        return host.parse::<Ipv4Addr>().map(|address| address.to_string()).map_err(|_| UrlFault::Host);
    }
    Ok(host.to_owned())
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn host(url: &str, expected: Result<&str, UrlFault>) {
        let parsed = MediaUrl::parse(url.as_bytes());
        assert_eq!(parsed.as_ref().map(|url| &*url.host).map_err(|fault| *fault), expected, "{url}");
    }

    #[test]
    fn usual_urls_are_read() {
        host("https://Img.Example.com:8443/a.png?x=1#y", Ok("img.example.com"));
        host("HTTP://example.com", Ok("example.com"));
        host("https://example.com?q=/@", Ok("example.com"));
        host("http://[FD00::1]:80/x", Ok("fd00::1"));
        host("http://10.0.0.7/é", Ok("10.0.0.7"));
        host("https://my_bucket.s3.amazonaws.com/a", Ok("my_bucket.s3.amazonaws.com"));
    }

    #[test]
    fn whatever_readers_disagree_on_is_a_fault() {
        for (url, fault) in [
            ("https://good.com@evil.com/x", UrlFault::UserInfo),
            ("https://user:pw@good.com/", UrlFault::UserInfo),
            (r"https://good.com\evil.com/x", UrlFault::OddCharacter),
            ("https://good.com/a b", UrlFault::OddCharacter),
            (" https://good.com/", UrlFault::OddCharacter),
            ("https://good.com/\u{7f}", UrlFault::OddCharacter),
            ("https:/good.com", UrlFault::Host),
            ("https:good.com", UrlFault::Host),
            ("https:///x", UrlFault::Host),
            ("https://ex%61mple.com/", UrlFault::Host),
            ("https://exämple.com/", UrlFault::Host),
            ("https://example.com./", UrlFault::Host),
            ("http://2130706433/", UrlFault::Host),
            ("http://0x7f000001/", UrlFault::Host),
            ("http://127.1/", UrlFault::Host),
            ("http://0177.0.0.1/", UrlFault::Host),
            ("http://[::1", UrlFault::Host),
            ("http://[::1]x/", UrlFault::Host),
            ("http://[fe80::1%25eth0]/", UrlFault::Host),
            ("http://a:b:c/", UrlFault::Port),
            ("http://a.com:/", UrlFault::Port),
            ("http://a.com:0/", UrlFault::Port),
            ("http://a.com:65536/", UrlFault::Port),
            ("http://a.com:+80/", UrlFault::Port),
            ("file:///etc/passwd", UrlFault::File),
            ("gopher://a.com/", UrlFault::Scheme),
        ] {
            host(url, Err(fault));
        }
    }

    #[test]
    fn what_signs_a_url_is_told_from_what_it_names() {
        let of = |url: &str| MediaUrl::parse(url.as_bytes()).unwrap();
        let plain = of("https://b.s3.amazonaws.com/cat.png");
        assert_eq!(plain.unsigned, None);
        for signed in [
            "https://b.s3.amazonaws.com/cat.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=me&X-Amz-Date=1&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=ab",
            "https://b.s3.amazonaws.com/cat.png?AWSAccessKeyId=me&Expires=1&Signature=ab%2B",
            "https://b.s3.amazonaws.com/cat.png?x-goog-algorithm=a&X-Goog-Signature=1",
            "https://b.s3.amazonaws.com/cat.png?sv=2024&sr=b&st=1&se=2&sp=r&sig=ab#top",
            "https://b.s3.amazonaws.com/cat.png?Expires=1&Key-Pair-Id=2&Policy=3&Signature=ab",
        ] {
            let signed = of(signed);
            assert_eq!(signed.unsigned, Some(plain.identity));
            assert_ne!(signed.identity, plain.identity);
        }
        let version = |number: u8, signature: u8| {
            of(&format!("https://b.example/cat.png?versionId={number}&X-Amz-Signature={signature}")).unsigned
        };
        assert_eq!(version(1, 1), version(1, 2));
        assert_ne!(version(1, 1), version(2, 1), "what names another object stays");
        assert_eq!(of("https://b.example/search?policy=1&st=2&expires=3").unsigned, None, "nothing signs it");
    }

    #[test]
    fn spellings_of_one_url_are_one_identity() {
        let identity = |url: &str| MediaUrl::parse(url.as_bytes()).unwrap().identity;
        assert_eq!(identity("https://Example.com"), identity("HTTPS://example.com:443/#top"));
        assert_ne!(identity("https://example.com/a"), identity("https://example.com/A"));
        assert_ne!(identity("https://example.com/"), identity("http://example.com/"));
        assert_ne!(identity("https://example.com/?a"), identity("https://example.com/?b"));
    }
}

//! The way to the controller: its addresses, the CA that vouches for it, and the token that says who we are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Uri;
use publish::Access;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

/// Where controllers may be, and what is needed to talk to them. Of several, the one that leads takes pickers; the others refuse.
#[derive(Debug)]
pub(crate) struct Controllers {
    urls: Vec<Uri>,
    ca: Option<PathBuf>,
    token: Option<PathBuf>,
    /// Which was asked last.
    last: Option<usize>,
    /// How many were asked in this round.
    asked: usize,
}

impl Controllers {
    /// Fails on URLs that would carry tables and tokens in clear text over a network.
    pub(crate) fn new(urls: &[String], ca: Option<PathBuf>, token: Option<PathBuf>) -> Result<Self> {
        let urls = urls
            .iter()
            .map(|url| {
                let uri: Uri = url.parse().with_context(|| format!("--controller {url:?} is not a URL"))?;
                match uri.scheme_str() {
                    Some("https") if ca.is_some() => {}
                    Some("https") => bail!("--controller {url}: https needs --controller-ca, the CA that vouches for it"),
                    Some("http") if is_loopback(&uri) => {}
                    Some("http") => bail!(
                        "--controller {url}: plain text is for loopback only; use https and --controller-ca, or tables and \
                         this picker's token can be read in transit"
                    ),
                    _ => bail!("--controller {url:?} must begin with https:// (or http:// on loopback)"),
                }
                Ok(uri)
            })
            .collect::<Result<Vec<_>>>()?;
        if urls.is_empty() {
            bail!("--controller is empty");
        }
        Ok(Self { urls, ca, token, last: None, asked: 0 })
    }

    /// The way to the next one, or the same again. Files are read each time: CAs and tokens are replaced while we run.
    pub(crate) fn access(&mut self, again: bool) -> Result<Access, String> {
        let turn = self.last.map_or(0, |last| if again { last } else { (last + 1) % self.urls.len() });
        self.last = Some(turn);
        self.asked = if again { 1 } else { self.asked % self.urls.len() + 1 };
        let url = self.urls[turn].clone();
        let secure = url.scheme_str() == Some("https");
        let mut endpoint = Endpoint::from(url)
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        if let Some(ca) = self.ca.as_deref().filter(|_| secure) {
            let ca = Certificate::from_pem(read("--controller-ca", ca)?);
            let tls = ClientTlsConfig::new().ca_certificate(ca);
            endpoint = endpoint.tls_config(tls).map_err(|error| format!("--controller-ca: {error}"))?;
        }
        let token = self.token.as_deref().map(|token| read("--token-file", token)).transpose()?;
        let token = token.map(|token| token.trim().to_owned());
        Ok(Access { channel: endpoint.connect_lazy(), token, others: self.asked < self.urls.len() })
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn read(flag: &str, path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{flag} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, ca: Option<&str>, expected: Option<&str>) {
        let made = Controllers::new(&[url.to_owned()], ca.map(PathBuf::from), None);
        match (made, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => assert!(format!("{error:#}").contains(part), "{url}: {error:#}"),
            (made, expected) => panic!("{url}: {made:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn clear_text_is_for_loopback_alone() {
        check("http://127.0.0.1:9004", None, None);
        check("http://[::1]:9004", None, None);
        check("http://localhost:9004", None, None);
        check("http://thalamus-controller.thalamus-system:9004", None, Some("plain text is for loopback only"));
        check("http://127.0.0.1.example.com:9004", None, Some("plain text is for loopback only"));
        check("https://controller:9004", None, Some("needs --controller-ca"));
        check("https://controller:9004", Some("/ca.crt"), None);
        check("controller:9004", None, Some("must begin with https://"));
    }

    #[tokio::test]
    async fn the_one_that_spoke_last_is_asked_again_first() {
        let urls = [1, 2, 3].map(|port| format!("http://127.0.0.1:{port}"));
        let mut controllers = Controllers::new(&urls, None, None).unwrap();
        let asked = [false, false, true, false, false].map(|again| {
            let others = controllers.access(again).unwrap().others;
            (controllers.last.unwrap(), others)
        });
        assert_eq!(asked, [(0, true), (1, true), (1, true), (2, true), (0, false)]);
    }

    #[tokio::test]
    async fn files_are_read_for_each_session_and_named_when_missing() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        let urls = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()];
        let mut controllers = Controllers::new(&urls, None, Some(token.clone())).unwrap();
        assert!(controllers.access(false).unwrap_err().starts_with("--token-file "));
        for written in ["one", "two"] {
            std::fs::write(&token, format!("{written}\n")).unwrap();
            assert_eq!(controllers.access(false).unwrap().token.as_deref(), Some(written));
        }
    }
}

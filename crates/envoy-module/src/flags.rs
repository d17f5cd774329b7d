//! The flags in `filter_config`: those of `thalamus-picker`, or a picker to ask.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use http::Uri;
use picker::Args;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

#[derive(Debug, Parser)]
#[command(name = "thalamus", args_override_self = true)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) picker: Args,

    /// Ask the picker at this URL where requests go, at its port for gateways: its tables and its load decide. Without this flag they are
    /// decided in Envoy.
    #[arg(long)]
    ask: Option<String>,

    /// The CA that vouches for that picker, in PEM.
    #[arg(long, requires = "ask")]
    ask_ca: Option<PathBuf>,
}

impl Flags {
    /// The way to the picker that is to be asked.
    pub(crate) fn way(&self) -> Result<Option<Endpoint>> {
        let Some(url) = &self.ask else { return Ok(None) };
        if self.picker.names_a_controller() {
            bail!("--ask and --controller exclude each other: the picker that is asked has the controller's tables");
        }
        let uri: Uri = url.parse().with_context(|| format!("--ask {url:?} is not a URL"))?;
        let mut endpoint = Endpoint::from(uri.clone())
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        match (uri.scheme_str(), &self.ask_ca) {
            (Some("http"), None) => {}
            (Some("http"), Some(_)) => bail!("--ask-ca is for https"),
            (Some("https"), Some(ca)) => {
                let pem = std::fs::read_to_string(ca).with_context(|| format!("--ask-ca {}", ca.display()))?;
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                endpoint = endpoint.tls_config(tls).context("--ask-ca")?;
            }
            (Some("https"), None) => bail!("--ask {url}: https needs --ask-ca, the CA that vouches for the picker"),
            _ => bail!("--ask {url:?} must begin with http:// or https://"),
        }
        Ok(Some(endpoint))
    }
}

/// What `filter_config` holds: Envoy hands a string as it is, and Envoy Gateway as JSON.
pub(crate) fn unquoted(config: &[u8]) -> String {
    let quoted = serde_json::from_slice::<String>(config);
    quoted.unwrap_or_else(|_| String::from_utf8_lossy(config).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(flags: &str) -> Result<Option<Endpoint>, String> {
        let flags = Flags::try_parse_from(std::iter::once("thalamus").chain(flags.split_whitespace()));
        flags.map_err(|error| error.to_string())?.way().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_picker_is_asked_over_what_can_be_trusted() {
        assert!(way("--controller=http://127.0.0.1:1").unwrap().is_none());
        assert!(way("--ask=http://picker:9002").unwrap().is_some());
        for (flags, why) in [
            ("--ask=https://picker:9002", "needs --ask-ca"),
            ("--ask=picker:9002", "must begin with"),
            ("--ask=http://picker --controller=http://127.0.0.1:1", "exclude each other"),
            ("--ask=https://picker --ask-ca=/nowhere", "/nowhere"),
            ("--ask-ca=/nowhere", "--ask"),
        ] {
            let said = way(flags).unwrap_err();
            assert!(said.contains(why), "{flags}: {said}");
        }
    }

    #[test]
    fn flags_may_come_as_json() {
        assert_eq!(unquoted(b"--ask=http://a --x"), "--ask=http://a --x");
        assert_eq!(unquoted(br#""--ask=http://a\n--x""#), "--ask=http://a\n--x");
    }
}

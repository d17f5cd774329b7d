//! Where a model server is.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use routing::AppProtocol;

/// A model server by its host and port, and how it speaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    authority: Authority,
    pub protocol: AppProtocol,
}

/// Why something is not the address of a model server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is not the address of a model server: {why}")]
pub struct BadServer {
    address: String,
    why: &'static str,
}

impl Server {
    pub fn at(address: SocketAddr, protocol: AppProtocol) -> Self {
        let authority = Authority::try_from(address.to_string());
        Self { authority: authority.unwrap_or_else(|_| unreachable!("an address is a host and a port")), protocol }
    }

    /// Its host; one of IPv6 without brackets.
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(80)
    }

    pub(crate) fn uri(&self, path: &'static str) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        Uri::from_parts(parts).expect("scheme, host and path make a URI")
    }
}

/// `http://host:8000`, `host:8000`, or the base URL that clients of OpenAI's have, which ends in `/v1`.
impl FromStr for Server {
    type Err = BadServer;

    fn from_str(address: &str) -> Result<Self, BadServer> {
        let bad = |why| BadServer { address: address.to_owned(), why };
        let rest = match address.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(bad("model servers are asked in clear text; give the http:// address inside"));
            }
            Some(_) => return Err(bad("expected http://HOST:PORT")),
            None => address,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let rest = rest.strip_suffix("/v1").unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(bad("a model server is at the root of its host and port, http://HOST:PORT"));
        }
        if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad("expected http://HOST:PORT, as localhost:8000"));
        }
        let authority: Authority = rest.parse().map_err(|_| bad("expected http://HOST:PORT"))?;
        if authority.as_str().contains('@') {
            return Err(bad("give an API key with --api-key, not in the address"));
        }
        if authority.host().is_empty() || (authority.port().is_none() && authority.as_str() != authority.host()) {
            return Err(bad("expected http://HOST:PORT"));
        }
        Ok(Self { authority, protocol: AppProtocol::Http })
    }
}

/// `host:port`.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.authority.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_people_write_it() {
        for (written, is) in [
            ("http://localhost:8000", "localhost:8000"),
            ("localhost:8000", "localhost:8000"),
            ("http://10.0.0.7:8000/", "10.0.0.7:8000"),
            ("http://vision:8000/v1", "vision:8000"),
            ("http://vision:8000/v1/", "vision:8000"),
            ("http://[::1]:8000", "[::1]:8000"),
            ("vision", "vision"),
        ] {
            assert_eq!(written.parse::<Server>().unwrap().to_string(), is, "{written}");
        }
        let local: Server = "[::1]".parse().unwrap();
        assert_eq!(
            (local.host(), local.port(), local.uri("/health").to_string()),
            ("::1", 80, "http://[::1]/health".into())
        );
    }

    #[test]
    fn what_is_no_address_is_said_to_be_none() {
        for (written, why) in [
            ("https://vision:8000", "clear text"),
            ("ftp://vision", "expected http://"),
            ("http://vision:8000/models/a", "root"),
            ("http://vision:8000?x=1", "root"),
            ("http://user:pw@vision", "--api-key"),
            ("http://", "expected http://"),
            ("vision:port", "expected http://"),
            ("8000", "localhost:8000"),
            ("vision:", "expected http://"),
            ("a b", "expected http://"),
        ] {
            let error = written.parse::<Server>().unwrap_err().to_string();
            assert!(error.contains(why), "{written}: {error}");
        }
    }
}

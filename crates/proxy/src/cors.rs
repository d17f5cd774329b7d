//! Cross-origin requests from browsers (<https://fetch.spec.whatwg.org/#http-cors-protocol>): off unless origins are named.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};

/// The origins that may ask.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    origins: Vec<String>,
}

impl Cors {
    /// `*` is every origin; none turns cross-origin requests off.
    pub fn new(origins: Vec<String>) -> Self {
        Self { origins }
    }

    /// What `access-control-allow-origin` says to this request; nothing to one that has no origin or a wrong one.
    pub(crate) fn allows(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let named = self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
        if self.origins.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        named.then(|| origin.clone())
    }

    /// The answer to a preflight request, if this is one and its origin may ask.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<(StatusCode, HeaderMap)> {
        if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut answer = HeaderMap::new();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.allows(headers)?);
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, DELETE"));
        let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or_else(|| HeaderValue::from_static("*")));
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        answer.insert(VARY, HeaderValue::from_static("origin"));
        Some((StatusCode::NO_CONTENT, answer))
    }

    /// Marks an answer as one that the origin may read, or takes away whatever a model server says of that: some allow everybody.
    pub(crate) fn mark(allowed: Option<HeaderValue>, headers: &mut HeaderMap) {
        let said: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
        for name in said {
            headers.remove(name);
        }
        if let Some(allowed) = allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, "POST".parse().unwrap());
        headers
    }

    #[test]
    fn what_model_servers_say_of_origins_is_taken_away() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert("access-control-allow-credentials", HeaderValue::from_static("true"));
        Cors::mark(None, &mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn only_named_origins_may_ask() {
        let cors = Cors::new(vec!["https://app.example.com".into()]);
        let (status, answer) = cors.preflight(&Method::OPTIONS, &headers("https://app.example.com")).unwrap();
        assert_eq!(status, StatusCode::NO_CONTENT);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example.com");
        assert!(cors.preflight(&Method::OPTIONS, &headers("https://evil.example.com")).is_none());
        assert!(cors.preflight(&Method::POST, &headers("https://app.example.com")).is_none());
        assert!(Cors::default().preflight(&Method::OPTIONS, &headers("https://app.example.com")).is_none());
        assert_eq!(Cors::new(vec!["*".into()]).allows(&headers("https://x")).unwrap(), "*");
    }
}

//! What of a request passes to the model server.

use director::{HeaderChanges, Plan, Rejection, RunningAttempt, TRACEPARENT};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, ORIGIN, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};

/// Headers that speak of one connection (RFC 9110, section 7.6.1), beside those that `connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
];

/// Headers of a request that are said anew for the model server.
const NOT_FORWARDED: [HeaderName; 4] = [
    HOST,
    // Who may ask from a browser is decided here.
    ORIGIN,
    CONTENT_LENGTH,
    EXPECT,
];

/// The request as the endpoint of an attempt gets it.
pub(crate) fn to_model_server<B>(
    parts: &http::request::Parts,
    plan: &Plan,
    attempt: &RunningAttempt,
    body: B,
) -> Result<Request<B>, Rejection> {
    let address = attempt.of(plan).address;
    let authority: Authority = address.to_string().parse().map_err(|_| Rejection::Unreachable { tried: 1 })?;
    let mut uri = Uri::default().into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    uri.path_and_query.clone_from(&parts.uri.clone().into_parts().path_and_query);
    if let Some(path) = uri.path_and_query.as_ref().and_then(|path| request::without_slash(path.as_str())) {
        uri.path_and_query = path.parse().ok();
    }
    if uri.path_and_query.is_none() {
        uri.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Rejection::Unreachable { tried: 1 })?;
    *request.headers_mut() = forwarded(&parts.headers, &plan.headers);
    if let Some(parent) = attempt.traceparent() {
        request.headers_mut().insert(TRACEPARENT, parent);
    }
    Ok(request)
}

/// Removes what ends at this hop. What the content is does not, whatever `connection` names: the body was read by it.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| name != CONTENT_TYPE)
        .collect();
    // Where both lengths are said this one holds (RFC 9112, section 6.3), and the other is not to be passed on.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// The headers of a request as the model server gets them.
fn forwarded(headers: &HeaderMap, changes: &HeaderChanges) -> HeaderMap {
    let mut headers = headers.clone();
    remove_hop_by_hop(&mut headers);
    for name in &NOT_FORWARDED {
        headers.remove(name);
    }
    let removed: Vec<HeaderName> =
        headers.keys().filter(|name| HeaderChanges::removes(name.as_str())).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
    headers.extend(changes.set.iter().cloned());
    headers
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_ends_here_does_not_pass_and_everything_else_does() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-mine, content-type"),
            ("content-type", "application/json"),
            ("x-mine", "1"),
            ("host", "evil/"),
            ("authorization", "Bearer t"),
            ("x-gateway-destination-endpoint", "6.6.6.6:80"),
            ("x_prefiller_host_port", "6.6.6.6:80"),
            ("content-length", "3"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let mine = (HeaderName::from_static("x-mine"), HeaderValue::from_static("2"));
        let changes = HeaderChanges { set: vec![mine] };
        let passed = forwarded(&headers, &changes);
        assert_eq!(passed["x-mine"], "2");
        let mut names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-type", "x-mine"]);
    }
}

//! Every code that an error can have, with its status and when it is given. `docs/errors.md` is written from this list.

use std::time::Duration;

use http::StatusCode;

/// Declares [`Code`]: one line for each, so that none lacks a word, a status or a meaning.
macro_rules! codes {
    ($($name:ident = $word:literal, $status:ident, $meaning:literal;)*) => {
        /// What is wrong, in a stable word: the `code` of an error and the label of a metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($name,)* }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// When it is given, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

codes! {
    InvalidBody = "invalid_body", BAD_REQUEST, "The body cannot be read: it is no JSON or no form, broken, nested too deep, names a field twice, or ends before its announced length.";
    InvalidPath = "invalid_path", BAD_REQUEST, "The path can be read in more than one way: empty or dotted segments, backslashes, control characters.";
    InvalidHost = "invalid_host", BAD_REQUEST, "The host header holds something other than a host and a port.";
    InvalidRequest = "invalid_request", BAD_REQUEST, "The head of the request can be read in more than one way: two lengths, a bare line feed, a control character.";
    ModelRequired = "model_required", BAD_REQUEST, "The request names no model, and models are what requests are routed by here.";
    UnsupportedModality = "unsupported_modality", BAD_REQUEST, "No target of the model takes what the request carries, or gives what it asks for.";
    UnsupportedOperation = "unsupported_operation", BAD_REQUEST, "No target of the model serves this path.";
    TooManyMediaItems = "too_many_media_items", BAD_REQUEST, "More items of a modality than `spec.media` allows.";
    MediaItemTooLarge = "media_item_too_large", BAD_REQUEST, "An item of more bytes than `spec.media` allows.";
    MediaSizeNotAllowed = "media_size_not_allowed", BAD_REQUEST, "An item of more pixels, or with a shorter side, than `spec.media` allows.";
    MediaItemTooLong = "media_item_too_long", BAD_REQUEST, "An item that lasts longer than `spec.media` allows.";
    MediaUnreadable = "media_unreadable", BAD_REQUEST, "The base64 of an item is broken; or `spec.media` limits pixels or seconds, and its header does not tell them.";
    MediaFormatNotAllowed = "media_format_not_allowed", BAD_REQUEST, "An item in a format that `spec.media` does not list.";
    MediaSourceNotAllowed = "media_source_not_allowed", BAD_REQUEST, "An item inline where only URLs are allowed, or the other way round.";
    MediaUrlNotAllowed = "media_url_not_allowed", BAD_REQUEST, "A URL that readers could read in two ways, or of a scheme that is not allowed.";
    MediaHostNotAllowed = "media_host_not_allowed", BAD_REQUEST, "A URL of a host that is not listed, or of a private one that is not allowed by name.";
    UnsafeFeature = "unsafe_feature", BAD_REQUEST, "Something that can harm a model server, and that the model's owner did not allow.";
    WebSocketNotHere = "websocket_not_here", BAD_REQUEST, "`/v1/realtime` was asked for without an upgrade to WebSocket, or over ext_proc; it is served by the picker's HTTP port.";
    UnknownPath = "unknown_path", NOT_FOUND, "Nothing is served under this path.";
    ModelNotFound = "model_not_found", NOT_FOUND, "No model of this name is declared, or, where one is asked about, none is served now.";
    ModelElsewhere = "model_elsewhere", NOT_FOUND, "The model takes this in a pool that this picker does not serve, as the message says which.";
    NothingServed = "nothing_served", NOT_FOUND, "No pool is served here.";
    JobNotFound = "job_not_found", NOT_FOUND, "This job is not known, or the model server that worked on it is gone.";
    ResponseNotFound = "response_not_found", NOT_FOUND, "The response that this follows, or asks for, is not known, or the model server that made it is gone or cannot take this.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The path is served with another method; `allow` names it.";
    BodyStalled = "body_stalled", REQUEST_TIMEOUT, "No more of the body came for too long.";
    BodyTooSlow = "body_too_slow", REQUEST_TIMEOUT, "The body was not complete in time.";
    RequestTooLarge = "request_too_large", PAYLOAD_TOO_LARGE, "The body is larger than is taken here.";
    UnsupportedContentType = "unsupported_content_type", UNSUPPORTED_MEDIA_TYPE, "The path does not take bodies of this type.";
    UnsupportedContentEncoding = "unsupported_content_encoding", UNSUPPORTED_MEDIA_TYPE, "Compressed bodies are not read: a picker that unpacks what strangers packed can be made to unpack without end.";
    HeadTooLarge = "request_head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of the request is larger than is taken here.";
    Saturated = "saturated", TOO_MANY_REQUESTS, "Every endpoint that could take this is full, and the model is sheddable.";
    GatewayMisconfigured = "gateway_misconfigured", INTERNAL_SERVER_ERROR, "The gateway sends bodies to the picker in a mode in which no answer can wait for them.";
    EndpointBrokeOff = "endpoint_broke_off", BAD_GATEWAY, "The model server broke off before it answered; it may have worked on the request.";
    EndpointTimedOut = "endpoint_timed_out", GATEWAY_TIMEOUT, "The model server began no answer within `firstByteTimeoutSeconds` of the model, or `--first-byte-timeout`; it may work on the request.";
    NoEndpoint = "no_endpoint", SERVICE_UNAVAILABLE, "No endpoint is ready for this.";
    EndpointUnreachable = "endpoint_unreachable", SERVICE_UNAVAILABLE, "None of the endpoints tried could be reached.";
    SearchUnfinished = "search_unfinished", SERVICE_UNAVAILABLE, "Not every model server that may have made the job or the response could be asked for it.";
    NotReady = "not_ready", SERVICE_UNAVAILABLE, "The picker has no routing table yet.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The picker holds as many bytes of bodies as it may.";
}

impl Code {
    /// When to try again, where trying again may help.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::NoEndpoint | Self::NotReady | Self::EndpointUnreachable => Some(Duration::from_secs(5)),
            Self::Saturated | Self::Overloaded | Self::SearchUnfinished => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// The `type` of the error in OpenAI's shape.
    pub fn openai_type(self) -> &'static str {
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The `type` of the error in Anthropic's shape: <https://docs.anthropic.com/en/api/errors>.
    pub const fn anthropic_type(self) -> &'static str {
        match self.status() {
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT | StatusCode::INTERNAL_SERVER_ERROR => "api_error",
            _ => "invalid_request_error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_of_one_kind() {
        for code in Code::ALL {
            let same = Code::ALL.iter().filter(|other| other.as_str() == code.as_str()).count();
            assert_eq!(same, 1, "{}", code.as_str());
            assert!(code.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", code.as_str());
            assert!(code.meaning().ends_with('.'), "{}", code.as_str());
        }
    }
}

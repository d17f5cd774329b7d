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
    InvalidBody = "invalid_body", BAD_REQUEST, "The body is not valid JSON or not a valid form: malformed, nested too deeply, with a duplicate field, or of another length than announced.";
    InvalidPath = "invalid_path", BAD_REQUEST, "The path is ambiguous: it has empty or dot segments, a trailing slash, backslashes or control characters.";
    InvalidHost = "invalid_host", BAD_REQUEST, "The host header is not a valid host and port.";
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request head is ambiguous: two lengths, a bare line feed, a control character.";
    ModelRequired = "model_required", BAD_REQUEST, "The request names no model, and requests are routed by model here.";
    UnsupportedModality = "unsupported_modality", BAD_REQUEST, "No target of the model accepts the request's input modalities, or produces the output that it asks for.";
    UnsupportedOperation = "unsupported_operation", BAD_REQUEST, "No target of the model serves this path.";
    TooManyMediaItems = "too_many_media_items", BAD_REQUEST, "More items of a modality than `spec.media` allows, or than any endpoint takes at once.";
    ContextLengthExceeded = "context_length_exceeded", BAD_REQUEST, "The prompt is longer than the context of every endpoint: by an estimate that is more than four times that. Nearer to the limit the model server decides, and says so itself.";
    MediaItemTooLarge = "media_item_too_large", BAD_REQUEST, "An item of more bytes than `spec.media` allows.";
    MediaSizeNotAllowed = "media_size_not_allowed", BAD_REQUEST, "An item of more pixels, or with a shorter side, than `spec.media` allows.";
    MediaItemTooLong = "media_item_too_long", BAD_REQUEST, "An item that lasts longer than `spec.media` allows.";
    MediaUnreadable = "media_unreadable", BAD_REQUEST, "An item is not valid base64; or `spec.media` limits pixels or seconds, and its header does not state them.";
    MediaFormatNotAllowed = "media_format_not_allowed", BAD_REQUEST, "An item in a format that `spec.media` does not list.";
    MediaSourceNotAllowed = "media_source_not_allowed", BAD_REQUEST, "An item inline where only URLs are allowed, or the other way round.";
    MediaUrlNotAllowed = "media_url_not_allowed", BAD_REQUEST, "An ambiguous URL, or one whose scheme is not allowed.";
    MediaHostNotAllowed = "media_host_not_allowed", BAD_REQUEST, "A URL whose host is not listed, or is private and not allowed by name.";
    UnsafeFeature = "unsafe_feature", BAD_REQUEST, "A feature that can harm a model server, and that the model's owner has not allowed.";
    WebSocketNotHere = "websocket_not_here", BAD_REQUEST, "`/v1/realtime` was requested without an upgrade to WebSocket, or over ext_proc; it is served by the picker's HTTP port.";
    UnknownPath = "unknown_path", NOT_FOUND, "Nothing is served under this path.";
    ModelNotFound = "model_not_found", NOT_FOUND, "No model of this name is declared; or, for `GET /v1/models/{id}`, it is not served now.";
    ModelElsewhere = "model_elsewhere", NOT_FOUND, "The pool that serves this request is not served by this picker; the message names it.";
    NothingServed = "nothing_served", NOT_FOUND, "No pool is served here.";
    JobNotFound = "job_not_found", NOT_FOUND, "The job is unknown, or the model server that ran it is gone.";
    ResponseNotFound = "response_not_found", NOT_FOUND, "The response that is continued or requested is unknown, or the model server that created it is gone or cannot serve this.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The path does not accept this method; the `allow` header lists those that it does.";
    BodyStalled = "body_stalled", REQUEST_TIMEOUT, "Nothing more of the body arrived for too long.";
    BodyTooSlow = "body_too_slow", REQUEST_TIMEOUT, "The body was not complete in time, or came too slowly while others needed the room.";
    RequestTooLarge = "request_too_large", PAYLOAD_TOO_LARGE, "The body is larger than the limit.";
    UnsupportedContentType = "unsupported_content_type", UNSUPPORTED_MEDIA_TYPE, "The path does not accept bodies of this content type.";
    UnsupportedContentEncoding = "unsupported_content_encoding", UNSUPPORTED_MEDIA_TYPE, "Compressed bodies are not supported: decompressing untrusted input can exhaust the picker.";
    HeadTooLarge = "request_head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request head is larger than the limit, or has too many headers.";
    Saturated = "saturated", TOO_MANY_REQUESTS, "Every endpoint that could serve this is saturated, and the request may be shed: its objective has a priority below zero, or, where it names none that is known, its model is Sheddable.";
    QueueFull = "queue_full", TOO_MANY_REQUESTS, "Every endpoint that could serve this is full, and so is the queue before them (`--max-waiting`), or, for a large body, half of the memory for bodies; or the request gave its place to one of higher priority.";
    QueueTimeout = "queue_timeout", TOO_MANY_REQUESTS, "Every endpoint that could serve this was full for longer than a request waits (`--max-wait`).";
    GatewayMisconfigured = "gateway_misconfigured", INTERNAL_SERVER_ERROR, "The gateway sends request bodies in a mode in which the picker must answer before it has seen them.";
    EndpointBrokeOff = "endpoint_broke_off", BAD_GATEWAY, "The model server closed the connection before its answer was complete; it may have processed the request.";
    EndpointTimedOut = "endpoint_timed_out", GATEWAY_TIMEOUT, "The model server did not begin to answer within the model's `firstByteTimeoutSeconds`, or `--first-byte-timeout`; it may still be processing the request.";
    NoEndpoint = "no_endpoint", SERVICE_UNAVAILABLE, "No endpoint is ready to serve this.";
    EndpointUnreachable = "endpoint_unreachable", SERVICE_UNAVAILABLE, "None of the endpoints tried could be reached.";
    SearchUnfinished = "search_unfinished", SERVICE_UNAVAILABLE, "Not every model server that may have made the job or the response could be asked for it.";
    NotReady = "not_ready", SERVICE_UNAVAILABLE, "The picker has no routing table yet.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The body does not fit in what the picker may hold at once (`--max-buffered-bytes`).";
}

impl Code {
    /// When to try again, where trying again may help and nothing is measured: see [`crate::Rejection::retry_after`].
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::NoEndpoint | Self::NotReady | Self::EndpointUnreachable => Some(Duration::from_secs(5)),
            Self::Overloaded | Self::SearchUnfinished => Some(Duration::from_secs(1)),
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

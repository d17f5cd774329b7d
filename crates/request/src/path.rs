//! What a path asks for. Gateways may put a prefix before it, so the end of the path decides.

use std::borrow::Cow;

use routing::Operation;

use crate::Unreadable;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// An operation on what the body carries.
    Operation(Operation),
    /// `GET /v1/models`: every model in scope; with `?all=true` also those that nobody serves now.
    Models { all: bool },
    /// `GET /v1/models/{id}`; `all` as above. Names may hold slashes.
    Model { id: String, all: bool },
    /// `/v1/videos/{id}` and what is below it: a job that only its maker knows.
    Job(String),
    /// A path by which model servers are managed, not used.
    Administrative,
    /// Any other path.
    Unknown,
}

/// Ends of paths, and what they ask for; of two that match the longer comes first.
const ENDS: [(&str, Operation); 21] = [
    ("/chat/completions", Operation::ChatCompletions),
    ("/completions", Operation::Completions),
    ("/responses", Operation::Responses),
    ("/messages/count_tokens", Operation::Messages),
    ("/messages", Operation::Messages),
    ("/embeddings", Operation::Embeddings),
    ("/pooling", Operation::Pooling),
    ("/classify", Operation::Classify),
    ("/score", Operation::Score),
    ("/rerank", Operation::Rerank),
    ("/audio/transcriptions", Operation::Transcriptions),
    ("/audio/translations", Operation::Translations),
    ("/audio/speech", Operation::Speech),
    ("/images/generations", Operation::ImageGenerations),
    ("/images/edits", Operation::ImageEdits),
    ("/videos/sync", Operation::Videos),
    ("/videos", Operation::Videos),
    ("/realtime", Operation::Realtime),
    ("/tokenize", Operation::Tokenize),
    ("/detokenize", Operation::Tokenize),
    ("/generate", Operation::Generate),
];

/// How words of the paths begin by which vLLM and SGLang are managed, and those that say what a server is made of. They are open even
/// where an API key is asked for (vLLM's key protects `/v1`, `/v2` and `/inference` alone). Verbs rather than names, because every release
/// has new ones.
const ADMINISTRATIVE: [&str; 50] = [
    "abort",
    "add_",
    "attach",
    "clear",
    "close",
    "collective",
    "configure",
    "continue",
    "debug",
    "delete_",
    "destroy",
    "detach",
    "docs",
    "dump",
    "evict",
    "fault",
    "finish",
    "flush",
    "freeze",
    "get_",
    "init",
    "invocations",
    "is_",
    "kill",
    "kv_event",
    "load",
    "metrics",
    "open_session",
    "openapi",
    "pause",
    "redoc",
    "release",
    "remove",
    "reset",
    "resume",
    "save",
    "scale",
    "server_info",
    "set_",
    "shutdown",
    "sleep",
    "slow_down",
    "start",
    "stop",
    "tokenizer_info",
    "unload",
    "update",
    "upload",
    "wake",
    "weight",
];

impl Resource {
    /// Reads a path with its query. What is percent-encoded is decoded once, as model servers do before they look.
    ///
    /// # Errors
    /// When readers may disagree on what the path names: empty or dotted segments, a slash at the end (vLLM answers that with a redirect
    /// to its own address), backslashes, control characters.
    pub fn of_path(path_and_query: &str) -> Result<Self, Unreadable> {
        // Nearly all are one of these to the letter.
        if let Some(end) = path_and_query.strip_prefix("/v1")
            && let Some((_, operation)) = ENDS.iter().find(|(known, _)| *known == end)
        {
            return Ok(Self::Operation(*operation));
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let path = percent_decoded(path);
        let odd = |byte: u8| byte <= b' ' || byte >= 0x7f || matches!(byte, b'\\' | b'?' | b'#');
        if path.bytes().any(odd) {
            return Err(Unreadable::OddPath);
        }
        let Some(relative) = path.strip_prefix('/') else { return Err(Unreadable::OddPath) };
        if relative.is_empty() {
            return Ok(Self::Unknown);
        }
        let mut rest = relative;
        let mut after_v1 = None;
        let mut before = "";
        loop {
            let (segment, more) = rest.split_once('/').map_or((rest, None), |(segment, more)| (segment, Some(more)));
            if matches!(segment, "" | "." | "..") {
                return Err(Unreadable::OddPath);
            }
            if before == "v1" && after_v1.is_none() {
                after_v1 = Some((segment, more));
            }
            let Some(more) = more else { break };
            (before, rest) = (segment, more);
        }
        let path = &path[..=relative.len()];
        Ok(Self::of_sound(path, after_v1, query))
    }

    /// Of a path without a slash at its end; what follows its first `v1` is the segment and what comes after.
    fn of_sound(path: &str, after_v1: Option<(&str, Option<&str>)>, query: &str) -> Self {
        match after_v1 {
            // Names may hold slashes, and even look like other paths.
            Some(("models", Some(id))) => return Self::Model { id: id.to_owned(), all: asks_for_all(query) },
            Some(("models", None)) => return Self::Models { all: asks_for_all(query) },
            Some(("videos", Some(rest))) if rest != "sync" => {
                return Self::Job(rest.split('/').next().unwrap_or_default().to_owned());
            }
            _ => {}
        }
        if let Some((_, operation)) = ENDS.iter().find(|(end, _)| path.ends_with(end)) {
            return Self::Operation(*operation);
        }
        let managed = |segment: &str| {
            let segment = segment.to_ascii_lowercase();
            ADMINISTRATIVE.iter().any(|word| segment.starts_with(word))
        };
        if path.split('/').any(managed) { Self::Administrative } else { Self::Unknown }
    }

    /// The methods that it is asked with.
    pub const fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Operation(Operation::Realtime) => &["GET"],
            Self::Operation(_) => &["POST"],
            Self::Models { .. } | Self::Model { .. } => &["GET", "HEAD"],
            Self::Job(_) => &["GET", "HEAD", "DELETE"],
            Self::Administrative | Self::Unknown => &[],
        }
    }

    pub const fn operation(&self) -> Operation {
        match self {
            Self::Operation(operation) => *operation,
            Self::Job(_) => Operation::Videos,
            Self::Models { .. } | Self::Model { .. } | Self::Administrative | Self::Unknown => Operation::Other,
        }
    }

    /// Whether a path speaks Anthropic's API, whose errors have a shape of their own; also one that is refused as odd.
    pub fn is_anthropic(path_and_query: &str) -> bool {
        let path = percent_decoded(path_and_query.split('?').next().unwrap_or_default());
        let path = path.trim_end_matches('/');
        path.ends_with("/messages") || path.ends_with("/messages/count_tokens")
    }
}

fn asks_for_all(query: &str) -> bool {
    parameter(query, "all").is_some_and(|all| all == "true" || all == "1")
}

/// A parameter of a query, decoded; the first of that name.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(key) == name).then(|| percent_decoded(&value.replace('+', " ")).into_owned())
    })
}

/// `%73` as `s`; what is no encoded byte stays as it is.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let encoded = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(encoded.unwrap_or(*first));
        rest = if encoded.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Resource) {
        assert_eq!(Resource::of_path(path), Ok(expected), "{path}");
    }

    #[test]
    fn the_end_of_the_path_decides() {
        use Operation::*;
        for (path, operation) in [
            ("/v1/chat/completions", ChatCompletions),
            ("/team-a/openai/v1/chat/completions?api-version=1", ChatCompletions),
            ("/v1/completions", Completions),
            ("/v1/chat/completion%73", ChatCompletions),
            ("/v1%2Fchat/completions", ChatCompletions),
            ("/v1/responses", Responses),
            ("/v1/messages", Messages),
            ("/v1/messages/count_tokens", Messages),
            ("/v1/audio/transcriptions", Transcriptions),
            ("/v1/images/edits", ImageEdits),
            ("/v1/videos", Videos),
            ("/v1/videos/sync", Videos),
            ("/v2/rerank", Rerank),
            ("/score", Score),
            ("/inference/v1/generate", Generate),
            ("/generate", Generate),
            ("/v1/realtime?model=x", Realtime),
        ] {
            check(path, Resource::Operation(operation));
        }
    }

    #[test]
    fn models_and_jobs_have_names() {
        check("/v1/models", Resource::Models { all: false });
        check("/v1/models?all=true", Resource::Models { all: true });
        check("/v1/models/Qwen/Qwen2-VL", Resource::Model { id: "Qwen/Qwen2-VL".into(), all: false });
        check("/v1/models/a%2Fscore?all=1", Resource::Model { id: "a/score".into(), all: true });
        check("/v1/videos/video_1", Resource::Job("video_1".into()));
        check("/v1/videos/video_1/content?variant=x", Resource::Job("video_1".into()));
    }

    #[test]
    fn anthropics_shape_holds_for_odd_paths_too() {
        for path in ["/v1/messages", "/v1//messages/?x", "/a/v1/messages/count_tokens"] {
            assert!(Resource::is_anthropic(path), "{path}");
        }
        assert!(!Resource::is_anthropic("/v1/chat/completions?x=/messages"));
    }

    #[test]
    fn what_manages_servers_is_told_from_what_is_unknown() {
        for path in [
            "/sleep",
            "/wake_up",
            "/v1/load_lora_adapter",
            "/collective_rpc",
            "/metrics",
            "/update_weights_from_disk",
            "/slee%70",
        ] {
            check(path, Resource::Administrative);
        }
        for path in ["/", "/health", "/v1/files", "/v1/rerank/x", "/100%/%zz%4", "/chat"] {
            check(path, Resource::Unknown);
        }
    }

    #[test]
    fn paths_that_readers_disagree_on_are_refused() {
        for path in [
            "",
            "v1/x",
            "/v1//chat/completions",
            "/v1/./completions",
            "/v1/../sleep",
            "/v1/%2e%2e/sleep",
            r"/v1\completions",
            "/v1/chat/completions/",
            "/v1/chat/completions%2f",
            "/v1/chat%00",
            "/v1/a%3fb",
            "/v1/é",
            "//",
        ] {
            assert_eq!(Resource::of_path(path), Err(Unreadable::OddPath), "{path}");
        }
    }
}

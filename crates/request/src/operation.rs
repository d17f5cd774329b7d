//! What a path asks for.

/// The operation that a request's path names. Gateways may put a prefix before it, so the end of the path decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    ChatCompletions,
    Completions,
    Embeddings,
    /// Any other path: routed by the `model` of its JSON body alone.
    Other,
}

impl Operation {
    /// Reads a path, with or without a query. What is percent-encoded is decoded, as model servers do before they look.
    pub fn of_path(path: &str) -> Self {
        let decoded = percent_decoded(path.split('?').next().unwrap_or(path));
        let path = decoded.trim_end_matches('/');
        if path.ends_with("/chat/completions") {
            Self::ChatCompletions
        } else if path.ends_with("/completions") {
            Self::Completions
        } else if path.ends_with("/embeddings") {
            Self::Embeddings
        } else {
            Self::Other
        }
    }

    /// A lower-case word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Other => "other",
        }
    }
}

/// `%73` as `s`; what is no encoded byte stays as it is.
fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let encoded = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(encoded.unwrap_or(*first));
        rest = if encoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_path_decides() {
        assert_eq!(Operation::of_path("/v1/chat/completions"), Operation::ChatCompletions);
        assert_eq!(Operation::of_path("/team-a/openai/v1/chat/completions/?api-version=1"), Operation::ChatCompletions);
        assert_eq!(Operation::of_path("/v1/completions"), Operation::Completions);
        assert_eq!(Operation::of_path("/v1/embeddings"), Operation::Embeddings);
        assert_eq!(Operation::of_path("/v1/chat/completion%73"), Operation::ChatCompletions);
        assert_eq!(Operation::of_path("/v1%2Fchat/completions%2f"), Operation::ChatCompletions);
        assert_eq!(Operation::of_path("/100%/%zz%4"), Operation::Other);
        assert_eq!(Operation::of_path("/v1/rerank?x=/chat/completions"), Operation::Other);
    }
}

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
    /// Reads a path, with or without a query.
    pub fn of_path(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_path_decides() {
        assert_eq!(Operation::of_path("/v1/chat/completions"), Operation::ChatCompletions);
        assert_eq!(Operation::of_path("/team-a/openai/v1/chat/completions/?api-version=1"), Operation::ChatCompletions);
        assert_eq!(Operation::of_path("/v1/completions"), Operation::Completions);
        assert_eq!(Operation::of_path("/v1/embeddings"), Operation::Embeddings);
        assert_eq!(Operation::of_path("/v1/rerank?x=/chat/completions"), Operation::Other);
    }
}

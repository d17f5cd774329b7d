//! What makes two media items the same.

use std::fmt;

/// Tells whether two items are the same one.
///
/// BLAKE3, because the value may leave the picker as a key of somebody's cache, where a collision would show one client's picture to
/// another (CVE-2025-46722 was of that kind).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Of the bytes of the item itself.
    Content([u8; 32]),
    /// Of its normalised URL. What the URL answers may change.
    Url([u8; 32]),
    /// Of the name that a client gave it (`uuid`, `file_id`), which means something only among this client's requests for the same model
    /// in the same namespace; see [`Identity::within`].
    Named([u8; 32]),
}

/// Where a client's own name for an item holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameScope<'a> {
    pub namespace: &'a str,
    pub model: &'a str,
    /// What the client authorizes by; empty where it does not, or where all clients share their names.
    pub caller: &'a [u8],
}

impl Identity {
    pub(crate) fn of_url(url: &str) -> Self {
        Self::Url(*blake3::hash(url.as_bytes()).as_bytes())
    }

    /// The identity of an item that a client named.
    pub fn of_name(name: &[u8]) -> Self {
        Self::Named(*blake3::hash(name).as_bytes())
    }

    /// A key for caches and affinity. A client's own name is kept apart per namespace, model and caller, so that nobody guesses
    /// another's.
    #[must_use]
    pub fn within(self, scope: NameScope<'_>) -> [u8; 32] {
        match self {
            Self::Content(hash) | Self::Url(hash) => hash,
            Self::Named(hash) => {
                let parts = [scope.namespace.as_bytes(), scope.model.as_bytes(), scope.caller];
                key_of("thalamus 2026 media named by a client", &parts, &hash)
            }
        }
    }

    /// A name for an item by its bytes, where it is used: the same whoever sends it, and none that somebody without the secret can give to another
    /// item. None where the bytes are not known.
    pub fn name_of_content(self, secret: u64, place: [&str; 4]) -> Option<[u8; 32]> {
        let Self::Content(hash) = self else { return None };
        let secret = secret.to_le_bytes();
        let [a, b, c, d] = place.map(str::as_bytes);
        Some(key_of("thalamus 2026 media named by their content", &[&secret, a, b, c, d], &hash))
    }
}

fn key_of(context: &str, parts: &[&[u8]], hash: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        // The length first, so that no two lists run into the same bytes.
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.update(hash).finalize().as_bytes()
}

/// The kind, and the first eight bytes in hexadecimal: enough to tell items apart in a log.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, hash) = match self {
            Self::Content(hash) => ("content", hash),
            Self::Url(hash) => ("url", hash),
            Self::Named(hash) => ("named", hash),
        };
        write!(f, "{kind}:")?;
        hash[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_name_is_kept_apart_per_namespace_model_and_caller() {
        let named = Identity::of_name(b"cat");
        let scope = |namespace, model, caller| NameScope { namespace, model, caller };
        let within = |namespace, model, caller: &'static [u8]| named.within(scope(namespace, model, caller));
        assert_eq!(within("a", "m", b"x"), within("a", "m", b"x"));
        assert_ne!(within("a", "m", b"x"), within("b", "m", b"x"));
        assert_ne!(within("a", "m", b"x"), within("a", "n", b"x"));
        assert_ne!(within("a", "m", b"x"), within("a", "m", b"y"));
        assert_ne!(within("ab", "c", b""), within("a", "bc", b""));
        assert_eq!(named.name_of_content(1, ["a", "p", "m", "image"]), None);
        let url = Identity::of_url("https://a/b");
        assert_eq!(url.name_of_content(1, ["a", "p", "m", "image"]), None, "what it answers may change");
        assert_eq!(url.within(scope("a", "m", b"x")), url.within(scope("b", "n", b"y")));
    }

    #[test]
    fn the_name_of_a_content_is_known_to_who_knows_the_secret_and_is_of_its_place() {
        let name = |byte, secret, place| Identity::Content([byte; 32]).name_of_content(secret, place);
        let film = name(1, 7, ["a", "p", "m", "video"]);
        assert!(film.is_some() && film == name(1, 7, ["a", "p", "m", "video"]));
        // Another film, another secret, another pool or model, and the same film to be heard.
        for (byte, secret, place) in [
            (2, 7, ["a", "p", "m", "video"]),
            (1, 8, ["a", "p", "m", "video"]),
            (1, 7, ["a", "q", "m", "video"]),
            (1, 7, ["a", "p", "n", "video"]),
            (1, 7, ["a", "p", "m", "audio"]),
        ] {
            assert_ne!(name(byte, secret, place), film);
        }
    }
}

//! What a request brings to a target's servers: its prompt as a chain of blocks, each known by all that stands before it, and its media.

use std::sync::Arc;

use media::{Identity, MediaUrl, NameScope};
use request::{InferenceRequest, MediaItem, Piece};
use routing::{Draw, Family, MediaPolicy, Modality, ModelName, Operation};
use scheduling::{Asked, Work};

use crate::density::{ASSUMED, Density, tokens};

/// A request's prompt, as the servers of one target would cache it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(crate) links: Vec<Link>,
    pub(crate) media: Vec<Item>,
    /// Of the whole prompt.
    pub(crate) tokens: u64,
    /// The same where nothing was learned, if that is less.
    pub(crate) cautious: u64,
    /// What its media add to it; none where one of them cannot be told.
    pub(crate) media_tokens: Option<u64>,
    /// Milliseconds to encode all of its media, with those that caches are not asked about.
    pub(crate) encoding: f32,
    /// The session that it belongs to.
    pub(crate) session: Option<u64>,
    /// Whether it is answered with text: what makes pictures or sound works on one for long, whatever it has read.
    pub(crate) is_text: bool,
    /// By which its text was taken for so many tokens; and bytes of that text, where the servers' count of the prompt is of nothing else.
    pub(crate) density: Arc<Density>,
    pub(crate) text_alone: Option<u64>,
}

/// A block of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// Of itself and everything before it: model, salt, texts and media.
    pub(crate) key: u64,
    pub(crate) tokens: u32,
}

/// A media item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Item {
    /// None where nothing tells it from others.
    pub(crate) key: Option<u64>,
    pub(crate) tokens: u32,
    /// The block that it is; `usize::MAX` where it stands in none.
    pub(crate) link: usize,
    /// Milliseconds.
    pub(crate) encoding: f32,
}

/// Nothing counts for more tokens, whatever it says of itself: the longest contexts are of about a million, and an item has its share of that.
const MOST_TOKENS: u64 = 1 << 20;
const MOST_OF_AN_ITEM: u32 = 1 << 17;

/// Nor for more milliseconds to encode.
const MOST_ENCODING: f32 = 60_000.0;

/// Caches are asked about so many items of a request; a decision looks them up at every endpoint.
const MOST_ITEMS: usize = 256;

/// Up to so many blocks of its beginning tell where a prompt is at home: two to four kilobytes.
const BLOCKS_OF_HOME: usize = 2;

/// So much of a prompt is worth a home, in milliseconds of work.
const WORTH_A_HOME: f32 = 20.0;

impl Content {
    pub(crate) fn of(
        request: &InferenceRequest,
        target: Option<&ModelName>,
        family: Option<Family>,
        scope: NameScope<'_>,
        policy: Option<&MediaPolicy>,
        density: Arc<Density>,
    ) -> Self {
        // What else has a prompt may hold tokens, of which each stands as four bytes, or several texts.
        let is_text_alone = is_one_prompt(request);
        let bytes_of_a_token = if is_text_alone { density.bytes() } else { ASSUMED };
        let mut key = target
            .map(|target| &**target)
            .or(request.model.as_deref())
            .unwrap_or_default()
            .bytes()
            .fold(0, |key, byte| Draw::mixed(key, u64::from(byte)));
        key = Draw::mixed(key, request.prompt.salt.unwrap_or_default());
        let mut media_tokens = Some(0_u64);
        let read = |item: &MediaItem| {
            let estimated = family.and_then(|family| media::tokens::estimate(family, item.modality, &item.facts));
            media_tokens = media_tokens.zip(estimated).map(|(sum, tokens)| sum.saturating_add(tokens));
            Item::of(item, estimated, scope, policy)
        };
        let mut media: Vec<Item> = request.media.iter().map(read).collect();
        let encoding = media.iter().map(|item| item.encoding).sum::<f32>().min(MOST_ENCODING);
        let mut links = Vec::with_capacity(request.prompt.pieces.len());
        let mut text = request.prompt.rest;
        // Of what follows an item that nothing tells from others, no cache can be asked.
        let mut is_certain = true;
        for piece in &request.prompt.pieces {
            let tokens = match piece {
                Piece::Text { hash, bytes } => {
                    text = text.saturating_add(u64::from(*bytes));
                    key = Draw::mixed(key, *hash);
                    u32::try_from(tokens(u64::from(*bytes), bytes_of_a_token)).unwrap_or(u32::MAX)
                }
                Piece::Media(place) => {
                    let Some(item) = media.get_mut(*place as usize) else { continue };
                    is_certain &= item.key.is_some();
                    key = Draw::mixed(key, item.key.unwrap_or_default());
                    if is_certain {
                        item.link = links.len();
                    }
                    item.tokens
                }
            };
            if is_certain {
                links.push(Link { key, tokens });
            }
        }
        let of_media: u64 = media.iter().map(|item| u64::from(item.tokens)).sum();
        let of_all = |bytes_of_a_token| tokens(text, bytes_of_a_token).saturating_add(of_media).min(MOST_TOKENS);
        let (tokens, cautious) = (of_all(bytes_of_a_token), of_all(bytes_of_a_token.max(ASSUMED)));
        // Of the API of responses a server may know what came before.
        let is_all = is_text_alone && media.is_empty() && request.requires.operation != Operation::Responses;
        let text_alone = is_all.then_some(text);
        media.truncate(MOST_ITEMS);
        let is_text = request.requires.output.contains(Modality::Text);
        let session = request.prompt.session;
        Self { links, media, tokens, cautious, media_tokens, encoding, session, is_text, density, text_alone }
    }

    /// A server that had it counted so many tokens in its prompt.
    pub(crate) fn counted(&self, tokens: u64) {
        if let Some(bytes) = self.text_alone {
            self.density.learn(bytes, tokens);
        }
    }

    /// Whether there is nothing of it that a cache could keep.
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.media.is_empty()
    }

    /// What it asks of a server that has so many blocks of its beginning, and some of its media where it has any.
    pub(crate) fn work(&self, known: usize, has_media: bool, has: impl Fn(u64) -> bool) -> Work {
        let there: u64 = self.links[..known].iter().map(|link| u64::from(link.tokens)).sum();
        let mut spared = 0.0;
        if known > 0 || has_media {
            // What a cached prefix covers is not encoded either.
            let is_there = |item: &&Item| item.link < known || item.key.is_some_and(&has);
            spared = self.media.iter().filter(is_there).map(|item| item.encoding).sum::<f32>().min(self.encoding);
        }
        Work {
            reading: Work::of_reading(self.tokens.saturating_sub(there)),
            encoding: self.encoding - spared,
            saved: Work::of_reading(there) + spared,
            displacing: 0.0,
            displacing_media: 0.0,
            asked: Asked::default(),
        }
    }

    /// What tells where it is at home, if that is worth something: its session, a picture that it begins with, or the beginning of its text.
    pub(crate) fn home(&self) -> Option<u64> {
        if self.session.is_some() {
            return self.session;
        }
        if !self.is_text {
            return None;
        }
        let worth = self.work(0, false, |_| false).all() >= WORTH_A_HOME;
        let link = self.links.get(BLOCKS_OF_HOME - 1).or(self.links.last())?;
        worth.then(|| {
            self.media.iter().find(|item| item.link < BLOCKS_OF_HOME).and_then(|item| item.key).unwrap_or(link.key)
        })
    }
}

/// Whether a server is to read it as one prompt.
pub(crate) fn is_one_prompt(request: &InferenceRequest) -> bool {
    use Operation::{ChatCompletions, Messages, Responses};
    matches!(request.requires.operation, ChatCompletions | Messages | Responses) && !request.is_batch
}

impl Item {
    fn of(item: &MediaItem, estimated: Option<u64>, scope: NameScope<'_>, policy: Option<&MediaPolicy>) -> Self {
        // Where nothing is known: a picture of a megapixel, half a minute of sound, some seconds of film.
        let tokens = estimated.unwrap_or(match item.modality {
            Modality::Video => 4000,
            Modality::Audio => 400,
            _ => 1000,
        });
        let key = identity(item, policy).map(|identity| {
            let hash = identity.within(scope);
            hash.first_chunk().copied().map_or(0, u64::from_le_bytes)
        });
        // No engine takes more.
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX).min(MOST_OF_AN_ITEM);
        Self { key, tokens, link: usize::MAX, encoding: Work::of_encoding(item.modality, tokens) }
    }
}

/// What tells an item from others: of one on a host whose objects never change, without what signs its URL.
fn identity(item: &MediaItem, policy: Option<&MediaPolicy>) -> Option<Identity> {
    let rule = policy.and_then(|policy| policy.rules.get(&item.modality));
    let of_url = |url: &MediaUrl| {
        rule?.immutable_hosts.iter().find(|host| host.matches(&url.host))?;
        // What a client names itself is another thing.
        url.unsigned.filter(|_| matches!(item.identity, Some(Identity::Url(_))))
    };
    item.url.as_ref().and_then(|url| url.as_ref().ok()).and_then(of_url).or(item.identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use request::{Limits, RequestHead, Scanner};

    fn read(body: &str) -> InferenceRequest {
        let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
        let mut scanner = Scanner::new(&head, Limits::default()).unwrap();
        scanner.feed(body.as_bytes()).unwrap();
        scanner.finish().unwrap()
    }

    fn content(request: &InferenceRequest, target: &str, caller: &[u8]) -> Content {
        let scope = NameScope { namespace: "n", model: "m", caller };
        Content::of(request, Some(&target.into()), Some(Family::Qwen3Vl), scope, None, Arc::default())
    }

    /// A text of two kilobytes, then these parts.
    fn body(parts: &str, more: &str) -> String {
        let text = "a text ".repeat(285);
        format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"{text}"}}{parts}]}}]{more}}}"#
        )
    }

    const NAMED: &str = r#",{"type":"image_url","image_url":null,"uuid":"cat"}"#;
    const URL: &str = r#",{"type":"image_url","image_url":{"url":"https://a.example/b"}}"#;
    const NOTHING: &str = r#",{"type":"image_url","image_url":null}"#;

    #[test]
    fn a_model_a_salt_and_who_names_an_item_keep_contents_apart() {
        let (one, salted) = (read(&body(NAMED, "")), read(&body(NAMED, r#","cache_salt":"s""#)));
        let keys = |content: &Content| content.links.iter().map(|link| link.key).collect::<Vec<_>>();
        let mine = content(&one, "m", b"me");
        assert_eq!(keys(&mine), keys(&content(&one, "m", b"me")));
        assert_eq!(mine.links.len(), 3);
        for other in [content(&one, "lora", b"me"), content(&salted, "m", b"me")] {
            assert!(keys(&other).iter().all(|key| !keys(&mine).contains(key)));
        }
        let theirs = content(&one, "m", b"you");
        assert_eq!(keys(&theirs)[..2], keys(&mine)[..2], "the same text is the same for everybody");
        assert_ne!((keys(&theirs)[2], theirs.media[0].key), (keys(&mine)[2], mine.media[0].key));
    }

    #[test]
    fn a_url_that_is_signed_anew_is_one_picture_where_objects_never_change() {
        let signed = |signature: u8| {
            let url = format!("https://b.s3.example.com/cat.png?X-Amz-Date={signature}&X-Amz-Signature={signature}");
            read(&body(&format!(r#",{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#), ""))
        };
        let keys = |request: &InferenceRequest, host: &str| {
            let immutable_hosts = vec![routing::HostPattern::new(host)];
            let rule = routing::MediaRule { immutable_hosts, ..routing::MediaRule::default() };
            let policy = MediaPolicy { rules: [(Modality::Image, rule)].into(), ..MediaPolicy::default() };
            let scope = NameScope { namespace: "n", model: "m", caller: b"" };
            let content = Content::of(request, None, Some(Family::Qwen3Vl), scope, Some(&policy), Arc::default());
            (content.media[0].key, content.links.last().map(|link| link.key))
        };
        assert_eq!(keys(&signed(1), "*.s3.example.com"), keys(&signed(2), "*.s3.example.com"));
        assert_ne!(keys(&signed(1), "*.other.com"), keys(&signed(2), "*.other.com"));
    }

    #[test]
    fn what_follows_something_that_nobody_can_tell_from_others_is_in_no_cache() {
        let all = content(&read(&body(&format!("{URL}{URL}"), "")), "m", b"");
        let unknown = content(&read(&body(&format!("{NOTHING}{URL}"), "")), "m", b"");
        assert_eq!((all.links.len(), unknown.links.len()), (4, 2));
        assert_eq!((all.tokens, unknown.tokens), (2499, 2499), "it counts all the same");
        let work = unknown.work(2, true, |_| true);
        assert!(work.encoding > 10.0 && work.encoding < all.work(0, true, |_| false).encoding, "{work:?}");
    }

    #[test]
    fn work_is_what_a_server_does_not_have() {
        let all = content(&read(&body(URL, "")), "m", b"");
        let (nothing, text, everything) =
            (all.work(0, true, |_| false), all.work(2, true, |_| false), all.work(3, true, |_| false));
        assert!(nothing.saved == 0.0 && everything.reading < 1.0 && everything.encoding == 0.0, "{everything:?}");
        assert!(nothing.reading > text.reading && text.encoding > 0.0);
        let sums = [nothing, text, everything].map(|work| (work.reading + work.encoding + work.saved).round());
        assert!(sums.iter().all(|sum| (sum - sums[0]).abs() < 1.5), "{sums:?}");
        assert!(all.home().is_some());
        assert_eq!(content(&read(r#"{"model":"m","messages":[]}"#), "m", b"").home(), None);
    }
}

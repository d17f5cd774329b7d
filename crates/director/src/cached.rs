//! What an endpoint is believed to have in its caches: what this picker sent there, as far as it fits.

use hashlink::LinkedHashMap;
use scheduling::{Asked, Work};

use crate::content::{Content, Item};

/// Prefixes of prompts in the KV cache, and encoded media. Entered when a request is sent, so that the next one of a burst finds it.
#[derive(Debug)]
pub(crate) struct Cached {
    prefixes: Kept,
    media: Kept,
    /// Of the request that came last.
    visit: Visit,
    /// Of the work that came of late, the share that was spared.
    spared_share: f32,
}

/// A request that was sent there, by its number; one in four thousand million has that of another.
pub(crate) type Visit = u32;

/// Keys, of which the longest unused go.
#[derive(Debug)]
struct Kept {
    /// The longest unused first.
    keys: LinkedHashMap<u64, Key>,
    tokens: u64,
    capacity: u64,
    most: usize,
    /// Of what went to make room of late, the share that had been asked for again before: 0 to 1.
    again: f32,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    tokens: u32,
    /// How often it was asked for, with the first time: not by prompts that are longer than the one before, as a conversation's next turn is, which nobody
    /// else asks for.
    asked: u32,
    /// Tokens of the prompt that asked for it last.
    prompt: u32,
    /// Who brought it, and who asked for it last.
    born: Visit,
    used: Visit,
}

/// Tokens of a KV cache whose size its engine does not say: of an 8B model on a card of 80 GB.
const KV_TOKENS: u64 = 350_000;

/// Tokens of an encoder cache: what vLLM takes where nothing is set (`max_num_batched_tokens` of its server; no metric says it).
const MEDIA_TOKENS: u64 = 8192;

/// Of late is what fills so much of a cache.
const OF_LATE: f32 = 0.25;

/// No request tells more of what is spared than this share of all that is known.
const SINGLE: f32 = 0.1;

/// Most keys of each kind that are kept of an endpoint where nobody says otherwise, whatever its engine claims and however small clients cut their
/// prompts; about a megabyte. Of ordinary text they are some ten million tokens.
pub const MOST_CACHED: usize = 16 << 10;

impl Cached {
    /// Nothing yet, and of each kind never more than so many keys.
    pub(crate) fn new(most: usize) -> Self {
        Self { prefixes: Kept::new(KV_TOKENS, most), media: Kept::new(MEDIA_TOKENS, most), visit: 0, spared_share: 0.0 }
    }

    /// What a content would ask of the endpoint, beyond what is there.
    pub(crate) fn work(&self, content: &Content) -> Work {
        let known = self.known(content);
        let work = content.work(known, !self.media.keys.is_empty(), |item| self.media.keys.contains_key(&item));
        let mut work = Work { asked: self.asked(content, known), ..work };
        if self.prefixes.again > 0.0 {
            let fresh = content.links[known..].iter().map(|link| u64::from(link.tokens)).sum();
            work.displacing = self.prefixes.displacing(fresh);
        }
        if self.media.again > 0.0 && work.encoding > 0.0 {
            let is_there = |item: &Item| item.key.is_some_and(|key| self.media.keys.contains_key(&key));
            let fresh = content.media.iter().filter(|item| item.link >= known && !is_there(item));
            work.displacing_media = self.media.displacing(fresh.map(|item| u64::from(item.tokens)).sum());
        }
        work
    }

    /// How often what is there was asked for, if so many blocks of its beginning are.
    fn asked(&self, content: &Content, known: usize) -> Asked {
        let link = content.links[..known].last().and_then(|link| self.prefixes.keys.get(&link.key));
        let items = content.media.iter().filter(|item| item.link >= known);
        let items = items.filter_map(|item| self.media.keys.get(&item.key?));
        Asked { prefix: link.map_or(0, |key| key.asked), media: items.map(|key| key.asked).min().unwrap_or(0) }
    }

    /// How many blocks at its beginning are there. Those after the first that is not there are of no use.
    fn known(&self, content: &Content) -> usize {
        content.links.iter().take_while(|link| self.prefixes.keys.contains_key(&link.key)).count()
    }

    /// The endpoint will have it, as far as there is room. Says what it asks.
    pub(crate) fn enter(&mut self, content: &Content) -> (Work, Visit) {
        self.visit = self.visit.wrapping_add(1);
        let work = self.work(content);
        let Work { saved, reading, encoding, .. } = work;
        let prompt = u32::try_from(content.tokens).unwrap_or(u32::MAX);
        let share = self.prefixes.share(prompt);
        self.spared_share += share.min(SINGLE) * (saved / (saved + reading + encoding).max(1.0) - self.spared_share);
        let mut room = self.prefixes.capacity;
        let mut fits = |tokens: u32| {
            let left = room.checked_sub(u64::from(tokens));
            room = left.unwrap_or(0);
            left.is_some()
        };
        let fit = content.links.iter().map(|link| link.tokens).take_while(|tokens| fits(*tokens)).count();
        // From the end, so that the beginning of a prompt is the last of it to go.
        for link in content.links[..fit].iter().rev() {
            self.prefixes.keep(link.key, link.tokens, prompt, self.visit);
        }
        for item in &content.media {
            item.key.inspect(|key| self.media.keep(*key, item.tokens, prompt, self.visit));
        }
        (work, self.visit)
    }

    /// What a request brought did not come to be there: what was there before it, or was asked for since, stays.
    pub(crate) fn forget(&mut self, content: &Content, visit: Visit) {
        content.links.iter().for_each(|link| self.prefixes.forget(link.key, visit));
        content.media.iter().filter_map(|item| item.key).for_each(|key| self.media.forget(key, visit));
    }

    /// How large its KV cache is, as the engine says.
    pub(crate) fn resize(&mut self, kv_tokens: u64) {
        self.prefixes.capacity = kv_tokens;
        // What goes because of that makes room for no prompt, and tells nothing.
        while self.prefixes.push_out().is_some() {}
    }

    /// Of the work that came of late, the share that was spared: 0 to 1.
    pub(crate) fn spared_share(&self) -> f32 {
        self.spared_share
    }

    /// Tokens that are believed to be in its KV cache.
    pub(crate) fn tokens(&self) -> u64 {
        self.prefixes.tokens
    }

    /// The server has started anew.
    pub(crate) fn clear(&mut self) {
        self.prefixes.clear();
        self.media.clear();
        self.spared_share = 0.0;
    }
}

impl Kept {
    fn new(capacity: u64, most: usize) -> Self {
        Self { keys: LinkedHashMap::new(), tokens: 0, capacity, most, again: 0.0 }
    }

    fn keep(&mut self, key: u64, tokens: u32, prompt: u32, visit: Visit) {
        // What can never be there pushes nothing out.
        if u64::from(tokens) > self.capacity {
            return;
        }
        let (born, asked) = match self.keys.get(&key) {
            None => (visit, 1),
            Some(known) => (known.born, known.asked.saturating_add(u32::from(prompt <= known.prompt))),
        };
        self.tokens += u64::from(tokens);
        if let Some(before) = self.keys.insert(key, Key { tokens, asked, prompt, born, used: visit }) {
            self.tokens -= u64::from(before.tokens);
        }
        while let Some(gone) = self.push_out() {
            let was_asked_again = if gone.born == gone.used { 0.0 } else { 1.0 };
            self.again += self.share(gone.tokens) * (was_asked_again - self.again);
        }
    }

    /// The longest unused goes, where there is more than fits.
    fn push_out(&mut self) -> Option<Key> {
        if self.tokens <= self.capacity && self.keys.len() <= self.most {
            return None;
        }
        let (_, gone) = self.keys.pop_front()?;
        self.tokens -= u64::from(gone.tokens);
        Some(gone)
    }

    /// What so many tokens tell of all that go: [`OF_LATE`] is all there is to know.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn share(&self, tokens: u32) -> f32 {
        (tokens as f32 / (OF_LATE * self.capacity as f32)).min(1.0)
    }

    /// How many tokens will be read again for each of so many that come and are not there: of those that go to make room, the share that is
    /// asked for again, and for what these push out in turn the same share once more.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn displacing(&self, fresh: u64) -> f32 {
        let fresh = fresh.max(1);
        let free = self.capacity.saturating_sub(self.tokens);
        let go = fresh.saturating_sub(free).min(self.tokens);
        self.again * (1.0 + self.again) * (go as f32 / fresh as f32)
    }

    fn forget(&mut self, key: u64, visit: Visit) {
        if self.keys.get(&key).is_some_and(|known| (known.born, known.used) == (visit, visit))
            && let Some(gone) = self.keys.remove(&key)
        {
            self.tokens -= u64::from(gone.tokens);
        }
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.tokens = 0;
        self.again = 0.0;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "what is compared is exact")]

    use super::*;
    use crate::content::Link;

    /// Blocks of a hundred tokens with these keys, and an item in the last one if it has a key.
    fn content(keys: &[u64], item: Option<u64>) -> Content {
        let links: Vec<Link> = keys.iter().map(|key| Link { key: *key, tokens: 100 }).collect();
        let link = links.len().saturating_sub(1);
        let media = item.map(|key| Item { key: Some(key), tokens: 100, link, encoding: 50.0 });
        let media: Vec<Item> = media.into_iter().collect();
        Content {
            tokens: 100 * keys.len() as u64,
            links,
            encoding: media.iter().map(|item| item.encoding).sum(),
            is_text: true,
            media,
            ..Content::default()
        }
    }

    fn of(kv_tokens: u64) -> Cached {
        let mut cached = Cached::new(100);
        cached.resize(kv_tokens);
        cached
    }

    #[test]
    fn a_prefix_is_known_as_far_as_it_is_the_same_and_its_media_need_no_encoder() {
        let mut cached = of(1000);
        assert_eq!(cached.work(&content(&[1, 2, 3], Some(7))).saved, 0.0);
        cached.enter(&content(&[1, 2, 3], Some(7)));
        assert_eq!(cached.known(&content(&[1, 2, 4], None)), 2);
        cached.enter(&content(&[1, 2, 4], None));
        let again = cached.work(&content(&[1, 2, 3], Some(7)));
        assert_eq!((again.reading, again.encoding), (0.0, 0.0));
        // The same picture after another text is read again, and not encoded again.
        let elsewhere = cached.work(&content(&[5, 6], Some(7)));
        assert_eq!((elsewhere.reading, elsewhere.encoding, elsewhere.saved), (Work::of_reading(200), 0.0, 50.0));
        assert_eq!(cached.work(&content(&[9, 2, 3], None)).saved, 0.0, "what stands before it is another");
    }

    #[test]
    fn how_often_something_was_asked_for_is_of_the_last_of_it_that_is_there() {
        let mut cached = of(1000);
        let asked = |cached: &Cached, keys: &[u64], item| {
            let Asked { prefix, media } = cached.work(&content(keys, item)).asked;
            (prefix, media)
        };
        assert_eq!(asked(&cached, &[1, 2], Some(7)), (0, 0));
        (3..8).for_each(|end| _ = cached.enter(&content(&[1, 2, end], None)));
        (0..3).for_each(|_| _ = cached.enter(&content(&[], Some(7))));
        assert_eq!(asked(&cached, &[1, 2], None), (5, 0));
        assert_eq!(asked(&cached, &[1, 2, 7], Some(7)), (1, 0), "with the block that it stands in");
        assert_eq!(asked(&cached, &[1, 2, 9], Some(7)), (5, 3));
        assert_eq!(asked(&cached, &[9], None), (0, 0));
        assert_eq!(cached.work(&content(&[1, 2], None)).anew().asked, Asked::default());
        // A conversation has each of its turns to itself, however short they are beside a block.
        let mut growing = content(&[11, 12], None);
        (0..50).for_each(|_| {
            growing.tokens += 10;
            cached.enter(&growing);
        });
        assert_eq!(asked(&cached, &[11, 12], None), (1, 0));
    }

    #[test]
    fn an_item_that_is_not_there_pushes_out_what_was_asked_for_again() {
        let mut cached = of(1_000_000);
        let displacing = |cached: &Cached, item| cached.work(&content(&[], Some(item))).displacing_media;
        (0..81).for_each(|item| _ = cached.enter(&content(&[], Some(item))));
        (100..300).for_each(|item| _ = cached.enter(&content(&[], Some(item))));
        assert_eq!(displacing(&cached, 1000), 0.0, "nobody came back to any");
        (300..500).for_each(|item| (0..2).for_each(|_| _ = cached.enter(&content(&[], Some(item)))));
        // All that goes was asked for again, and of a hundred tokens ninety-two are free.
        assert!((0.15..0.17).contains(&displacing(&cached, 1000)));
        assert_eq!(displacing(&cached, 499), 0.0, "it is there");
    }

    #[test]
    fn ends_go_first_and_the_longest_unused_of_them() {
        let mut cached = of(500);
        cached.enter(&content(&[1, 2, 3], None));
        cached.enter(&content(&[4, 5], None));
        cached.enter(&content(&[6], None));
        assert_eq!((cached.known(&content(&[1, 2, 3], None)), cached.known(&content(&[4, 5], None))), (2, 2));
        assert_eq!(cached.tokens(), 500);
        // One that is longer than the cache leaves its beginning.
        cached.enter(&content(&[10, 11, 12, 13, 14, 15, 16], None));
        assert_eq!(cached.known(&content(&[10, 11, 12, 13, 14, 15, 16], None)), 5);
    }

    #[test]
    fn what_is_pushed_out_counts_as_far_as_it_was_asked_for_again() {
        let mut cached = of(4000);
        let next = content(&[8, 9], None);
        cached.enter(&content(&[1, 2], None));
        assert_eq!(cached.work(&next).displaced(), 0.0, "there is room");
        // Prompts that nobody comes back to are no loss.
        for key in 10..100 {
            cached.enter(&content(&[key], None));
        }
        assert_eq!(cached.work(&next).displaced(), 0.0);
        // Conversations: each prompt with all before it.
        for round in 0..100 {
            let keys = [100, 101, 102].map(|key| key + 10 * round);
            for turn in 1..=3 {
                cached.enter(&content(&keys[..turn], None));
            }
        }
        let displaced = cached.work(&next).displaced();
        // Two of three blocks of each were asked for again; each of these, when it comes again, pushes out others.
        let all = Work::of_reading(200);
        assert!(displaced > all && displaced < all * 1.25, "{displaced} of {all}");
        assert_eq!(cached.work(&content(&[1090, 1091], None)).displaced(), 0.0, "it is there");
        cached.clear();
        assert_eq!(cached.work(&next).displaced(), 0.0, "nothing is known of a server that started anew");
    }

    #[test]
    fn how_much_was_spared_is_of_late() {
        let mut cached = of(10_000);
        let next = |turns: u64| content(&(1..=turns).collect::<Vec<_>>(), None);
        (1..=50).for_each(|turns| _ = cached.enter(&next(turns)));
        assert!(cached.spared_share() > 0.9, "{}", cached.spared_share());
        (1000..1050).for_each(|key| _ = cached.enter(&content(&[key], None)));
        assert!(cached.spared_share() < 0.2, "{}", cached.spared_share());
        cached.clear();
        assert_eq!(cached.spared_share(), 0.0);
    }

    #[test]
    fn what_did_not_come_to_be_there_is_forgotten_and_what_others_have_of_it_stays() {
        let mut cached = of(1000);
        cached.enter(&content(&[1, 2], None));
        let next = content(&[1, 2, 3, 4], Some(7));
        let (_, visit) = cached.enter(&next);
        cached.forget(&next, visit);
        assert_eq!((cached.known(&next), cached.tokens()), (2, 200));
        assert_eq!(cached.work(&content(&[8], Some(7))).encoding, 50.0);
        // Of what another has asked for since, that one knows.
        let ((_, first), (_, second)) = (cached.enter(&next), cached.enter(&content(&[1, 2, 3], None)));
        cached.forget(&next, first);
        assert_eq!(cached.known(&next), 3);
        cached.forget(&content(&[1, 2, 3], None), second);
        assert_eq!(cached.known(&next), 3, "it brought none of it");
        cached.clear();
        assert_eq!((cached.known(&next), cached.tokens()), (0, 0));
    }

    #[test]
    fn what_can_never_be_there_pushes_nothing_out() {
        let mut cached = of(500);
        cached.enter(&content(&[1, 2], Some(7)));
        let mut huge = content(&[3, 4], Some(8));
        (huge.links[0].tokens, huge.media[0].tokens) = (1 << 20, 1 << 20);
        cached.enter(&huge);
        assert_eq!((cached.known(&content(&[1, 2], None)), cached.known(&huge)), (2, 0));
        assert_eq!(cached.work(&content(&[9], Some(7))).encoding, 0.0);
        cached.resize(100);
        assert_eq!((cached.known(&content(&[1, 2], None)), cached.tokens()), (1, 100));
    }

    #[test]
    fn no_client_and_no_engine_makes_it_grow() {
        let mut cached = of(u64::MAX);
        for key in 0..1000 {
            let mut one = content(&[key], Some(key));
            one.links[0].tokens = 0;
            cached.enter(&one);
        }
        assert_eq!((cached.prefixes.keys.len(), cached.media.keys.len()), (100, 81));
        let mut none = of(0);
        none.enter(&content(&[1], None));
        assert_eq!(none.known(&content(&[1], None)), 0, "prefixes are not kept there");
        let mut forgetful = Cached::new(0);
        forgetful.enter(&content(&[1], Some(1)));
        assert_eq!((forgetful.known(&content(&[1], None)), forgetful.tokens(), forgetful.media.keys.len()), (0, 0, 0));
    }
}

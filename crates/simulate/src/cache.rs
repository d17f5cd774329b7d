//! What a model server keeps: prefixes of prompts in its KV cache, and encoded media.

use std::collections::{BTreeSet, HashMap};

/// A KV cache with prefix caching, as vLLM's: a prompt is a chain of parts, each known by everything before it; what no request uses stays until
/// room is needed, and goes from the tails, the longest unused first.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    /// In tokens, as everything here.
    capacity: u64,
    nodes: HashMap<u64, Node>,
    /// Of nodes that could go now, when they were used last.
    tails: BTreeSet<(u64, u64)>,
    clock: u64,
    held: u64,
    /// Of what is held, what requests use; and room for their answers.
    used: u64,
    answers: u64,
}

#[derive(Debug)]
struct Node {
    tokens: u32,
    parent: Option<u64>,
    children: u32,
    users: u32,
    last_used: u64,
}

/// A part of a prompt: its key stands for all before it as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) key: u64,
    pub(crate) tokens: u32,
}

/// Encoded media, the longest unused of which goes first; sized in tokens.
#[derive(Debug)]
pub(crate) struct MediaCache {
    capacity: u64,
    held: u64,
    clock: u64,
    items: HashMap<u64, (u64, u32)>,
    order: BTreeSet<(u64, u64)>,
}

// === impl PrefixCache ===

impl PrefixCache {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { capacity, nodes: HashMap::new(), tails: BTreeSet::new(), clock: 0, held: 0, used: 0, answers: 0 }
    }

    /// Share of the cache that requests use, 0 to 1; what merely stays is free, as vLLM counts (`kv_cache_usage_perc`).
    pub(crate) fn usage(&self) -> f32 {
        (self.used + self.answers) as f32 / self.capacity.max(1) as f32
    }

    /// How many tokens at the beginning of a prompt are there.
    pub(crate) fn known(&self, chain: &[Link]) -> u64 {
        let there = chain.iter().take_while(|link| self.nodes.contains_key(&link.key));
        there.map(|link| u64::from(link.tokens)).sum()
    }

    /// Makes room for a prompt and its answer, and uses it; says how much of it was there, or nothing where there is no room.
    pub(crate) fn enter(&mut self, chain: &[Link], answer: u32) -> Option<u64> {
        let known = self.known(chain);
        let needed: u64 = chain.iter().map(|link| u64::from(link.tokens)).sum::<u64>() - known + u64::from(answer);
        let in_use: u64 = chain
            .iter()
            .filter(|link| self.nodes.get(&link.key).is_some_and(|node| node.users == 0))
            .map(|link| u64::from(link.tokens))
            .sum();
        // What it finds and nobody uses cannot go for it.
        if self.used + self.answers + in_use + needed > self.capacity {
            return None;
        }
        self.clock += 1;
        let mut parent = None;
        for link in chain {
            let node = self.nodes.entry(link.key).or_insert_with(|| {
                self.held += u64::from(link.tokens);
                Node { tokens: link.tokens, parent, children: 0, users: 0, last_used: 0 }
            });
            let is_new = node.users == 0 && node.last_used == 0;
            if node.users == 0 {
                self.tails.remove(&(node.last_used, link.key));
                self.used += u64::from(node.tokens);
            }
            node.users += 1;
            node.last_used = self.clock;
            if is_new && let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
                parent.children += 1;
            }
            parent = Some(link.key);
        }
        self.answers += u64::from(answer);
        while self.held + self.answers > self.capacity {
            let Some(tail) = self.tails.pop_first() else { break };
            self.forget(tail.1);
        }
        Some(known)
    }

    fn forget(&mut self, key: u64) {
        let Some(node) = self.nodes.remove(&key) else { return };
        self.held -= u64::from(node.tokens);
        let Some(parent) = node.parent else { return };
        if let Some(above) = self.nodes.get_mut(&parent) {
            above.children -= 1;
            if above.children == 0 && above.users == 0 {
                self.tails.insert((above.last_used, parent));
            }
        }
    }

    /// A request is done with what [`Self::enter`] gave it.
    pub(crate) fn leave(&mut self, chain: &[Link], answer: u32) {
        self.answers -= u64::from(answer);
        for link in chain.iter().rev() {
            let Some(node) = self.nodes.get_mut(&link.key) else { continue };
            node.users -= 1;
            if node.users == 0 {
                self.used -= u64::from(node.tokens);
                if node.children == 0 {
                    self.tails.insert((node.last_used, link.key));
                }
            }
        }
    }
}

// === impl MediaCache ===

impl MediaCache {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { capacity, held: 0, clock: 0, items: HashMap::new(), order: BTreeSet::new() }
    }

    /// Whether an item is there; from now on it is.
    pub(crate) fn enter(&mut self, item: u64, tokens: u32) -> bool {
        self.clock += 1;
        let before = self.items.insert(item, (self.clock, tokens));
        if let Some((used, _)) = before {
            self.order.remove(&(used, item));
        } else {
            self.held += u64::from(tokens);
        }
        self.order.insert((self.clock, item));
        while self.held > self.capacity {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some((_, tokens)) = self.items.remove(&oldest) {
                self.held -= u64::from(tokens);
            }
        }
        before.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(keys: &[u64]) -> Vec<Link> {
        keys.iter().map(|key| Link { key: *key, tokens: 100 }).collect()
    }

    #[test]
    fn a_prefix_is_found_as_far_as_it_is_the_same() {
        let mut cache = PrefixCache::new(1000);
        assert_eq!(cache.enter(&chain(&[1, 2, 3]), 10), Some(0));
        assert_eq!(cache.known(&chain(&[1, 2, 4])), 200);
        assert_eq!(cache.enter(&chain(&[1, 2, 4]), 10), Some(200));
        assert!((cache.usage() - 0.42).abs() < 1e-6);
        cache.leave(&chain(&[1, 2, 3]), 10);
        cache.leave(&chain(&[1, 2, 4]), 10);
        assert!(cache.usage().abs() < 1e-6);
        assert_eq!(cache.known(&chain(&[1, 2, 3])), 300, "it stays until room is needed");
    }

    #[test]
    fn tails_go_first_and_what_is_used_never() {
        let mut cache = PrefixCache::new(500);
        cache.enter(&chain(&[1, 2, 3]), 0).unwrap();
        cache.leave(&chain(&[1, 2, 3]), 0);
        cache.enter(&chain(&[4, 5]), 0).unwrap();
        assert_eq!(cache.enter(&chain(&[6]), 0), Some(0));
        assert_eq!((cache.known(&chain(&[1, 2, 3])), cache.known(&chain(&[4, 5]))), (200, 200));
        assert_eq!(cache.enter(&chain(&[7, 8, 9]), 0), None, "there is no room beside what is used");
        cache.leave(&chain(&[4, 5]), 0);
        assert_eq!(cache.enter(&chain(&[1, 2, 10]), 50), Some(200));
        assert_eq!(cache.known(&chain(&[1, 2, 10])), 300);
    }

    #[test]
    fn the_media_that_was_not_used_for_longest_goes() {
        let mut cache = MediaCache::new(250);
        assert_eq!([1, 2, 1, 3, 1, 2].map(|item| cache.enter(item, 100)), [false, false, true, false, true, false]);
    }
}

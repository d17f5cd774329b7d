//! What an endpoint refused of late, whatever it is believed to take.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use routing::{ERROR_MESSAGES, Limits, Modality, ModalitySet, Unfit};
use serde_json::Value;

use crate::EndpointId;
use crate::board::nanos;

/// An endpoint refused what it was believed to take.
#[derive(Debug)]
pub struct Contradiction<'a> {
    pub endpoint: &'a EndpointId,
    pub address: SocketAddr,
    pub unfit: Unfit,
    /// Of what the request carried; empty where there was too much of it.
    pub refused: ModalitySet,
}

/// What is read of an answer that may say that its server does not take what the request holds.
#[derive(Debug, Default)]
pub struct Refusal {
    body: Vec<u8>,
    /// Longer than a refusal is.
    is_long: bool,
}

/// The modalities that an endpoint refused, as its state keeps them. A table that says something else of what it takes makes them void.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// When each was refused last, and when that was last told, as stamps of the board's clock.
    last: [AtomicU64; Modality::ALL.len()],
    told: AtomicU64,
    belief: AtomicU32,
}

/// What was believed of an endpoint when an attempt at it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Belief(u32);

/// For how long a refusal counts: whoever asks model servers has mended the table by then, and where nobody does it is tried again.
pub const REFUSAL_LASTS: Duration = Duration::from_mins(1);

/// How often the same is told at most: each time somebody may ask the server what it is, and where that finds nothing new it is as it was.
const TOLD_EVERY: Duration = REFUSAL_LASTS;

/// How much of a refusal is read: engines have a sentence or two.
pub const MAX_REFUSAL: usize = 16 << 10;

impl Refusals {
    pub(crate) fn belief(&self) -> Belief {
        Belief(self.belief.load(Relaxed))
    }

    /// Notes that it refused these, or how much of them, to an attempt that began with this belief; says whether that is to be told. What
    /// contradicts another belief than there is now says nothing.
    pub(crate) fn note(&self, refused: ModalitySet, belief: Belief, now: u64) -> bool {
        if belief != self.belief() {
            return false;
        }
        let known = self.current(now);
        for (modality, last) in Modality::ALL.into_iter().zip(&self.last) {
            if refused.contains(modality) {
                last.store(now, Relaxed);
            }
        }
        let told = self.told.load(Relaxed);
        let is_due = told == 0 || now.saturating_sub(told) >= nanos(TOLD_EVERY) || !known.is_superset(refused);
        // Of several at once one tells.
        is_due && self.told.compare_exchange(told, now, Relaxed, Relaxed).is_ok()
    }

    /// What it refuses, as far as is known at `now`.
    pub(crate) fn current(&self, now: u64) -> ModalitySet {
        let lasts = |last: &AtomicU64| {
            let last = last.load(Relaxed);
            last > 0 && now.saturating_sub(last) < nanos(REFUSAL_LASTS)
        };
        let all = Modality::ALL.into_iter().zip(&self.last);
        all.filter(|(_, last)| lasts(last)).fold(ModalitySet::EMPTY, |all, (modality, _)| all.with(modality))
    }

    pub(crate) fn forget(&self) {
        self.belief.fetch_add(1, Relaxed);
        for last in &self.last {
            last.store(0, Relaxed);
        }
        self.told.store(0, Relaxed);
    }
}

impl Refusal {
    /// Of an answer with this head, to a request of these modalities. Engines say so with 400; of media llama.cpp does with 500.
    pub fn of(status: StatusCode, input: ModalitySet) -> Option<Self> {
        let has_media = !input.difference(ModalitySet::TEXT).is_empty();
        let may_be = status == StatusCode::BAD_REQUEST || has_media && status == StatusCode::INTERNAL_SERVER_ERROR;
        may_be.then(Self::default)
    }

    /// Some of the answer's body.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.is_long |= self.body.len() + bytes.len() > MAX_REFUSAL;
        if !self.is_long {
            self.body.extend_from_slice(bytes);
        }
    }

    /// The answer has ended: what it says.
    pub fn unfit(&self) -> Option<Unfit> {
        if self.is_long { None } else { read(&self.body) }
    }
}

/// What the body of an error says; none where it is about something else, or longer than a refusal is.
pub(crate) fn read(body: &[u8]) -> Option<Unfit> {
    if body.len() > MAX_REFUSAL {
        return None;
    }
    let json: Value = serde_json::from_slice(body).ok()?;
    let said = message(&json)?;
    // Ollama 0.30 and later pass on what llama.cpp says whole, as the text of their own message.
    match serde_json::from_str::<Value>(said) {
        Ok(inner) if inner.is_object() => message(&inner).and_then(Unfit::of),
        _ => Unfit::of(said),
    }
}

fn message(error: &Value) -> Option<&str> {
    ERROR_MESSAGES.iter().find_map(|place| error.pointer(place)?.as_str())
}

/// Whether a refusal speaks against what is believed of an endpoint. Near the end of a context its engine alone knows, and says nothing new.
pub(crate) fn contradicts(unfit: Unfit, believed: Limits) -> bool {
    match unfit {
        Unfit::Length { context } => context.is_some_and(|told| believed.context().is_none_or(|known| told < known)),
        Unfit::Items { modality, most } => believed.items(modality).is_none_or(|known| most < known),
        Unfit::TextOnly => true,
    }
}

/// Whether an endpoint of these limits may take what one of those refused; where that is not known, it may.
pub(crate) fn may_take(unfit: Unfit, limits: Limits, refused_by: Limits) -> bool {
    let is_above =
        |limit: Option<u32>, known: Option<u32>| known.is_none_or(|known| limit.is_none_or(|limit| known > limit));
    match unfit {
        Unfit::Length { context } => is_above(context.or(refused_by.context()), limits.context()),
        Unfit::Items { modality, most } => is_above(Some(most), limits.items(modality)),
        Unfit::TextOnly => true,
    }
}

#[cfg(test)]
mod tests {
    use routing::Modality;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_was_refused_is_known_for_a_while_and_told_once() {
        let [image, audio] = [Modality::Image, Modality::Audio].map(|one| ModalitySet::of(&[one]));
        let refusals = Refusals::default();
        assert_eq!(refusals.current(SECOND), ModalitySet::EMPTY);
        let first = refusals.belief();
        assert!(refusals.note(image, first, SECOND));
        assert!(!refusals.note(image, first, 2 * SECOND), "the same");
        assert!(refusals.note(audio, first, 3 * SECOND), "another kind");
        assert!(!refusals.note(ModalitySet::EMPTY, first, 4 * SECOND), "how much of it, just after");
        assert!(!refusals.note(image, first, 14 * SECOND), "the same, soon after");
        assert_eq!(refusals.current(62 * SECOND), image.union(audio));
        assert_eq!(refusals.current(63 * SECOND), image, "one kind does not make another last");
        assert!(refusals.note(image, first, 64 * SECOND), "the same, later");
        assert_eq!(refusals.current(124 * SECOND), ModalitySet::EMPTY);
        assert!(refusals.note(image, first, 130 * SECOND));
        assert_eq!(refusals.current(130 * SECOND), image, "what is long past does not come back");
        refusals.forget();
        assert_eq!(refusals.current(130 * SECOND), ModalitySet::EMPTY);
        assert!(!refusals.note(image, first, 131 * SECOND), "it spoke against what was believed before");
        assert_eq!(refusals.current(131 * SECOND), ModalitySet::EMPTY);
        assert!(refusals.note(image, refusals.belief(), 132 * SECOND), "and this against what is believed now");
    }

    #[test]
    fn errors_are_read_in_every_shape() {
        for body in [
            r#"{"error":{"message":"m is not a multimodal model","type":"BadRequestError","param":null,"code":400}}"#,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"m is not a multimodal model"}}"#,
            r#"{"object":"error","message":"m is not a multimodal model","code":400}"#,
            r#"{"detail":"m is not a multimodal model"}"#,
            r#"{"error":"m is not a multimodal model"}"#,
            r#"{"error":{"message":"{\"error\":{\"code\":400,\"message\":\"m is not a multimodal model\",\"type\":\"x\"}}","type":"api_error","code":null}}"#,
            r#"{"type":"error","error":{"type":"api_error","message":"{\"error\":{\"message\":\"m is not a multimodal model\"}}"},"request_id":"r"}"#,
        ] {
            assert_eq!(read(body.as_bytes()), Some(Unfit::TextOnly), "{body}");
        }
        let long = format!(r#"{{"error":"m is not a multimodal model"{}}}"#, " ".repeat(MAX_REFUSAL));
        assert_eq!(read(long.as_bytes()), None, "longer than a refusal is");
        for body in ["", "m is not a multimodal model", "[]", r#"{"error":{"message":"no"}}"#, r#"{"error":{"mess"#] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn what_is_new_contradicts_and_what_surely_refuses_likewise_is_not_asked() {
        let context = |tokens| Limits::NONE.with_context(tokens);
        let told = Unfit::Length { context: Some(8) };
        assert!(contradicts(told, Limits::NONE) && contradicts(told, context(9)) && !contradicts(told, context(8)));
        assert!(!contradicts(Unfit::Length { context: None }, Limits::NONE));
        assert!(may_take(told, context(9), Limits::NONE) && may_take(told, Limits::NONE, Limits::NONE));
        assert!(!may_take(told, context(8), Limits::NONE));
        let untold = Unfit::Length { context: None };
        assert!(may_take(untold, context(8), Limits::NONE) && !may_take(untold, context(8), context(8)));
        let no_more_than = |most| Unfit::Items { modality: Modality::Image, most };
        let believed = Limits::NONE.with_items(Modality::Image, 2);
        assert!(contradicts(no_more_than(0), believed) && contradicts(no_more_than(2), Limits::NONE));
        assert!(!contradicts(no_more_than(2), believed), "as it was found");
        let images = |most| Limits::NONE.with_items(Modality::Image, most);
        let two = Unfit::Items { modality: Modality::Image, most: 2 };
        assert!(may_take(two, images(3), images(4)) && !may_take(two, images(2), images(4)));
    }
}

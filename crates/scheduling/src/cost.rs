//! What a request costs at an endpoint: one number, in milliseconds, and nothing to tune.

use routing::Modality;

use crate::Load;

/// What a request asks of an endpoint beyond what its caches hold, in milliseconds of a reference server, which nothing else uses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// To read the prompt, with the tokens of its media.
    pub reading: f32,
    /// To encode its media.
    pub encoding: f32,
    /// What its caches spare it of both.
    pub saved: f32,
    /// For each millisecond of reading, milliseconds of what others will have read again, since it went from a full prefix cache to make room:
    /// 0 to 2.
    pub displacing: f32,
    /// The same for each millisecond of encoding. Only for copies it counts ([`crate::Choice::Copy`]): an encoder's cache is small, and often turns over.
    pub displacing_media: f32,
    /// How often what its caches spare it was asked for there.
    pub asked: Asked,
}

/// How often something was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// The last block of the prompt that is there.
    pub prefix: u32,
    /// The item that is there, of those that stand in no such block, that was asked for least.
    pub media: u32,
}

/// A cost, in parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub work: Work,
    /// Milliseconds of work before it.
    pub queued: f32,
    /// Requests of ours there whose first byte is still to come.
    pub unread: f32,
    /// All requests of ours there.
    pub in_flight: u32,
    /// How many times as long as the reference server it takes.
    pub pace: f32,
}

/// Milliseconds for a token of a prompt: of Qwen3-VL-8B on an H100, as AIConfigurator's tables have it, in an engine (`simulate::rates`).
const READING: f32 = 0.0236;

/// So much is done for every request, in milliseconds: a step of the engine.
const LEAST: f32 = 5.0;

/// Work of a request of which nobody knows more, in milliseconds: a prompt of some 1,200 tokens.
const ORDINARY: f32 = 30.0;

/// What it weighs that an answer under way gets its next token later, beside another first token that does.
const LATER_TOKEN: f32 = 0.03;

/// How much later all tokens of the answer come for another one under way there, in milliseconds weighed likewise: its steps are longer.
const LONGER_STEPS: f32 = 0.3;

impl Work {
    /// Milliseconds to read so many tokens.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn of_reading(tokens: u64) -> f32 {
        READING * tokens as f32
    }

    /// Milliseconds to encode an item that becomes so many tokens. Of pictures, a parabola through the four sizes of the same tables (their
    /// encoder looks at every pixel from every other); of sound and film, whose pieces are encoded one by one, a line.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn of_encoding(modality: Modality, tokens: u32) -> f32 {
        let tokens = tokens as f32;
        match modality {
            Modality::Image => 1.6 + 0.011 * tokens + 4.76e-6 * tokens * tokens,
            Modality::Audio | Modality::Video => 1.6 + 0.013 * tokens,
            Modality::Text | Modality::Embedding => 0.0,
        }
    }

    /// The same where nothing of it is in a cache.
    #[must_use]
    pub fn anew(self) -> Self {
        Self { reading: self.reading + self.saved, saved: 0.0, asked: Asked::default(), ..self }
    }

    /// What others will have to ask again, in milliseconds.
    pub fn displaced(&self) -> f32 {
        self.displacing * self.reading
    }

    /// All that is to be done for it.
    pub fn all(&self) -> f32 {
        LEAST + self.reading + self.encoding
    }

    /// The same with what it displaces.
    pub(crate) fn bill(&self) -> f32 {
        self.all() + self.displaced()
    }
}

impl Cost {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn new(work: Work, load: &Load) -> Self {
        let Load { in_flight, unread, queued, untold, others_waiting, pace, .. } = *load;
        Self {
            work,
            queued: queued + untold + ORDINARY * others_waiting,
            unread: unread as f32 + untold / ORDINARY,
            in_flight,
            pace,
        }
    }

    /// How much longer everybody waits, in milliseconds: the request for what is queued and for its own work, and for that as well all whose
    /// first byte is still to come, and a little those that wait for their next token; and for its own tokens beside theirs. What it displaces
    /// is work that it brings, too: somebody else's, who then waits likewise. Without that, a fleet whose caches are too small for its
    /// conversations moves them about at every short queue, and reads all of them again (`many-turns` at 50 requests a second).
    ///
    /// To look at the request's own wait alone (queued + work), or to weigh a queue like work ((queued + work) × requests), loses a fleet
    /// that is nearly full: the wait hides what affinity saves, everything is read again everywhere, and the queues never end (`llm-d-ladder`
    /// at 30 requests a second).
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn total(&self) -> f32 {
        let waiting = 1.0 + self.unread + LATER_TOKEN * self.in_flight as f32;
        (self.queued + self.work.bill() * waiting + LONGER_STEPS * self.in_flight as f32) * self.pace
    }

    /// What it would cost there if as much of it were in the caches as another has.
    pub(crate) fn knowing(&self, of_another: Work) -> f32 {
        let work = Work { displacing: self.work.displacing, ..of_another };
        Self { work, ..*self }.total()
    }
}

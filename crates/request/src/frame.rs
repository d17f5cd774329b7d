//! What is open at the place where a reader is: objects and arrays.

use std::fmt::Write as _;

use crate::grammar::Meaning;
use crate::keys::Key;

/// An open object or array.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) meaning: Meaning,
    pub(crate) array: bool,
    /// The key that it was entered by; none for elements, and for keys that mean nothing.
    pub(crate) key: Option<&'static str>,
    /// Which known keys were seen; a bit for each.
    pub(crate) seen: u64,
    /// The place of the element that comes next.
    pub(crate) next: u32,
    /// Whether a part begins with it.
    pub(crate) part: bool,
}

/// The fields of a part of which vLLM takes the first that is there, be it null, once there is a `uuid` (0.32, `renderers/chat_utils.py`): without one it
/// goes by the `type`.
const FIRST_BESIDE_UUID: u64 = bits(&[
    Key::ImageUrl,
    Key::ImagePil,
    Key::ImageEmbeds,
    Key::AudioEmbeds,
    Key::VideoEmbeds,
    Key::PromptEmbeds,
    Key::AudioUrl,
    Key::InputAudio,
    Key::VideoUrl,
]);

const fn bits(keys: &[Key]) -> u64 {
    let mut bits = 0;
    let mut place = 0;
    while place < keys.len() {
        bits |= 1 << keys[place] as u8;
        place += 1;
    }
    bits
}

impl Frame {
    /// Whether it is a part that stays what it is with a name for its media, and has no field for one.
    pub(crate) fn lacks_uuid(&self) -> bool {
        let has_uuid = self.seen & bits(&[Key::Uuid]) != 0;
        self.meaning == Meaning::Part && !has_uuid && (self.seen & FIRST_BESIDE_UUID).is_power_of_two()
    }

    /// The part's field that this is the object of, if the API has its media under the key at hand.
    pub(crate) fn holder(&self, key: Option<&str>) -> Option<&'static str> {
        let (holder, key) = (self.key?, key?);
        let is_usual = match holder {
            "image_url" | "audio_url" | "video_url" => key == "url",
            "input_audio" => key == "data",
            _ => false,
        };
        (is_usual && !self.array && matches!(self.meaning, Meaning::Media(_))).then_some(holder)
    }
}

/// Where the innermost object or array stands.
pub(crate) fn path_of(frames: &[Frame]) -> String {
    let mut path = String::new();
    for pair in frames.windows(2) {
        if pair[0].array {
            _ = write!(path, "[{}]", pair[0].next.saturating_sub(1));
        } else if let Some(key) = pair[1].key {
            path.extend([".", key]);
        }
    }
    path.trim_start_matches('.').to_owned()
}

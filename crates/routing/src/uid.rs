//! What tells a pod from one that comes back under its name and address.

use std::fmt;

/// The uid of an object, as a number: UUIDs are compared for every endpoint of a table that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uid(u128);

impl Uid {
    /// Where nobody says.
    pub const NONE: Self = Self(0);
}

impl From<&str> for Uid {
    /// A UUID, with its hyphens or without. Another text counts by its hash (FNV-1a of 128 bits), an empty one as [`Uid::NONE`].
    fn from(text: &str) -> Self {
        if text.is_empty() {
            return Self::NONE;
        }
        let digits: String = text.chars().filter(|character| *character != '-').collect();
        let uuid = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
        Self(uuid.unwrap_or_else(|| {
            let step = |hash: u128, byte: u8| {
                (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B)
            };
            text.bytes().fold(0x6C62_272E_07BB_0142_62B8_2175_6295_C58D, step)
        }))
    }
}

/// In 32 hexadecimal digits; nothing for [`Uid::NONE`]. Read again it is the same.
impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE { Ok(()) } else { write!(f, "{:032x}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_and_different_texts_differ() {
        let texts = ["", "0f8fad5b-d9cb-469f-a165-70867728950e", "pod-1", "pod-2", "u"];
        for text in texts {
            let uid = Uid::from(text);
            assert_eq!(Uid::from(&*uid.to_string()), uid, "{text}");
            assert_eq!(texts.iter().filter(|other| Uid::from(**other) == uid).count(), 1, "{text}");
        }
        assert_eq!(Uid::from("0f8fad5b-d9cb-469f-a165-70867728950e").to_string(), "0f8fad5bd9cb469fa16570867728950e");
    }
}

//! What tells a pod from one that comes back under its name and address.

use std::fmt;

/// The uid of an object, as a number: UUIDs are compared for every endpoint of a table that changed, and tables hold many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uid(u64);

impl Uid {
    /// Where nobody says.
    pub const NONE: Self = Self(0);

    pub const fn number(self) -> u64 {
        self.0
    }
}

impl From<&str> for Uid {
    /// A UUID, with its hyphens or without, counts by its halves combined: no two pods that took the same name one after the other will
    /// agree in those. Another text counts by its hash (FNV-1a), an empty one as [`Uid::NONE`].
    fn from(text: &str) -> Self {
        let digits: String = text.chars().filter(|character| *character != '-').collect();
        let number = u128::from_str_radix(&digits, 16).ok();
        match (digits.len(), number) {
            (0, _) => Self::NONE,
            (16 | 32, Some(number)) => Self(halves_combined(number)),
            _ => {
                let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
                Self(text.bytes().fold(0xCBF2_9CE4_8422_2325, step))
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
const fn halves_combined(number: u128) -> u64 {
    (number >> 64) as u64 ^ number as u64
}

/// In 16 hexadecimal digits; nothing for [`Uid::NONE`]. Read again it is the same.
impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE { Ok(()) } else { write!(f, "{:016x}", self.0) }
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
        assert_eq!(Uid::from("0f8fad5b-d9cb-469f-a165-70867728950e").to_string(), "aeeaddddaee3d391");
    }
}

//! Conditions: what is said of an object, as a pure function of verdicts and of what was said before.

use std::borrow::Cow;

use api::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// One thing said of an object: a condition before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub type_: &'static str,
    pub holds: bool,
    pub reason: Cow<'static, str>,
    pub message: String,
}

impl Verdict {
    pub fn yes(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, holds: true, reason: reason.into(), message: message.into() }
    }

    pub fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, holds: false, reason: reason.into(), message: message.into() }
    }

    /// What was said before, if it was said of this generation.
    pub fn as_it_was(type_: &'static str, before: &[Condition], generation: Option<i64>) -> Option<Self> {
        let said = before.iter().find(|said| said.type_ == type_ && said.observed_generation == generation)?;
        Some(Self {
            type_,
            holds: said.status == "True",
            reason: said.reason.clone().into(),
            message: said.message.clone(),
        })
    }

    /// Whether a table that contains the object is what every connected picker decides by: of `connected` pickers, `current` have
    /// acknowledged the newest, and some may have refused it.
    pub fn programmed(connected: usize, current: usize, refusals: &[String]) -> Self {
        match (refusals.first(), connected) {
            (Some(refusal), _) => Self::no("Programmed", "Refused", format!("a picker refused the table: {refusal}")),
            (None, 0) => {
                Self::no("Programmed", "NoPicker", "no picker is connected; start one for this namespace or pool")
            }
            (None, _) if current == connected => {
                Self::yes("Programmed", "Programmed", format!("{connected} of {connected} pickers use it"))
            }
            _ => Self::no("Programmed", "Pending", format!("{current} of {connected} pickers use it so far")),
        }
    }
}

/// Longest message of a condition, in bytes. The API server takes 32 KiB; nobody reads as many, and a status with several of them is read
/// by every watcher.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// The conditions to write: each verdict with its time, which moves only when the status does. Long messages are cut.
pub fn merge(verdicts: &[Verdict], generation: Option<i64>, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    verdicts
        .iter()
        .map(|verdict| {
            let status = if verdict.holds { "True" } else { "False" };
            let unchanged = before.iter().find(|old| old.type_ == verdict.type_ && old.status == status);
            Condition {
                type_: verdict.type_.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.clone().into_owned(),
                message: clipped(verdict.message.clone(), MAX_MESSAGE_BYTES),
                observed_generation: generation,
                last_transition_time: unchanged.map_or(Time(now), |old| old.last_transition_time.clone()),
            }
        })
        .collect()
}

/// At most so many bytes of a text; what was cut off shows as `…`.
pub fn clipped(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_only_with_the_status() {
        let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let verdict =
            |holds, message: &str| Verdict { type_: "Accepted", holds, reason: "R".into(), message: message.into() };
        let one = merge(&[verdict(true, "a")], Some(1), &[], first);
        let two = merge(&[verdict(true, "b")], Some(2), &one, later);
        assert_eq!(
            (two[0].last_transition_time.0, two[0].observed_generation, &*two[0].message),
            (first, Some(2), "b")
        );
        let three = merge(&[verdict(false, "c")], Some(2), &two, later);
        assert_eq!(three[0].last_transition_time.0, later);
    }

    #[test]
    fn what_was_said_of_another_generation_is_not_said_again() {
        let before = merge(&[Verdict::yes("Programmed", "R", "m")], Some(1), &[], Timestamp::UNIX_EPOCH);
        assert_eq!(Verdict::as_it_was("Programmed", &before, Some(1)), Some(Verdict::yes("Programmed", "R", "m")));
        assert_eq!(Verdict::as_it_was("Programmed", &before, Some(2)), None);
        assert_eq!(Verdict::as_it_was("Accepted", &before, Some(1)), None);
    }

    #[test]
    fn a_message_that_the_api_server_would_not_take_is_cut() {
        let long = "ü".repeat(20_000);
        let written = merge(&[Verdict::no("Accepted", "R", long)], None, &[], Timestamp::UNIX_EPOCH);
        assert!((4090..=4096).contains(&written[0].message.len()) && written[0].message.ends_with('…'));
    }

    #[test]
    fn programmed_says_how_far_it_got() {
        assert_eq!(Verdict::programmed(0, 0, &[]).reason, "NoPicker");
        assert_eq!(Verdict::programmed(2, 1, &[]).message, "1 of 2 pickers use it so far");
        assert!(Verdict::programmed(2, 2, &[]).holds);
        let refused = Verdict::programmed(1, 1, &["pool a: no".into()]);
        assert_eq!(refused.message, "a picker refused the table: pool a: no");
    }
}

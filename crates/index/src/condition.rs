//! Conditions: what is said of an object, as a pure function of verdicts and of what was said before.

use api::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// One thing said of an object: a condition before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub type_: &'static str,
    pub holds: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    pub(crate) fn yes(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, holds: true, reason, message: message.into() }
    }

    pub(crate) fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, holds: false, reason, message: message.into() }
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
                Self::yes("Programmed", "Programmed", format!("{connected} of {connected} pickers decide by it"))
            }
            _ => Self::no("Programmed", "Pending", format!("{current} of {connected} pickers decide by it so far")),
        }
    }
}

/// The conditions to write: each verdict with its time, which moves only when the status does.
pub fn merge(verdicts: &[Verdict], generation: Option<i64>, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    verdicts
        .iter()
        .map(|verdict| {
            let status = if verdict.holds { "True" } else { "False" };
            let unchanged = before.iter().find(|old| old.type_ == verdict.type_ && old.status == status);
            Condition {
                type_: verdict.type_.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.to_owned(),
                message: verdict.message.clone(),
                observed_generation: generation,
                last_transition_time: unchanged.map_or(Time(now), |old| old.last_transition_time.clone()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_only_with_the_status() {
        let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let verdict = |holds, message: &str| Verdict { type_: "Accepted", holds, reason: "R", message: message.into() };
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
    fn programmed_says_how_far_it_got() {
        assert_eq!(Verdict::programmed(0, 0, &[]).reason, "NoPicker");
        assert_eq!(Verdict::programmed(2, 1, &[]).message, "1 of 2 pickers decide by it so far");
        assert!(Verdict::programmed(2, 2, &[]).holds);
        let refused = Verdict::programmed(1, 1, &["pool a: no".into()]);
        assert_eq!(refused.message, "a picker refused the table: pool a: no");
    }
}

//! Which profile a request is scheduled by, where somebody wants another than the least cost for some of them.

use std::ops::RangeInclusive;

use crate::Profile;

/// Profiles, each with the requests that it is for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profiles {
    /// The first that holds for a request decides.
    pub rules: Vec<Rule>,
    /// For all others.
    pub rest: Profile,
}

/// A profile for some requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// As clients ask for them; all where there is none.
    pub models: Vec<String>,
    pub priorities: RangeInclusive<i32>,
    pub profile: Profile,
}

impl Profiles {
    pub fn of(&self, model: Option<&str>, priority: i32) -> &Profile {
        let holds = |rule: &&Rule| {
            rule.priorities.contains(&priority)
                && (rule.models.is_empty() || model.is_some_and(|model| rule.models.iter().any(|name| name == model)))
        };
        self.rules.iter().find(holds).map_or(&self.rest, |rule| &rule.profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Preference, Scorer};

    #[test]
    fn the_first_rule_that_holds_decides() {
        let by = |scorer| Profile { prefers: Preference::Scores(vec![(scorer, 1.0)]), ..Profile::default() };
        let rule = |models: &[&str], priorities, scorer| Rule {
            models: models.iter().map(ToString::to_string).collect(),
            priorities,
            profile: by(scorer),
        };
        let profiles = Profiles {
            rules: vec![
                rule(&["chat", "code"], i32::MIN..=-1, Scorer::ShortestQueue),
                rule(&["chat"], i32::MIN..=i32::MAX, Scorer::FreeKvCache),
                rule(&[], 10..=20, Scorer::LeastActive),
            ],
            rest: Profile::default(),
        };
        assert_eq!(*profiles.of(Some("chat"), -1), by(Scorer::ShortestQueue));
        assert_eq!(*profiles.of(Some("chat"), 0), by(Scorer::FreeKvCache));
        assert_eq!(*profiles.of(Some("code"), 0), Profile::default());
        assert_eq!(*profiles.of(None, 10), by(Scorer::LeastActive));
        assert_eq!(*profiles.of(Some("code"), 21), Profile::default());
    }
}

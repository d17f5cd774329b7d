//! Pickers: which of the scored endpoints is first, and in which order the others follow.

use routing::Draw;

use crate::Scored;

/// Orders scored candidates, the chosen one first.
pub trait Picker: Send + Sync + std::fmt::Debug {
    fn order(&self, scored: &mut [Scored<'_>], draw: &mut Draw);
}

/// The highest score; a draw decides among equals, so that idle endpoints share the load.
#[derive(Debug)]
pub struct HighestScore;

impl Picker for HighestScore {
    fn order(&self, scored: &mut [Scored<'_>], draw: &mut Draw) {
        for candidate in scored.iter_mut() {
            candidate.tie_break = draw.next();
        }
        scored.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.tie_break.cmp(&b.tie_break)));
    }
}

//! When one more endpoint had better have what is often asked for. Each request goes where it costs least, which is where its prompt or its picture is
//! known; so that alone nothing becomes known anywhere else before all that know it are busy, and the more is asked about it, the busier they are.

use routing::Draw;

use crate::Ranked;
use crate::profile::NEAR;

/// A copy is worth it once this share of what was paid for not having it comes to its price; by how often it was asked for: more is to come of what has
/// come often. With [`MOST`] at once, what is not asked for much longer would be copied everywhere (`cold-half`: the last hundredth waits three times as long).
const FOR_EACH_ASK: f32 = 0.002;

/// The most of it, however often.
const MOST: f32 = 0.1;

/// The one of the equals that the request teaches what the cheapest has, if it is to: the one that would be the cheapest if all knew what that one knows.
///
/// What is paid for not having it there already is the difference of what it costs now at the cheapest, and would cost there; the price of a copy, what it costs
/// there more than if it were known. Whoever rents skis until the rents come to their price pays at most twice what the wisest would (Karlin, Manasse,
/// Rudolph and Sleator, 1988, on caches). Instead of a sum for each prompt, which strangers could make grow, each request has its share of the chance.
/// Nothing is copied that would push out what others ask for again.
pub(crate) fn due<'r>(
    cheapest: &Ranked,
    equals: impl Iterator<Item = &'r Ranked>,
    draw: &mut Draw,
) -> Option<&'r Ranked> {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let share = (FOR_EACH_ASK * cheapest.parts.work.asked.saturating_sub(1) as f32).min(MOST);
    if share <= 0.0 {
        return None;
    }
    let known = |ranked: &Ranked| ranked.parts.with(cheapest.parts.work).min(ranked.cost);
    let (next, known) = equals.map(|ranked| (ranked, known(ranked))).min_by(|one, other| one.1.total_cmp(&other.1))?;
    let (paid, price) = (cheapest.cost - known, next.cost - known);
    let is_worth_it = next.cost > cheapest.cost * (1.0 + NEAR) && next.parts.work.displaced() == 0.0;
    (is_worth_it && chance(draw) * price < share * paid).then_some(next)
}

/// From 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "all 24 bits fit")]
fn chance(draw: &mut Draw) -> f32 {
    const ALL: u64 = 1 << 24;
    draw.below(ALL) as f32 / ALL as f32
}

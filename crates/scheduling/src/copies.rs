//! When one more endpoint had better have what is often asked for. Each request goes where it costs least, which is where its prompt or its picture is
//! known; so that alone nothing becomes known anywhere else before all that know it are busy, and the more is asked about it, the busier they are.

use routing::Draw;

use crate::Ranked;
use crate::profile::NEAR;

/// The chance for each time after the first that it was asked for: more is to come of what has come often.
const FOR_EACH_ASK: f32 = 0.002;

/// The most of it, however often. At ten times that, what is not asked for much longer is copied everywhere (`cold-half`: the last hundredth waits three
/// times as long).
const MOST: f32 = 0.1;

/// The one of the equals that the request teaches what the cheapest has, if it is to: the one that would be the cheapest if all knew what that one knows.
///
/// What is *paid* for not having it there is the difference of what it costs now at the cheapest, and would cost there; the *price* of a copy, what it costs
/// there more than if it were known. As one who rents skis does well to buy them when the rents come to their price (Karlin, Manasse, Rudolph and Sleator,
/// 1988, on caches), a copy is due when what was paid comes to so many prices. Instead of a sum for each prompt, which strangers could make grow, each
/// request has its part of the chance, so that on average copies cost no more than a tenth of what is paid without them.
pub(crate) fn due<'r>(
    cheapest: &Ranked,
    equals: impl Iterator<Item = &'r Ranked>,
    draw: &mut Draw,
) -> Option<&'r Ranked> {
    let has = cheapest.parts.work;
    if has.asked.prefix.max(has.asked.media) <= 1 {
        return None;
    }
    let known = |ranked: &Ranked| ranked.parts.knowing(has).min(ranked.cost);
    let (next, known) = equals.map(|ranked| (ranked, known(ranked))).min_by(|one, other| one.1.total_cmp(&other.1))?;
    let lacks = next.parts.work;
    if next.cost <= cheapest.cost * (1.0 + NEAR) {
        return None;
    }
    // Of what is there as well nobody needs a copy.
    let mut asked = u32::MAX;
    if lacks.reading > has.reading {
        asked = asked.min(has.asked.prefix);
    }
    if lacks.encoding > has.encoding && has.asked.media > 0 {
        asked = asked.min(has.asked.media);
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let share = (FOR_EACH_ASK * asked.saturating_sub(1) as f32).min(MOST);
    let price = next.cost - known + lacks.displacing_media * lacks.encoding;
    (chance(draw) * price < share * (cheapest.cost - known)).then_some(next)
}

/// From 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "all 24 bits fit")]
fn chance(draw: &mut Draw) -> f32 {
    const ALL: u64 = 1 << 24;
    draw.below(ALL) as f32 / ALL as f32
}

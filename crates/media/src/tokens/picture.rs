//! Pictures: resized to a grid of units, cut into tiles, or always as many.

use super::number::{real, whole};

/// How a family counts a picture.
#[derive(Debug, Clone, Copy)]
pub(super) enum Picture {
    Fixed(u64),
    Resized(Resized),
    /// A grid of units with a break after each row, within a longest side.
    Rows {
        unit: u32,
        longest: u32,
    },
    /// Scaled to a longest side and cut into tiles, with the whole beside them.
    Split {
        longest: u32,
        tile: u32,
        tokens: u64,
    },
    Gemma4 {
        budget: u64,
    },
    InternVl,
    Llama4,
    Mllama,
    LlavaNext,
    MiniCpmV,
    Phi4,
}

/// Rounded to multiples of a unit, with as many pixels as bounds allow; a token each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resized {
    pub(super) unit: u32,
    pub(super) min_pixels: u64,
    pub(super) max_pixels: u64,
}

impl Resized {
    pub(super) fn tokens(self, width: u32, height: u32) -> u64 {
        let unit = f64::from(self.unit);
        let (w, h) = (f64::from(width.max(1)), f64::from(height.max(1)));
        // Python rounds halves to the even neighbour.
        let near = |side: f64| (side / unit).round_ties_even();
        let pixels = near(w) * near(h) * unit * unit;
        let (tall, wide) = if pixels > real(self.max_pixels) {
            let by = (w * h / real(self.max_pixels)).sqrt();
            ((h / by / unit).floor().max(1.0), (w / by / unit).floor().max(1.0))
        } else if pixels < real(self.min_pixels) {
            let by = (real(self.min_pixels) / (w * h)).sqrt();
            ((h * by / unit).ceil(), (w * by / unit).ceil())
        } else {
            (near(h), near(w))
        };
        whole(tall * wide)
    }
}

impl Picture {
    pub(super) fn tokens(self, width: u32, height: u32) -> u64 {
        let (w, h) = (f64::from(width.max(1)), f64::from(height.max(1)));
        match self {
            Self::Fixed(tokens) => tokens,
            Self::Resized(resized) => resized.tokens(width, height),
            Self::Rows { unit, longest } => {
                let by = (w / f64::from(longest)).max(h / f64::from(longest)).max(1.0);
                let cells = |side: f64| whole((side / by).floor().max(1.0)).div_ceil(u64::from(unit));
                (cells(w) + 1) * cells(h)
            }
            Self::Split { longest, tile, tokens } => split(w, h, f64::from(longest), f64::from(tile), tokens),
            Self::Gemma4 { budget } => gemma4(w, h, budget) + 2,
            Self::InternVl => {
                let (columns, rows) = closest_ratio(w, h, 12, 448.0);
                let tiles = columns * rows;
                (tiles + u64::from(tiles > 1)) * 256 + 2
            }
            Self::Llama4 => llama4(w, h),
            Self::Mllama => {
                let (rows, columns) = canvas(w, h, 560.0, 4, |rows, columns| rows * columns <= 4);
                1601 * rows * columns
            }
            Self::LlavaNext => llava_next(w, h),
            Self::MiniCpmV => minicpm(w, h),
            Self::Phi4 => phi4(w, h),
        }
    }
}

/// `idefics3/image_processing_idefics3.py::get_number_of_image_patches`, and a mark for each tile, row and the whole.
fn split(w: f64, h: f64, longest: f64, tile: f64, tokens: u64) -> u64 {
    let ratio = w / h;
    let even = |side: f64| (side.floor() + side.floor() % 2.0).max(1.0);
    let (wide, tall) = if ratio >= 1.0 { (longest, even(longest / ratio)) } else { (even(longest * ratio), longest) };
    let (columns, rows) = (whole((wide / tile).ceil()), whole((tall / tile).ceil()));
    let tiles = if rows * columns > 1 { rows * columns * (2 + tokens) + rows } else { 0 };
    tiles + tokens + 3
}

/// Scaled so that units of 48² fit a budget.
fn gemma4(w: f64, h: f64, budget: u64) -> u64 {
    let by = (real(budget * 9) / (h / 16.0 * (w / 16.0))).sqrt();
    let side = |side: f64| ((side * by / 48.0).floor() * 48.0).max(48.0);
    whole((side(h) / 16.0 * (side(w) / 16.0) / 9.0).floor()).min(budget)
}

/// `internvl.py::find_closest_aspect_ratio`: columns and rows, of at most `most` tiles, that are shaped most like the picture.
fn closest_ratio(w: f64, h: f64, most: u64, tile: f64) -> (u64, u64) {
    let mut ratios: Vec<(u64, u64)> =
        (1..=most).flat_map(|i| (1..=most).map(move |j| (i, j))).filter(|(i, j)| i * j <= most).collect();
    ratios.sort_by_key(|(i, j)| i * j);
    let mut best = ((1, 1), f64::INFINITY);
    for (i, j) in ratios {
        let difference = (w / h - real(i) / real(j)).abs();
        let large = w * h > 0.5 * tile * tile * real(i * j);
        #[expect(clippy::float_cmp, reason = "the same ratio of other numbers, as the source compares it")]
        if difference < best.1 || (difference == best.1 && large) {
            best = ((i, j), difference);
        }
    }
    best.0
}

/// Rows and columns of tiles: the smallest that need not shrink the picture, or else those that shrink it least
/// (`get_optimal_tiled_canvas`, `get_best_fit`). Scales are compared in single precision, as there.
fn canvas(w: f64, h: f64, tile: f64, most: u64, fits: impl Fn(u64, u64) -> bool) -> (u64, u64) {
    let all = (1..=most).flat_map(|rows| (1..=most).map(move |columns| (rows, columns)));
    #[expect(clippy::cast_possible_truncation, reason = "the source compares in single precision")]
    let scale = |rows: u64, columns: u64| (real(rows) * tile / h).min(real(columns) * tile / w) as f32;
    let better = |one: (f32, u64), other: (f32, u64)| {
        let (grows, other_grows) = (one.0 >= 1.0, other.0 >= 1.0);
        match (grows, other_grows) {
            (true, false) => true,
            (false, true) => false,
            #[expect(clippy::float_cmp, reason = "equal scales of other canvases")]
            _ if one.0 == other.0 => one.1 < other.1,
            (true, true) => one.0 < other.0,
            (false, false) => one.0 > other.0,
        }
    };
    let mut best = ((1, 1), (scale(1, 1), 1));
    for (rows, columns) in all.filter(|(rows, columns)| fits(*rows, *columns)) {
        let this = (scale(rows, columns), rows * columns);
        if better(this, best.1) {
            best = ((rows, columns), this);
        }
    }
    best.0
}

/// 144 for each tile of 336, a mark after each, and the whole beside them.
fn llama4(w: f64, h: f64) -> u64 {
    let (rows, columns) = canvas(w, h, 336.0, 16, |rows, columns| rows * columns <= 16);
    let tiles = if rows * columns > 1 { rows * columns * 144 + rows * (columns - 1) + rows } else { 0 };
    tiles + 147
}

/// `llava_next.py::_get_num_unpadded_features`: the best of five canvases, without what pads it, and the whole.
fn llava_next(w: f64, h: f64) -> u64 {
    const CANVASES: [(f64, f64); 5] = [(336., 672.), (672., 336.), (672., 672.), (1008., 336.), (336., 1008.)];
    let fit = |(tall, wide): (f64, f64)| {
        let scale = (wide / w).min(tall / h);
        let effective = ((w * scale).floor() * (h * scale).floor()).min(w * h);
        (effective, wide * tall - effective)
    };
    let mut best = CANVASES[0];
    for canvas in CANVASES {
        let ((effective, wasted), (best_effective, best_wasted)) = (fit(canvas), fit(best));
        #[expect(clippy::float_cmp, reason = "whole numbers of pixels")]
        if effective > best_effective || (effective == best_effective && wasted < best_wasted) {
            best = canvas;
        }
    }
    let (mut tall, mut wide) = (24.0 * best.0 / 336.0, 24.0 * best.1 / 336.0);
    let rounded = |side: f64| ((side * 1e7).round_ties_even() / 1e7).floor();
    if w / h > wide / tall {
        tall -= 2.0 * ((tall - rounded(h * (wide / w))) / 2.0).floor();
    } else {
        wide -= 2.0 * ((wide - rounded(w * (tall / h))) / 2.0).floor();
    }
    whole(tall * wide + tall) + 576
}

/// `minicpmv.py::get_num_image_tokens`: up to nine slices beside the whole, shaped most like the picture.
fn minicpm(w: f64, h: f64) -> u64 {
    let most = whole((w * h / (448.0 * 448.0)).ceil()).clamp(1, 9);
    if most == 1 {
        return 69;
    }
    let counts = [most - 1, most, most + 1].into_iter().filter(|count| *count != 1 && *count <= 9);
    let grids = counts.flat_map(|count| (1..=count).filter(move |c| count % c == 0).map(move |c| (c, count / c)));
    let off = |(columns, rows): (u64, u64)| ((w / h).ln() - (real(columns) / real(rows)).ln()).abs();
    let best = grids.reduce(|best, grid| if off(grid) < off(best) { grid } else { best });
    let (columns, rows) = best.unwrap_or((1, 1));
    69 + columns * rows * 66 + rows - 1
}

/// `phi4mm.py::_compute_num_image_tokens`: crops of 448, at most 36, without what pads them, and the whole.
fn phi4(w: f64, h: f64) -> u64 {
    let (mut columns, mut rows) = ((w / 448.0).ceil(), (h / 448.0).ceil());
    if columns * rows > 36.0 {
        let (c, r) = closest_ratio(w, h, 36, 448.0);
        (columns, rows) = (real(c), real(r));
    }
    let (wide, tall) = (448.0 * columns, 448.0 * rows);
    let (across, down) = (wide / w, tall / h);
    let (pad_wide, pad_tall) =
        if across < down { (0.0, tall - (h * across).floor()) } else { (wide - (w * down).floor(), 0.0) };
    let cells = |side: f64, pad: f64| {
        let padded = if pad >= 14.0 { (pad / 14.0).floor() } else { 0.0 };
        whole(((side / 14.0 - padded) / 2.0).ceil())
    };
    let (wide, tall) = (cells(wide, pad_wide), cells(tall, pad_tall));
    256 + 1 + wide * tall + tall + 16
}

//! Align Your Steps: noise levels that were optimised for a model.

/// A model whose noise levels were optimised, as a list of `sigma / alpha` for ten steps; other numbers of
/// steps interpolate their logarithms.
///
/// # Reference
/// Sabour et al., "Align Your Steps", 2024, <https://arxiv.org/abs/2404.14507>; the numbers are those its
/// authors published for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ays {
    /// Stable Diffusion 1.5.
    Sd,
    /// Stable Diffusion XL.
    Sdxl,
    /// Stable Video Diffusion.
    Svd,
}

const SD: [f64; 11] = [
    14.6146412293,
    6.4745760956,
    3.8636745985,
    2.6946151520,
    1.8841921177,
    1.3943805092,
    0.9642583904,
    0.6523686016,
    0.3977456272,
    0.1515232662,
    0.0291671582,
];
const SDXL: [f64; 11] = [
    14.6146412293,
    6.3184485287,
    3.7681790315,
    2.1811480769,
    1.3405244945,
    0.8620721141,
    0.5550693289,
    0.3798540708,
    0.2332364134,
    0.1114188177,
    0.0291671582,
];
const SVD: [f64; 11] = [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002];

impl Ays {
    /// The training steps of a run of ten, for [`Spacing::Steps`](crate::Spacing::Steps): rounded from the
    /// same optimum. None were published for video.
    pub fn timesteps(self) -> Option<[f64; 10]> {
        match self {
            Self::Sd => Some([999.0, 850.0, 736.0, 645.0, 545.0, 455.0, 343.0, 233.0, 124.0, 24.0]),
            Self::Sdxl => Some([999.0, 845.0, 730.0, 587.0, 443.0, 310.0, 193.0, 116.0, 53.0, 13.0]),
            Self::Svd => None,
        }
    }

    /// The noisy `sigma / alpha` of a run: of `steps + 1` interpolated ones all but the last, which becomes
    /// clean.
    pub fn ratios(self, steps: usize) -> Vec<f64> {
        let table = match self {
            Self::Sd => SD,
            Self::Sdxl => SDXL,
            Self::Svd => SVD,
        };
        let at = |i: usize| {
            let place = 10.0 * i as f64 / steps as f64;
            let below = (place as usize).min(9);
            let (from, to) = (table[below].ln(), table[below + 1].ln());
            (from + (place - below as f64) * (to - from)).exp()
        };
        (0..steps).map(at).collect()
    }
}

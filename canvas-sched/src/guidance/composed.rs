use super::Pair;
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// Several prompts at once: `null + scale (conditional - null) + sum_i w_i (prompt_i - null)`.
///
/// The weights sum to 1, so it is the same in clean data, noise and velocity. A negative weight moves away from
/// its prompt.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Class, Denoiser, Estimate, Level};
/// use canvas_sched::Composed;
///
/// /// Estimates its own label.
/// struct Label;
/// impl Denoiser<2> for Label {
///     type Cond = Class;
///     fn denoise(&self, x: Tensor<2>, _at: &[Level], cond: &Class) -> Estimate<2> {
///         cond.labels.clone().float().reshape([x.dims()[0], 1]).into()
///     }
/// }
///
/// let device = Device::flex();
/// let at = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }];
/// let (null, cond) = (Class::new(&[1], &device), Class::new(&[3], &device));
/// let x = Tensor::<2>::full([1, 1], 2.0, &device);
/// let (cat, rain) = (Class::new(&[2], &device), Class::new(&[4], &device));
/// let guided = Composed::new(Label, null, 2.0).and(cat, 3.0).and(rain, -1.0);
/// let said = guided.denoise(x, &at, &cond);
/// assert_eq!(said.x0.into_scalar::<f32>(), 5.0); // 1 + 2 (3 - 1) + 3 (2 - 1) - (4 - 1)
/// ```
///
/// # Reference
/// Liu et al., "Compositional Visual Generation with Composable Diffusion Models", 2022,
/// conjunction and negation, <https://arxiv.org/abs/2206.01714>.
#[derive(Clone, Debug)]
pub struct Composed<N, C> {
    /// What is guided, away from what, and where.
    pub pair: Pair<N, C>,
    /// Strength of the condition that the denoiser is given.
    pub scale: f64,
    /// Further prompts and their strengths: one row each, or one per sample.
    pub prompts: Vec<(C, f64)>,
}

impl<N, C> Composed<N, C> {
    /// Without further prompts this is [`Cfg`](super::Cfg), and off at `scale = 1`.
    pub fn new(denoiser: N, null: C, scale: f64) -> Self {
        Self { pair: Pair::new(denoiser, null), scale, prompts: Vec::new() }
    }

    /// The same, with one more prompt.
    pub fn and(mut self, prompt: C, weight: f64) -> Self {
        self.prompts.push((prompt, weight));
        self
    }
}

super::pair::pair_settings!(Composed);

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Composed<N, N::Cond> {
    type Cond = N::Cond;

    /// # Panics
    /// If there are neither one level nor one per sample, or the same of any of the prompts.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        let wanted: Vec<_> = self.prompts.iter().filter(|(_, weight)| *weight != 0.0).collect();
        let mut conds = vec![&self.pair.null];
        conds.extend(wanted.iter().map(|(prompt, _)| prompt));
        let rule = |said: &[Estimate<D>]| {
            let (cond, null) = (said[0].x0.clone(), said[1].x0.clone());
            let start = null.clone() + (cond - null.clone()) * self.scale;
            let pairs = said[2..].iter().zip(&wanted);
            pairs
                .fold(start, |sum, (said, (_, weight))| sum + (said.x0.clone() - null.clone()) * *weight)
                .into()
        };
        let off = self.scale == 1.0 && wanted.is_empty();
        self.pair.guide_all(&x, at, (cond, &conds), (!off).then_some(rule))
    }
}

use super::{Space, choose, inside, ratio, total};
use burn::prelude::*;
use canvas_core::{Condition, Denoiser, Estimate, Level};

/// How a denoiser is asked about several conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// One call of a larger batch: fastest.
    #[default]
    Together,
    /// One call each: the least memory, and the same numbers.
    OneByOne,
}

impl Calls {
    /// What the denoiser says under each of these conditions.
    pub(super) fn ask<const D: usize, N: Denoiser<D>>(
        self,
        denoiser: &N,
        x: &Tensor<D>,
        at: &[Level],
        conds: &[&N::Cond],
    ) -> Vec<Estimate<D>> {
        let (batch, parts) = (x.dims()[0], conds.len());
        assert!(at.len() == 1 || at.len() == batch, "{} levels for a batch of {batch}", at.len());
        let conds: Vec<N::Cond> = conds.iter().map(|cond| cond.spread(batch)).collect();
        if self == Self::OneByOne {
            return conds.iter().map(|cond| denoiser.denoise(x.clone(), at, cond)).collect();
        }
        let many = if at.len() == 1 { at.to_vec() } else { at.repeat(parts) };
        let said = denoiser.denoise(Tensor::cat(vec![x.clone(); parts], 0), &many, &N::Cond::cat(&conds)); // [P B, ..]
        let part = |i| {
            let rows = |whole: &Tensor<D>| whole.clone().narrow(0, i * batch, batch);
            let (eps, variance) = (said.eps.as_ref().map(rows), said.variance.as_ref().map(rows));
            Estimate { x0: rows(&said.x0), eps, variance }
        };
        (0..parts).map(part).collect()
    }
}

/// Guidance rescale: brings the standard deviation of a guided estimate back towards the conditional one's.
///
/// With `g` the guided and `c` the conditional value in [`space`](Self::space), and `std` over all but the
/// sample axis: `g (phi std(c) / std(g) + 1 - phi)`.
///
/// # Reference
/// Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023, section 3.4,
/// <https://arxiv.org/abs/2305.08891>, for a network that predicts `v`: the default here. diffusers'
/// `rescale_noise_cfg` takes the network's raw output, noise or velocity: set the space to that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// How far, 0 (off) to 1; the paper's choice is 0.7.
    pub phi: f64,
    /// Where the standard deviations are taken: they differ.
    pub space: Space,
}

impl Rescale {
    /// In the paper's space, velocity.
    pub fn new(phi: f64) -> Self {
        Self { phi, space: Space::Velocity }
    }

    /// The rescaled estimate. A guided value that is constant over a sample stays as it is.
    fn apply<const D: usize>(
        self,
        x: &Tensor<D>,
        at: &[Level],
        guided: Tensor<D>,
        cond: Tensor<D>,
    ) -> Tensor<D> {
        let [guided, cond] = [guided, cond].map(|x0| self.space.read(x, x0, at));
        let spread = |value: &Tensor<D>| {
            let count = value.shape().num_elements() / value.dims()[0];
            let centred = value.clone() - total(value.clone()) / count as f64;
            total(centred.square()).sqrt()
        };
        let factor = ratio(spread(&cond), spread(&guided), 1.0) * self.phi + (1.0 - self.phi);
        self.space.write(x, guided * factor, at)
    }
}

/// What the methods share that compare a condition with a null condition.
#[derive(Clone, Debug)]
pub struct Pair<N, C> {
    /// What is guided.
    pub denoiser: N,
    /// The condition to move away from: "no class", the empty or a negative prompt. One row, or one per
    /// sample.
    pub null: C,
    /// Guide only while `sigma / alpha` lies in this range, ends included.
    pub range: (f64, f64),
    /// One call for both conditions, or two.
    pub calls: Calls,
    /// Bring the standard deviation back.
    pub rescale: Option<Rescale>,
}

impl<N, C> Pair<N, C> {
    /// At every level, in one call, without rescaling.
    pub fn new(denoiser: N, null: C) -> Self {
        Self { denoiser, null, range: (0.0, f64::INFINITY), calls: Calls::Together, rescale: None }
    }

    /// Whether a level is guided.
    pub(super) fn guides(&self, level: Level) -> bool {
        inside(self.range, level)
    }
}

impl<N, C: Condition> Pair<N, C> {
    /// The conditional and the guided estimate, before rescaling. `rule` is given the estimates under `cond` and
    /// `others`; without it (guidance is off), or outside of the range, only `cond` is asked, and both are alike.
    pub(super) fn parts<const D: usize>(
        &self,
        x: &Tensor<D>,
        at: &[Level],
        (cond, others): (&C, &[&C]),
        rule: Option<impl FnOnce(&[Estimate<D>]) -> Estimate<D>>,
    ) -> (Estimate<D>, Estimate<D>)
    where
        N: Denoiser<D, Cond = C>,
    {
        let Some(rule) = rule.filter(|_| at.iter().any(|&level| self.guides(level))) else {
            let plain = self.denoiser.denoise(x.clone(), at, cond);
            return (plain.clone(), plain);
        };
        let said = self.calls.ask(&self.denoiser, x, at, &[&[cond], others].concat());
        let plain = said[0].clone();
        let guided = Estimate { variance: plain.variance.clone(), ..rule(&said) };
        (plain.clone(), choose(x, at, |level| self.guides(level), guided, plain))
    }

    /// Rescales a guided estimate, if asked to, at the levels of a kind.
    pub(super) fn rescaled<const D: usize>(
        &self,
        x: &Tensor<D>,
        at: &[Level],
        kind: impl Fn(Level) -> bool,
        (plain, guided): (Estimate<D>, Estimate<D>),
    ) -> Estimate<D> {
        let Some(rescale) = self.rescale.filter(|rescale| rescale.phi != 0.0) else { return guided };
        let x0 = rescale.apply(x, at, guided.x0.clone(), plain.x0);
        choose(x, at, kind, Estimate { x0, ..guided.clone() }, guided)
    }

    /// The guided estimate, rescaled. `rule` as in [`parts`](Self::parts).
    pub(super) fn guide_all<const D: usize>(
        &self,
        x: &Tensor<D>,
        at: &[Level],
        conds: (&C, &[&C]),
        rule: Option<impl FnOnce(&[Estimate<D>]) -> Estimate<D>>,
    ) -> Estimate<D>
    where
        N: Denoiser<D, Cond = C>,
    {
        if rule.is_none() {
            return self.denoiser.denoise(x.clone(), at, conds.0);
        }
        self.rescaled(x, at, |level| self.guides(level), self.parts(x, at, conds, rule))
    }

    /// The same from the conditional and the null estimate.
    pub(super) fn guide<const D: usize>(
        &self,
        x: &Tensor<D>,
        at: &[Level],
        cond: &C,
        rule: Option<impl FnOnce(&Estimate<D>, &Estimate<D>) -> Estimate<D>>,
    ) -> Estimate<D>
    where
        N: Denoiser<D, Cond = C>,
    {
        self.guide_all(x, at, (cond, &[&self.null]), rule.map(of_two))
    }
}

/// A rule of two estimates as one of a list.
pub(super) fn of_two<const D: usize>(
    rule: impl FnOnce(&Estimate<D>, &Estimate<D>) -> Estimate<D>,
) -> impl FnOnce(&[Estimate<D>]) -> Estimate<D> {
    |said| rule(&said[0], &said[1])
}

/// The settings of [`Pair`] as methods of a guidance type with a field `pair`.
macro_rules! pair_settings {
    ($name:ident) => {
        impl<N, C> $name<N, C> {
            /// The same, only while `sigma / alpha` lies within `[low, high]`.
            pub fn within(mut self, low: f64, high: f64) -> Self {
                self.pair.range = (low, high);
                self
            }

            /// The same, with one call of the denoiser for each condition: less memory, more time.
            pub fn one_by_one(mut self) -> Self {
                self.pair.calls = $crate::guidance::Calls::OneByOne;
                self
            }

            /// The same, rescaled.
            pub fn rescaled(mut self, rescale: $crate::guidance::Rescale) -> Self {
                self.pair.rescale = Some(rescale);
                self
            }
        }
    };
}
pub(super) use pair_settings;

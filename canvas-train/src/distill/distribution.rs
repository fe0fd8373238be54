//! Distribution matching: a generator whose drawings a teacher and a student of them cannot tell apart.

use crate::Noised;
use crate::objective::mean_of_each;
use burn::prelude::*;
use canvas_core::Denoiser;

/// Losses `[B]` of what a generator drew, whose gradient by each number of it is what moves its distribution towards the
/// teacher's: `g = (fake - real) / mean|x0 - real|`, both clean estimates of the drawing, noised.
///
/// `noised` is made of the drawing, with its gradient: [`Noised::new`]`(drawn, eps, at)`, at levels of any distribution. `fake` is
/// a denoiser that is trained on drawings alone, by its own [`Objective`](crate::Objective), a few steps for each of the
/// generator's; `real` the teacher, guided or not. Neither is given a gradient.
///
/// The loss itself is `mean(g^2) / 2`, and says nothing of progress.
///
/// Where a drawing is exactly what the teacher estimates, the denominator is held above 1e-8.
///
/// A generator of several steps draws from several levels. A fake denoiser of all its drawings makes them right *together*: each
/// level's may be wrong where another's make up for it. Where only the last step's are used, tell the fake denoiser the level by its
/// condition; the paper does not.
///
/// # Reference
/// Yin et al., "Improved Distribution Matching Distillation", 2024, equation 2, <https://arxiv.org/abs/2405.14867>; the
/// denominator: Yin et al., "One-step Diffusion with Distribution Matching Distillation", 2023, equation 8, <https://arxiv.org/abs/2311.18828>.
pub fn matching<const D: usize, R: Denoiser<D>, F: Denoiser<D, Cond = R::Cond>>(
    noised: &Noised<D>,
    (real, fake): (&R, &F),
    cond: &R::Cond,
) -> Tensor<1> {
    let (x, drawn) = (noised.x.clone().inner(), noised.x0.clone().inner());
    let real = real.denoise(x.clone(), &noised.at, cond).x0.inner();
    let fake = fake.denoise(x, &noised.at, cond).x0.inner();
    let mut shape = [1; D];
    shape[0] = drawn.dims()[0];
    let size = mean_of_each((drawn - real.clone()).abs()).clamp_min(1e-8);
    with_gradient(noised.x0.clone(), (fake - real) / size.reshape(shape))
}

/// A loss `[B]` whose gradient by `x` is a given one, over the count of a sample's numbers: `mean((x - sg(x - g))^2) / 2`.
///
/// # Shapes
/// - `x`, `gradient`: `[B, C, ..]`
pub fn with_gradient<const D: usize>(x: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    let wanted = x.clone().inner() - gradient.inner();
    mean_of_each((x - wanted).square()) * 0.5
}

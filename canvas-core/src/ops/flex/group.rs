//! Group norm with the activation that follows it.

use super::pointwise::{Curve, Use, with};
use super::simd::{dispatch, each, fresh, rewrite, sum, total, write, written, zeros};
use crate::nn::Activation;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// Sizes of a group norm of `[B, C, S]`.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// `B`.
    pub batch: usize,
    /// `C`, which the groups divide.
    pub channels: usize,
    /// Numbers of a channel of a sample.
    pub size: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Groups {
    /// Channels of a group.
    fn each(&self) -> usize {
        self.channels / self.groups
    }

    /// Numbers of a group of a sample: they lie together.
    fn numbers(&self) -> usize {
        self.each() * self.size
    }
}

/// `activation((x - mean) / deviation * weight + bias)`, and for each sample's groups `[mean, 1 / deviation]`.
pub fn norm(
    sizes: Groups,
    activation: Option<Activation>,
    x: &[f32],
    [weight, bias]: [&[f32]; 2],
) -> (Vec<f32>, Vec<[f32; 2]>) {
    let job = Forward { sizes, x, weight, bias };
    activation.map_or_else(|| job.with(Straight), |activation| with(activation, job))
}

/// Gradients of `x`, of the weight and of the bias.
pub fn norm_backward(
    sizes: Groups,
    activation: Option<Activation>,
    x: &[f32],
    [weight, bias]: [&[f32]; 2],
    stats: &[[f32; 2]],
    grad: &[f32],
) -> [Vec<f32>; 3] {
    let job = Backward { sizes, x, weight, bias, stats, grad };
    activation.map_or_else(|| job.with(Straight), |activation| with(activation, job))
}

/// Sums of channels over samples and places: the gradient of a convolution's bias.
pub fn channel_sums(x: &[f32], channels: usize, size: usize) -> Vec<f32> {
    let mut sums = vec![0.0; x.len() / size.max(1)];
    let tasks: Vec<_> = x.chunks(size.max(1)).zip(&mut sums).map(|(x, sum)| Sum { x, sum }).collect();
    each(tasks, dispatch);
    total(channels, channels, sums.chunks(channels).map(|sums| (0, sums)))
}

struct Sum<'a> {
    x: &'a [f32],
    sum: &'a mut f32,
}

impl WithSimd for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        *self.sum = sum(simd, [self.x], |[x]| x);
    }
}

/// No activation.
#[derive(Clone, Copy)]
struct Straight;

impl Curve for Straight {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
        (x, simd.splat_f32s(1.0))
    }
}

#[derive(Clone, Copy)]
struct Forward<'a> {
    sizes: Groups,
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
}

impl Use for Forward<'_> {
    type Output = (Vec<f32>, Vec<[f32; 2]>);

    fn with(self, curve: impl Curve) -> Self::Output {
        let Self { sizes, x, weight, bias } = self;
        let (mut y, mut stats) = (fresh(x.len()), vec![[0.0; 2]; sizes.batch * sizes.groups]);
        let (numbers, channels) = (sizes.numbers().max(1), sizes.each());
        let tasks: Vec<_> = x
            .chunks(numbers)
            .zip(y.chunks_mut(numbers))
            .zip(&mut stats)
            .enumerate()
            .map(|(i, ((x, y), stats))| {
                let own = i % sizes.groups * channels..(i % sizes.groups + 1) * channels;
                ForwardTask { curve, sizes, x, weight: &weight[own.clone()], bias: &bias[own], y, stats }
            })
            .collect();
        each(tasks, dispatch);
        (written(y), stats)
    }
}

struct ForwardTask<'a, C> {
    curve: C,
    sizes: Groups,
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    y: &'a mut [MaybeUninit<f32>],
    stats: &'a mut [f32; 2],
}

impl<C: Curve> WithSimd for ForwardTask<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { curve, sizes, x, weight, bias, y, stats } = self;
        let mean = average(simd, x, sizes.size, |x| x);
        let middle = simd.splat_f32s(mean);
        let variance = average(simd, x, sizes.size, |x| {
            let x = simd.sub_f32s(x, middle);
            simd.mul_f32s(x, x)
        });
        let inverse = 1.0 / (variance + sizes.epsilon).sqrt();
        *stats = [mean, inverse];
        let rows = x.chunks(sizes.size).zip(y.chunks_mut(sizes.size)).zip(weight.iter().zip(bias));
        for ((x, y), (weight, bias)) in rows {
            let (factor, shift) = (simd.splat_f32s(inverse * weight), simd.splat_f32s(*bias));
            write(
                simd,
                [x],
                y,
                #[inline(always)]
                |[x]| curve.at(simd, simd.mul_add_e_f32s(simd.sub_f32s(x, middle), factor, shift)).0,
            );
        }
    }
}

/// The mean of a function; row by row, whose sums stay small and exact.
#[inline(always)]
fn average<S: Simd>(simd: S, x: &[f32], row: usize, function: impl Fn(S::f32s) -> S::f32s) -> f32 {
    let mut total = 0.0;
    for x in x.chunks(row) {
        total += sum(simd, [x], |[x]| function(x));
    }
    total / x.len() as f32
}

#[derive(Clone, Copy)]
struct Backward<'a> {
    sizes: Groups,
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    stats: &'a [[f32; 2]],
    grad: &'a [f32],
}

impl Use for Backward<'_> {
    type Output = [Vec<f32>; 3];

    fn with(self, curve: impl Curve) -> Self::Output {
        let Self { sizes, x, weight, bias, stats, grad } = self;
        let (numbers, channels) = (sizes.numbers().max(1), sizes.each());
        let mut dx = zeros(x.len());
        let mut parts = vec![[0.0; 2]; sizes.batch * sizes.channels]; // of weight and bias, of each sample
        let tasks: Vec<_> = x
            .chunks(numbers)
            .zip(grad.chunks(numbers))
            .zip(dx.chunks_mut(numbers).zip(parts.chunks_mut(channels)))
            .zip(stats)
            .enumerate()
            .map(|(i, (((x, grad), (dx, parts)), &stats))| {
                let own = i % sizes.groups * channels..(i % sizes.groups + 1) * channels;
                let (weight, bias) = (&weight[own.clone()], &bias[own]);
                BackwardTask { curve, size: sizes.size, x, grad, weight, bias, stats, dx, parts }
            })
            .collect();
        each(tasks, dispatch);
        let sums = |which: usize| {
            let parts: Vec<f32> = parts.iter().map(|part| part[which]).collect();
            total(sizes.channels, sizes.channels, parts.chunks(sizes.channels.max(1)).map(|part| (0, part)))
        };
        [dx, sums(0), sums(1)]
    }
}

struct BackwardTask<'a, C> {
    curve: C,
    size: usize,
    x: &'a [f32],
    grad: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    stats: [f32; 2],
    dx: &'a mut [f32],
    parts: &'a mut [[f32; 2]],
}

impl<C: Curve> WithSimd for BackwardTask<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { curve, size, x, grad, weight, bias, stats: [mean, inverse], dx, parts } = self;
        let (middle, factor) = (simd.splat_f32s(mean), simd.splat_f32s(inverse));
        let normal = |x| simd.mul_f32s(simd.sub_f32s(x, middle), factor);
        let (mut along, mut across) = (0.0, 0.0);
        let channels = weight.iter().zip(bias).zip(parts);
        let rows = || x.chunks(size).zip(grad.chunks(size));
        for (((x, grad), dx), ((weight, bias), [dw, db])) in rows().zip(dx.chunks_mut(size)).zip(channels) {
            let (scale, shift) = (simd.splat_f32s(*weight), simd.splat_f32s(*bias));
            // Before the activation; kept where the answer goes, since a slope costs more than a look at memory.
            rewrite(
                simd,
                [x, grad],
                dx,
                #[inline(always)]
                |[x, grad], _| {
                    simd.mul_f32s(grad, curve.at(simd, simd.mul_add_e_f32s(normal(x), scale, shift)).1)
                },
            );
            *dw = sum(simd, [x, dx], |[x, before]| simd.mul_f32s(before, normal(x)));
            *db = sum(simd, [dx], |[before]| before);
            along += weight * *dw;
            across += weight * *db;
        }
        let [along, across] = [along, across].map(|sum| simd.splat_f32s(sum / x.len() as f32));
        for ((x, dx), weight) in x.chunks(size).zip(dx.chunks_mut(size)).zip(weight) {
            let scale = simd.splat_f32s(*weight);
            rewrite(simd, [x], dx, |[x], before| {
                let own = simd.mul_add_e_f32s(before, scale, simd.neg_f32s(across));
                simd.mul_f32s(factor, simd.negate_mul_add_e_f32s(normal(x), along, own))
            });
        }
    }
}

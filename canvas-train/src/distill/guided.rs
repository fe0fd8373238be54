//! Guidance as something a network is told, so that a student needs no second evaluation for it.

use burn::prelude::*;
use canvas_core::nn::sinusoidal;
use canvas_core::{Condition, Denoiser, Estimate, Level};

/// How strongly each sample is guided; 1 is not at all.
///
/// A student's condition is a pair of this and what its teacher is conditioned on.
#[derive(Clone, Debug)]
pub struct GuidanceScale {
    /// Scales, `[B]`.
    pub values: Tensor<1>,
}

impl GuidanceScale {
    /// From numbers on the host.
    pub fn new(scales: &[f64], device: &Device) -> Self {
        Self { values: Tensor::from_data(TensorData::new(scales.to_vec(), [scales.len()]), device) }
    }

    /// Uniform from `low` to `high`, for draws from `[0, 1)`; the paper draws `w = scale - 1`, from 2 to 14.
    pub fn uniform([low, high]: [f64; 2], draws: &[f64], device: &Device) -> Self {
        let scales: Vec<f64> = draws.iter().map(|draw| low + draw * (high - low)).collect();
        Self::new(&scales, device)
    }

    /// Sines, then cosines, of `1000 (scale - 1)` times `10000^(-i / (width/2 - 1))`: what latent consistency models add to the
    /// embedding of time by a layer without a bias.
    ///
    /// # Shapes
    /// `[B, width]`
    ///
    /// # Panics
    /// If `width` is odd or below 4.
    ///
    /// # Reference
    /// The code of Kingma et al.'s "Variational Diffusion Models", which Luo et al., 2023, take over; 256 or 512 wide there.
    pub fn features(&self, width: usize) -> Tensor<2> {
        assert!(width >= 4 && width.is_multiple_of(2), "{width} sines and cosines of a scale");
        let half = width as f64 / 2.0;
        // Frequencies down to 1/10000 itself, where DiT's end one before it.
        let period = 10_000f64.powf(half / (half - 1.0));
        let waves = sinusoidal((self.values.clone() - 1.0) * 1000.0, width, period);
        let [cos, sin] = [0, width / 2].map(|start| waves.clone().narrow(1, start, width / 2));
        Tensor::cat(vec![sin, cos], 1)
    }
}

impl Condition for GuidanceScale {
    fn batch(&self) -> usize {
        self.values.dims()[0]
    }
    fn cat(parts: &[Self]) -> Self {
        Self { values: Tensor::cat(parts.iter().map(|part| part.values.clone()).collect(), 0) }
    }
    fn select(&self, rows: &[usize]) -> Self {
        let indices: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let indices = Tensor::from_data(TensorData::new(indices, [rows.len()]), &self.values.device());
        Self { values: self.values.clone().select(0, indices) }
    }
}

/// A teacher that is guided by the scale of each sample's condition: `null + scale (conditional - null)`, two evaluations.
///
/// Its trajectory is the ODE that latent consistency models and guided distillation distil, the student being told the scale; for a
/// student of one scale `canvas_sched::Cfg` is the teacher.
///
/// # Reference
/// Luo et al., "Latent Consistency Models", 2023, equation 8, <https://arxiv.org/abs/2310.04378>; Meng et al., "On Distillation of
/// Guided Diffusion Models", 2022, equation 2, <https://arxiv.org/abs/2210.03142>. Their `w` is `scale - 1`.
#[derive(Clone, Debug)]
pub struct Guided<N, C> {
    /// The teacher.
    pub denoiser: N,
    /// What it is guided away from: one row, or one a sample.
    pub null: C,
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Guided<N, N::Cond> {
    type Cond = (GuidanceScale, N::Cond);

    /// # Panics
    /// If there are not as many scales as samples.
    fn denoise(&self, x: Tensor<D>, at: &[Level], (scale, cond): &Self::Cond) -> Estimate<D> {
        let batch = x.dims()[0];
        let mut shape = [1; D];
        shape[0] = batch;
        assert_eq!(scale.batch(), batch, "guidance scales of a batch");
        let scale = scale.values.clone().cast(x.dtype()).reshape(shape);
        let plain = self.denoiser.denoise(x.clone(), at, cond);
        let null = self.denoiser.denoise(x, at, &self.null.spread(batch)).x0;
        let x0 = null.clone() + (plain.x0 - null) * scale;
        Estimate { x0, eps: None, variance: plain.variance }
    }
}

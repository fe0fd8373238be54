//! The published network: an energy, whose slope is what it says.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use canvas_core::ops::silu;
use canvas_core::{Backbone, Unconditional};
use canvas_unet::magnitude::{MpLinear, mp_silu, normalized};

/// Root mean square of SiLU of a standard normal variable, by which [`mp_silu`] divides.
const SILU: f64 = 0.596;

/// A log-density `gain mean(y^2) / sigma - |x|^2 / 2`, of outputs `y` of a perceptron that preserves magnitudes and of `x` scaled to
/// unit variance.
///
/// Its slope, the score, is EDM's preconditioning of a network: the last term's is the skip, and what [`forward`](Backbone::forward)
/// gives is `gain / sigma_data` times the slope of `mean(y^2)`. The slope is computed layer by layer, as a backward pass, so that its
/// own gradient can be taken.
///
/// Karras et al., 2024, appendix C, <https://arxiv.org/abs/2406.02507>.
#[derive(Module, Debug)]
pub struct Energy {
    layers: Vec<MpLinear>,
    gain: Param<Tensor<1>>,
    sigma_data: f64,
}

impl Energy {
    /// Four hidden layers of this width; the gain starts at 0.
    pub fn new(width: usize, sigma_data: f64, device: &Device) -> Self {
        const HIDDEN: usize = 4;
        let from = |layer: usize| if layer == 0 { 4 } else { width };
        let layers = (0..=HIDDEN).map(|layer| MpLinear::new(from(layer), width, device)).collect();
        Self { layers, gain: Param::from_tensor(Tensor::zeros([1], device)), sigma_data }
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.gain.val().device()
    }
}

impl Backbone<2> for Energy {
    type Cond = Unconditional;

    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        let time = time.unsqueeze_dim::<2>(1); // [B, 1]
        let mut h = Tensor::cat(vec![x, time.clone(), time.ones_like()], 1); // [B, 4]
        let (mut weights, mut before) = (Vec::new(), Vec::new());
        for (number, layer) in self.layers.iter().enumerate() {
            if number > 0 {
                before.push(h.clone());
                h = mp_silu(h);
            }
            let from = layer.weight.dims()[1] as f64;
            let weight = normalized(layer.weight.val(), 1) / from.sqrt(); // [W, W]
            h = h.matmul(weight.clone().transpose()); // [B, W]
            weights.push(weight);
        }
        let outputs = h.dims()[1] as f64;
        let mut slope = h * (2.0 / outputs); // [B, W]
        for weight in weights.into_iter().rev() {
            slope = slope.matmul(weight); // [B, W], at last [B, 4]
            if let Some(a) = before.pop() {
                let s = sigmoid(a.clone());
                let rise = s.clone() + silu(a) * (s.neg() + 1.0);
                slope = slope * rise / SILU;
            }
        }
        slope.narrow(1, 0, 2) * self.gain.val().unsqueeze() / self.sigma_data // [B, 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canvas_core::params;
    use canvas_sched::predict;

    /// The clean estimate against differences of the log-density as it is written in the paper.
    #[test]
    fn what_it_says_is_the_slope_of_its_energy() {
        let device = Device::flex();
        device.seed(3);
        let mut network = params::realise(Energy::new(8, 0.5, &device));
        network.gain = Param::from_tensor(Tensor::from_floats([0.7], &device));
        let (sigma, point) = (0.3f64, [0.4f64, -0.2]);
        let spread = sigma.hypot(0.5);
        let weights: Vec<Vec<Vec<f64>>> = network
            .layers
            .iter()
            .map(|layer| {
                let width = layer.weight.dims()[1];
                let values: Vec<f64> = layer.weight.val().to_data().iter::<f64>().collect();
                let unit = |row: &[f64]| {
                    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt() / (width as f64).sqrt() + 1e-4;
                    row.iter().map(|x| x / norm / (width as f64).sqrt()).collect()
                };
                values.chunks(width).map(unit).collect()
            })
            .collect();
        let log_density = |point: [f64; 2]| {
            let x = point.map(|x| x / spread);
            let mut h = vec![x[0], x[1], sigma.ln() / 4.0, 1.0];
            for (number, weight) in weights.iter().enumerate() {
                if number > 0 {
                    h.iter_mut().for_each(|a| *a /= (1.0 + (-*a).exp()) * SILU);
                }
                h = weight.iter().map(|row| row.iter().zip(&h).map(|(w, x)| w * x).sum()).collect();
            }
            let mean = h.iter().map(|y| y * y).sum::<f64>() / h.len() as f64;
            0.7 * mean / sigma - 0.5 * (x[0] * x[0] + x[1] * x[1])
        };
        let slope = [0, 1].map(|axis| {
            let at = |by: f64| {
                let mut moved = point;
                moved[axis] += by;
                log_density(moved)
            };
            (at(1e-5) - at(-1e-5)) / 2e-5
        });
        use canvas_core::{Denoiser, Level, Preconditioned};
        let denoiser = Preconditioned { backbone: &network, prediction: &predict::Edm { sigma_data: 0.5 } };
        let x = Tensor::from_floats([point.map(|x| x as f32)], &device);
        let level = Level { time: 0.0, alpha: 1.0, sigma };
        let found: Vec<f64> =
            denoiser.denoise(x, &[level], &Unconditional(1)).x0.to_data().iter::<f64>().collect();
        for axis in 0..2 {
            let wanted = point[axis] + sigma * sigma * slope[axis];
            assert!((found[axis] - wanted).abs() < 1e-5, "axis {axis}: {} and {wanted}", found[axis]);
        }
    }
}

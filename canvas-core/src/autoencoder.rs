//! Autoencoders: between images and the latents a denoiser works on.

use burn::prelude::*;

/// A diagonal Gaussian over latents.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// Mean `[B, C, h, w]`.
    pub mean: Tensor<4>,
    /// Natural log of the variance, of the same shape; `None` for an encoder without spread.
    pub log_variance: Option<Tensor<4>>,
}

impl Posterior {
    /// The most likely latents.
    pub fn mode(&self) -> Tensor<4> {
        self.mean.clone()
    }

    /// Latents drawn with the given standard normal noise.
    pub fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        match &self.log_variance {
            Some(log_variance) => self.mean.clone() + (log_variance.clone() * 0.5).exp() * noise,
            None => self.mean.clone(),
        }
    }

    /// Kullback-Leibler divergence to the standard normal, summed over all but the sample axis: `[B]`, nats.
    ///
    /// `0.5 * sum(mean^2 + variance - 1 - log variance)`; zero variance terms when there is no spread.
    pub fn kl(&self) -> Tensor<1> {
        let batch = self.mean.dims()[0];
        let square = self.mean.clone().square();
        let terms = match &self.log_variance {
            Some(log) => square + log.clone().exp() - 1.0 - log.clone(),
            None => square,
        };
        let terms: Tensor<2> = terms.flatten(1, 3);
        (terms.sum_dim(1) * 0.5).reshape([batch])
    }
}

/// An autoencoder between images in `[-1, 1]` and latents.
pub trait Autoencoder {
    /// # Shapes
    /// - `images`: `[B, 3, H, W]` in `[-1, 1]`
    /// - output: a distribution over `[B, C, h, w]`
    fn encode(&self, images: Tensor<4>) -> Posterior;

    /// # Shapes
    /// - `latents`: `[B, C, h, w]`, in the encoder's own units
    /// - output: `[B, 3, H, W]`, about `[-1, 1]`, not clamped
    fn decode(&self, latents: Tensor<4>) -> Tensor<4>;

    /// Shape `[C, h, w]` of the latents of one `height` by `width` image.
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3];
}

/// Per-channel shift and scale between an encoder's latents and the unit-variance latents a denoiser sees.
///
/// `normalised = (latent - shift) * scale`. Stable Diffusion's `scaling_factor` and `shift_factor` are this
/// with [one value for all channels](Self::uniform); Qwen-Image has a [mean and a spread for each](Self::per_channel).
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::LatentScale;
/// let scale = LatentScale::per_channel(&[1.0, 2.0], &[0.5, 4.0]);
/// let latents: Tensor<4> = Tensor::full([1, 2, 3, 3], 2.0, &Device::flex());
/// let seen: Vec<f32> = scale.normalise(latents).into_data().iter::<f32>().collect();
/// assert_eq!((seen[0], seen[9]), (2.0, 0.0));
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LatentScale {
    /// Subtracted from each channel, in the encoder's units.
    pub shift: Vec<f32>,
    /// Factor of each channel after the shift.
    pub scale: Vec<f32>,
}

impl LatentScale {
    /// One shift and one scale for all channels.
    pub fn uniform(channels: usize, shift: f32, scale: f32) -> Self {
        Self { shift: vec![shift; channels], scale: vec![scale; channels] }
    }

    /// From each channel's mean and standard deviation: the scale is `1 / std`.
    ///
    /// # Panics
    /// If there are not as many of one as of the other.
    pub fn per_channel(mean: &[f64], std: &[f64]) -> Self {
        assert!(mean.len() == std.len(), "{} means of channels, {} deviations", mean.len(), std.len());
        let shift = mean.iter().map(|&mean| mean as f32).collect();
        Self { shift, scale: std.iter().map(|&std| (1.0 / std) as f32).collect() }
    }

    /// Measures channel means and standard deviations of a set of latents `[N, C, h, w]`.
    pub fn measure(latents: Tensor<4>) -> Self {
        let channels = latents.dims()[1];
        let rows: Tensor<2> = latents.swap_dims(0, 1).flatten(1, 3);
        let shift: Vec<f32> = rows.clone().mean_dim(1).into_data().iter::<f32>().collect();
        let spread: Vec<f32> = rows.var(1).sqrt().into_data().iter::<f32>().collect();
        debug_assert_eq!(shift.len(), channels);
        Self { shift, scale: spread.into_iter().map(|std| 1.0 / std.max(1e-6)).collect() }
    }

    fn row(values: &[f32], device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), [1, values.len(), 1, 1]), device)
    }

    fn check(&self, latents: &Tensor<4>) {
        let (channels, here) = (latents.dims()[1], self.shift.len());
        assert!(here == channels, "latents have {channels} channels, but their scale is of {here}");
    }

    /// From the encoder's units to about zero mean and unit variance.
    ///
    /// # Panics
    /// If the latents have another number of channels.
    pub fn normalise(&self, latents: Tensor<4>) -> Tensor<4> {
        self.check(&latents);
        let device = latents.device();
        (latents - Self::row(&self.shift, &device)) * Self::row(&self.scale, &device)
    }

    /// Back to the encoder's units.
    ///
    /// # Panics
    /// If the latents have another number of channels.
    pub fn restore(&self, latents: Tensor<4>) -> Tensor<4> {
        self.check(&latents);
        let device = latents.device();
        latents / Self::row(&self.scale, &device) + Self::row(&self.shift, &device)
    }
}

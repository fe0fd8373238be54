//! Where the noise of a run comes from: a seed, as PyTorch would draw it, or a file.

use super::picture::describe;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::weights::Source;
use canvas_core::{Noise, TorchCpu};
use std::path::Path;

/// The noise of a run, in the order in which diffusers draws it.
pub enum Draws {
    /// Image `k` has PyTorch's generator of seed `N + k`, whatever else is in the batch.
    Seeded(Vec<TorchCpu>),
    /// Recorded draws.
    Recorded(Box<Recorded>),
}

/// The tensors of a `--noise` file.
pub struct Recorded {
    source: Source,
    device: Device,
    /// `[draws, B, C, h, w]`.
    steps: Option<Tensor<5>>,
    used: usize,
}

impl Draws {
    /// For images `N, N + 1, ..`.
    pub fn seeded(seed: u64, batch: usize) -> Self {
        Self::Seeded((0..batch as u64).map(|image| TorchCpu::new(seed.wrapping_add(image))).collect())
    }

    /// From a file.
    ///
    /// # Errors
    /// If it cannot be read or holds something else.
    pub fn recorded(path: &Path, device: &Device) -> Result<Self> {
        let source = Source::open(path, None)?;
        let known = ["latents", "noise", "step_noise", "posterior", "posterior_masked"];
        if let Some(key) = source.keys().find(|key| !known.contains(key)) {
            bail!("{}: {key}: not a kind of noise; expected some of {}", path.display(), known.join(", "));
        }
        let steps = match source.shape("step_noise") {
            None => None,
            Some([_, _, _, _, _]) => Some(Tensor::from_data(source.read("step_noise")?, device)),
            Some(found) => {
                bail!("{}: step_noise: expected [draws, B, C, h, w], found {found:?}", path.display())
            }
        };
        Ok(Self::Recorded(Box::new(Recorded { source, device: device.clone(), steps, used: 0 })))
    }

    /// The unit noise that a run starts from: `latents` of text-to-image, `noise` where there is a picture.
    ///
    /// # Errors
    /// If the file does not hold it, or in another shape.
    pub fn start(&mut self, key: &str, dims: [usize; 4], device: &Device) -> Result<Tensor<4>> {
        match self {
            Self::Seeded(_) => Ok(self.normal_like(&Tensor::zeros(dims, device))),
            Self::Recorded(recorded) => recorded
                .tensor(key, dims)?
                .with_context(|| format!("{}: expected {key} {}", recorded.path(), describe(&dims))),
        }
    }

    /// Whether this is a file that holds one tensor and not the other.
    pub fn has_but_not(&self, one: &str, other: &str) -> bool {
        let there = |recorded: &Recorded, key| recorded.source.shape(key).is_some();
        matches!(self, Self::Recorded(recorded) if there(recorded, one) && !there(recorded, other))
    }

    /// The unit noise of an autoencoder's posterior; `None` in a file without it: the mean is taken.
    ///
    /// # Errors
    /// If the file holds it in another shape.
    pub fn posterior(&mut self, key: &str, dims: [usize; 4], device: &Device) -> Result<Option<Tensor<4>>> {
        match self {
            Self::Seeded(_) => Ok(Some(self.normal_like(&Tensor::zeros(dims, device)))),
            Self::Recorded(recorded) => {
                // One draw for the one picture, or one for each image.
                let one = recorded.source.shape(key).is_some_and(|shape| shape.first() == Some(&1));
                let dims = if one { [1, dims[1], dims[2], dims[3]] } else { dims };
                recorded.tensor(key, dims)
            }
        }
    }

    /// An error if a file has fewer draws than a run asks for, or of another shape.
    ///
    /// # Errors
    /// Names the file, what was expected and what was found.
    pub fn check_steps(&self, draws: usize, dims: [usize; 4]) -> Result<()> {
        let Self::Recorded(recorded) = self else { return Ok(()) };
        if draws == 0 {
            return Ok(());
        }
        let expected = format!("step_noise [at least {draws}, {}]", describe(&dims).trim_matches(['[', ']']));
        let Some(steps) = &recorded.steps else {
            bail!("{}: expected {expected}: this scheduler draws noise in its steps", recorded.path());
        };
        let found = steps.dims();
        if found[1..] != dims[..] || found[0] < draws {
            bail!("{}: step_noise: expected {expected}, found {}", recorded.path(), describe(&found));
        }
        Ok(())
    }
}

impl Recorded {
    fn path(&self) -> String {
        self.source.path().display().to_string()
    }

    fn tensor(&self, key: &str, dims: [usize; 4]) -> Result<Option<Tensor<4>>> {
        let Some(found) = self.source.shape(key) else { return Ok(None) };
        if found != dims {
            bail!("{}: {key}: expected {}, found {}", self.path(), describe(&dims), describe(found));
        }
        Ok(Some(Tensor::from_data(self.source.read(key)?, &self.device)))
    }
}

impl Noise<4> for Draws {
    /// # Panics
    /// If a file has no draw left: [`check_steps`](Self::check_steps) comes first.
    fn normal_like(&mut self, x: &Tensor<4>) -> Tensor<4> {
        match self {
            Self::Seeded(generators) => {
                let [_, channels, height, width] = x.dims();
                let one = Tensor::zeros([1, channels, height, width], (&x.device(), x.dtype()));
                Tensor::cat(generators.iter_mut().map(|torch| torch.normal_like(&one)).collect(), 0)
            }
            Self::Recorded(recorded) => {
                let steps = recorded.steps.as_ref().expect("checked before the run");
                let draw = steps.clone().narrow(0, recorded.used, 1).squeeze_dim::<4>(0);
                recorded.used += 1;
                draw
            }
        }
    }
}

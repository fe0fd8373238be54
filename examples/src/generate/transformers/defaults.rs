//! What pipelines take where nothing is said, and within which bounds.

use super::bin_tables;

/// What a pipeline takes where nothing is said.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Height and width in pixels.
    pub size: [usize; 2],
    /// What both must be a multiple of.
    pub multiple: usize,
    /// Steps of the scheduler.
    pub steps: usize,
    /// The guidance scale.
    pub guidance: Guidance,
    /// Tokens of a prompt, where it reads any.
    pub length: Option<Length>,
    /// How much of a picture is drawn anew, where the pipeline can start from one.
    pub strength: Option<f64>,
    /// Which sizes are drawn.
    pub sizes: Sizes,
}

/// How many tokens of a prompt a pipeline reads.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// Where nothing is said.
    pub own: usize,
    /// At most, if there is a limit.
    pub most: Option<usize>,
}

impl Length {
    /// So many, without a limit.
    pub fn any(own: usize) -> Self {
        Self { own, most: None }
    }

    /// So many, and no more than those.
    pub fn up_to(own: usize, most: usize) -> Self {
        Self { own, most: Some(most) }
    }
}

/// Sizes of a network, which checks and estimates of memory go by.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Channels of the latents that it draws.
    pub channels: usize,
    /// Latents of a side per token.
    pub patch: usize,
    /// Width of its tokens.
    pub width: usize,
    /// Tokens beside those of the picture that is drawn and of the prompt.
    pub beside: usize,
}

/// Which sizes a pipeline draws.
#[derive(Clone, Copy, Debug)]
pub enum Sizes {
    /// Any.
    Any,
    /// None but the one that the model was made for.
    One,
    /// Sides of so many pixels at most: the position table ends there.
    UpTo(usize),
    /// The one of these whose proportions are nearest, and what was asked for is cut out of it.
    Bins(&'static [bin_tables::Bin]),
    /// So many pixels, in the proportions that are asked for.
    Area(usize),
}

/// What `--guidance` is to a pipeline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Guidance {
    /// Classifier-free guidance: this by default, on above so much.
    Free {
        /// By default.
        scale: f64,
        /// Off at this scale and below: 1, but for Z-Image.
        off: f64,
    },
    /// A number that the network is told.
    Told(f64),
    /// `--true-cfg`, which needs a negative prompt; `--guidance` is a number that the network is told.
    True {
        /// What the network is told by default, if it is told anything.
        told: Option<f64>,
        /// The scale of `--true-cfg` by default.
        scale: f64,
    },
    /// There is none.
    None,
}

impl Guidance {
    /// Whether `--guidance` means something.
    pub fn is_asked(self) -> bool {
        !matches!(self, Self::None | Self::True { told: None, .. })
    }
}

//! Conditions that are left out by chance, so that a network learns to draw without them: what classifier-free guidance needs.

use canvas_core::{Condition, ConfigError, generator, seed_for};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How often each part of a condition is left out: each by itself, and all together.
///
/// A part is whatever has a name of its own: a class, the whole text, one of several text encoders, an image to edit. Whether
/// a part of an image is left out is a function of seed, image number and the part's name, so that it does not depend on batches
/// nor on which other parts there are.
///
/// # Example
/// Stable Diffusion 3's three encoders, before their tokens are joined:
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Condition, Text};
/// use canvas_train::ConditionDropout;
///
/// let device = Device::flex();
/// let of = |width: usize, batch: usize, value: f64| Text {
///     tokens: Tensor::full([batch, 3, width], value, &device),
///     mask: Tensor::<2, Int>::ones([batch, 3], &device).bool(),
///     pooled: Tensor::full([batch, width], value, &device),
/// };
/// let dropout = ConditionDropout::sd3();
/// let images: Vec<u64> = (64..68).collect();
/// let [clip, t5] = [("clip_l", 4), ("t5", 8)].map(|(part, width)| {
///     dropout.apply(part, &of(width, 4, 1.0), &of(width, 1, 0.0), 0, &images)
/// });
/// assert_eq!((clip.batch(), t5.batch()), (4, 4));
///
/// // One text, left out of every tenth image.
/// let gone = ConditionDropout::new().with("captions", 0.1).dropped("captions", 0, &images);
/// assert_eq!(gone.len(), 4);
/// ```
///
/// # Reference
/// Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, algorithm 1, <https://arxiv.org/abs/2207.12598>; each encoder by
/// itself: Esser et al., "Scaling Rectified Flow Transformers", 2024, section 5.3, <https://arxiv.org/abs/2403.03206>; each by
/// itself and all together: Brooks et al., "InstructPix2Pix", 2022, section 3.2.1, <https://arxiv.org/abs/2211.09800>.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionDropout {
    /// How often all parts of an image are left out, from 0 to 1.
    #[serde(default)]
    pub jointly: f64,
    /// How often each is left out beside that, from 0 to 1, by name.
    #[serde(default)]
    pub parts: BTreeMap<String, f64>,
}

impl ConditionDropout {
    /// No parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more part, left out so often.
    #[must_use]
    pub fn with(mut self, part: &str, probability: f64) -> Self {
        self.parts.insert(part.to_owned(), probability);
        self
    }

    /// All parts together are left out so often.
    #[must_use]
    pub fn jointly(self, probability: f64) -> Self {
        Self { jointly: probability, ..self }
    }

    /// Stable Diffusion 3: `clip_l`, `clip_g` and `t5`, each 46.3% of the time, so that one image in ten has no text.
    pub fn sd3() -> Self {
        ["clip_l", "clip_g", "t5"].into_iter().fold(Self::new(), |all, part| all.with(part, 0.463))
    }

    /// InstructPix2Pix: of all images 5% are without `text` only, 5% without `image` only, and 5% without both.
    ///
    /// The paper draws one of these cases. Here parts are left out each by itself and together, and the probabilities are those of
    /// which exactly the same cases come out: two parts left out with `p` each and together with `j` are `(1 - j) p (1 - p)` without
    /// one of them only, and `j + (1 - j) p^2` without both.
    pub fn instruct_pix2pix() -> Self {
        let (each, both) = (1.0 / 18.0, 0.8 / 17.0);
        Self::new().with("text", each).with("image", each).jointly(both)
    }

    /// # Errors
    /// Names a probability that is none.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let named = self.parts.iter().map(|(part, &probability)| (part.as_str(), probability));
        named.chain([("all parts jointly", self.jointly)]).try_for_each(|(part, probability)| {
            let message = || format!("the dropout of {part} must be from 0 to 1, found {probability}");
            if (0.0..=1.0).contains(&probability) { Ok(()) } else { Err(ConfigError::new(message())) }
        })
    }

    /// Of each image whether the part is left out.
    ///
    /// # Panics
    /// If there is no such part, or [`validate`](Self::validate) fails.
    pub fn dropped(&self, part: &str, seed: u64, images: &[u64]) -> Vec<bool> {
        self.validate().unwrap_or_else(|error| panic!("ConditionDropout: {error}"));
        let own = *self.parts.get(part).unwrap_or_else(|| {
            panic!("no part of the condition is called {part:?}; there are {:?}", self.parts.keys())
        });
        let draw = |purpose: &str, image: u64| generator(seed_for(seed, purpose), image, 0).random::<f64>();
        let is_dropped =
            |&image: &u64| draw("all parts jointly", image) < self.jointly || draw(part, image) < own;
        images.iter().map(is_dropped).collect()
    }

    /// A batch of the part, with that of `null` (its row, or its only row) where it is left out.
    ///
    /// # Panics
    /// If there is no such part, [`validate`](Self::validate) fails, or there are not as many images as rows.
    pub fn apply<C: Condition>(&self, part: &str, cond: &C, null: &C, seed: u64, images: &[u64]) -> C {
        cond.drop_rows(&self.dropped(part, seed, images), null)
    }
}

//! A UNet with IP-Adapters, whose condition holds the tokens of images.
//!
//! Shape letters: `B` batch, `N` pixels, `W` width of an attention, `H` its heads, `T` image tokens, `K` their width.

use super::IpAdapter;
use burn::prelude::*;
use canvas_core::nn::attention::split;
use canvas_core::nn::{attend, dense};
use canvas_core::trace::{self, Hook, Tapped};
use canvas_core::{Backbone, Condition};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Tokens of images, `[B, T, K]` for each adapter of an [`ImagePrompted`]; at least one.
#[derive(Clone, Debug)]
pub struct ImageTokens(pub Vec<Tensor<3>>);

impl Condition for ImageTokens {
    fn batch(&self) -> usize {
        self.0[0].dims()[0]
    }
    fn cat(parts: &[Self]) -> Self {
        let tokens = |i: usize| Tensor::cat(parts.iter().map(|part| part.0[i].clone()).collect(), 0);
        Self((0..parts[0].0.len()).map(tokens).collect())
    }
    fn select(&self, rows: &[usize]) -> Self {
        let pick =
            |x: &Tensor<3>| Tensor::cat(rows.iter().map(|&row| x.clone().narrow(0, row, 1)).collect(), 0);
        Self(self.0.iter().map(pick).collect())
    }
}

/// A UNet that reads images as it reads text, by any number of IP-Adapters, each with its strength.
///
/// The network inside may be a [`Unet`](crate::Unet) or any wrapper of one: [`Controlled`](crate::Controlled),
/// [`Adapted`](crate::Adapted), [`Concatenated`](canvas_core::Concatenated). The adapters act on the UNet's
/// attentions where these [tap](trace::tap) their queries and heads; ControlNets are left alone, as in diffusers.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Condition, Text};
/// use canvas_unet::{ImagePrompted, ImageTokens, IpAdapterConfig, UnetConfig};
///
/// let device = Device::flex();
/// let config = UnetConfig::new(4, 24, vec![8, 16], vec![1, 1], vec![2, 2]).with_norm_groups(4);
/// let (unet, adapter) = (config.init(&device), IpAdapterConfig::new(config, 32).init(&device));
/// let text = Text {
///     tokens: Tensor::ones([1, 5, 24], &device),
///     mask: Tensor::<2, Int>::ones([1, 5], &device).bool(),
///     pooled: Tensor::ones([1, 24], &device),
/// };
/// let image = Tensor::ones([1, 1, 32], &device); // CLIP's projected vector of one image
/// let tokens = |image| ImageTokens(vec![adapter.tokens(image)]);
///
/// // With and without the image, as classifier-free guidance needs it.
/// let with = (text.clone(), tokens(image.clone()));
/// let without = (text, tokens(image.zeros_like()));
/// let prompted = ImagePrompted { backbone: &unet, adapters: vec![(&adapter, 0.6)] };
/// let (x, time) = (Tensor::ones([2, 4, 8, 6], &device), Tensor::from_floats([0.5, 0.5], &device));
/// assert_eq!(prompted.forward(x, time, &Condition::cat(&[with, without])).dims(), [2, 4, 8, 6]);
/// ```
#[derive(Clone, Debug)]
pub struct ImagePrompted<'a, B> {
    /// The network.
    pub backbone: &'a B,
    /// Adapters, and what is multiplied with what they read.
    pub adapters: Vec<(&'a IpAdapter, f64)>,
}

impl<B: Backbone<4>> Backbone<4> for ImagePrompted<'_, B> {
    type Cond = (B::Cond, ImageTokens);

    /// # Shapes
    /// As the network's; the tokens are `[B, T, K]`.
    ///
    /// # Panics
    /// If there are not tokens for each adapter, or if the UNet lacks an attention that an adapter is for or has it in
    /// another width.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, (cond, images): &Self::Cond) -> Tensor<4> {
        let (found, expected) = (images.0.len(), self.adapters.len());
        assert_eq!(found, expected, "tokens for {found} IP-Adapters, there are {expected}");
        let reading = Rc::new(Reading::new(&self.adapters, &images.0));
        let output = trace::with_hook(reading.clone(), || self.backbone.forward(x, time, cond));
        reading.verify();
        output
    }
}

/// Of one adapter's images, what one attention reads.
struct Images {
    key: Tensor<3>,
    value: Tensor<3>,
    scale: f64,
}

impl Images {
    /// `query`: `[B, H, N, W/H]`, output: alike.
    fn read(&self, query: Tensor<4>, name: &str) -> Tensor<4> {
        let ([batch, heads, _, each], [images, _, width]) = (query.dims(), self.key.dims());
        let own = heads * each;
        assert_eq!(own, width, "{name} has width {own}, the IP-Adapter's layer {width}");
        assert_eq!(images, batch, "tokens of {images} images for a batch of {batch}");
        let [key, value] = [&self.key, &self.value].map(|x| split(x.clone(), heads)); // [B, H, T, W/H]
        attend(query, key, value, None) * self.scale
    }
}

/// The hook that adds to the UNet's attentions what they read of images.
struct Reading {
    layers: BTreeMap<String, Vec<Images>>,
    /// Of the attention that is running.
    query: RefCell<Option<Tensor<4>>>,
    met: RefCell<BTreeSet<String>>,
}

impl Reading {
    fn new(adapters: &[(&IpAdapter, f64)], images: &[Tensor<3>]) -> Self {
        let mut layers = BTreeMap::<_, Vec<_>>::new();
        for ((adapter, scale), tokens) in adapters.iter().zip(images) {
            for (layer, name) in adapter.layers.iter().zip(&adapter.names) {
                let [key, value] = [&layer.key, &layer.value].map(|layer| dense(layer, tokens.clone())); // [B, T, W]
                layers.entry(name.clone()).or_default().push(Images { key, value, scale: *scale });
            }
        }
        Self { layers, query: RefCell::default(), met: RefCell::default() }
    }

    /// An adapter of another UNet must not look like one that does little.
    fn verify(&self) {
        let met = self.met.borrow();
        let missed: Vec<&String> = self.layers.keys().filter(|name| !met.contains(*name)).collect();
        assert!(missed.is_empty(), "the IP-Adapter is for another UNet: this one ran no {missed:?}");
    }
}

impl Hook for Reading {
    fn wants(&self, name: &str) -> bool {
        !name.ends_with(".map")
    }

    fn tap(&self, tapped: &mut Tapped<'_>) {
        let Some((name, part)) = tapped.name().rsplit_once('.') else { return };
        let Some(images) = self.layers.get(name) else { return };
        if part == "query" {
            self.query.replace(tapped.get());
        } else if part == "heads"
            && let (Some(query), Some(heads)) = (self.query.take(), tapped.get::<4>())
        {
            let read = |(i, images): (usize, &Images)| {
                trace::scope(|| format!("images.{i}"), || images.read(query.clone(), name))
            };
            self.met.borrow_mut().insert(name.to_owned());
            tapped.set(images.iter().enumerate().map(read).fold(heads, |sum, read| sum + read));
        }
    }
}

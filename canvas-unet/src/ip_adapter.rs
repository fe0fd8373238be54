//! IP-Adapter: images as prompts, read by attentions of their own beside those to the text.
//!
//! Ye et al., "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models", 2023,
//! <https://arxiv.org/abs/2308.06721>.
//!
//! Shape letters: `B` batch, `I` vectors of an image, `V` their width, `T` image tokens, `K` context width.

mod prompted;
mod published;
mod reader;

pub use prompted::{ImagePrompted, ImageTokens};
pub use reader::ImageReader;

use crate::{Unet, UnetConfig};
use burn::module::{ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::{ConfigError, check};
use reader::Reader;
use std::collections::BTreeMap;

/// Sizes of an [`IpAdapter`].
#[derive(Config, Debug)]
pub struct IpAdapterConfig {
    /// Of the UNet it is for.
    pub unet: UnetConfig,
    /// Width of what is read of an image.
    pub image_width: usize,
    /// How that becomes tokens.
    #[config(default = "ImageReader::Pooled { tokens: 4 }")]
    pub reader: ImageReader,
}

impl IpAdapterConfig {
    /// `ip-adapter_sd15`: 22,319,616 parameters, for the projected vector of OpenCLIP ViT-H/14.
    pub fn sd1() -> Self {
        Self::new(UnetConfig::sd1(), 1024)
    }

    /// `ip-adapter-plus_sd15`: 49,087,488 parameters, for the states of OpenCLIP ViT-H/14.
    pub fn sd1_plus() -> Self {
        let reader = ImageReader::Resampler { tokens: 16, width: 768, heads: 12, depth: 4 };
        Self::new(UnetConfig::sd1(), 1280).with_reader(reader)
    }

    /// `ip-adapter_sdxl`: 351,285,248 parameters, for the projected vector of OpenCLIP ViT-bigG/14; with an
    /// `image_width` of 1024 `ip-adapter_sdxl_vit-h`.
    pub fn sdxl() -> Self {
        Self::new(UnetConfig::sdxl(), 1280)
    }

    /// `ip-adapter-plus_sdxl_vit-h`: 423,748,864 parameters, for the states of OpenCLIP ViT-H/14.
    pub fn sdxl_plus() -> Self {
        let reader = ImageReader::Resampler { tokens: 16, width: 1280, heads: 20, depth: 4 };
        Self::new(UnetConfig::sdxl(), 1280).with_reader(reader)
    }

    /// # Errors
    /// Names the value that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.unet.validate()?;
        check::positive(("image_width", self.image_width))?;
        check::positive(("attentions of the UNet to its text", self.unet.cross_attentions().len()))?;
        self.reader.validate()
    }

    /// Random keys and values; [`IpAdapter::from_text`] is the paper's start.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> IpAdapter {
        self.validate().unwrap_or_else(|error| panic!("IpAdapterConfig: {error}"));
        let context = self.unet.context_width;
        let linear = |width| LinearConfig::new(context, width).with_bias(false).init(device);
        let (names, widths): (Vec<_>, Vec<_>) = self.unet.cross_attentions().into_iter().unzip();
        IpAdapter {
            reader: self.reader.init(self.image_width, context, device),
            layers: widths.into_iter().map(|to| KeyValue { key: linear(to), value: linear(to) }).collect(),
            names,
        }
    }
}

/// Makes tokens of an image, and keys and values of those for every attention of a UNet to its text.
///
/// Each attention becomes `attend(q, k, v) + scale attend(q, key(tokens), value(tokens))` before its output projection.
///
/// # Reference
/// Ye et al., 2023, equation 5, <https://arxiv.org/abs/2308.06721>.
#[derive(Module, Debug)]
pub struct IpAdapter {
    reader: Reader,
    layers: Vec<KeyValue>,
    /// Traced names of the attentions that the layers are for.
    #[module(skip)]
    names: Vec<String>,
}

/// Of one attention.
#[derive(Module, Debug)]
struct KeyValue {
    key: Linear,
    value: Linear,
}

impl IpAdapter {
    /// The tokens of images: the same at all times, so they are made once.
    ///
    /// For no image, as classifier-free guidance needs it, published weights take zeros in place of CLIP's projected
    /// vector, but CLIP's states of an image of zeros (after the normalisation) where
    /// [states are read](ImageReader::reads_states).
    ///
    /// # Shapes
    /// - `image`: `[B, I, V]`; projected vectors of `I` images, or the `I` states of one image
    /// - output: `[B, T, K]`; those of several images are joined along `T`
    ///
    /// # Panics
    /// If the width is not the configured one.
    pub fn tokens(&self, image: Tensor<3>) -> Tensor<3> {
        let (found, expected) = (image.dims()[2], self.reader.width());
        assert_eq!(found, expected, "an image of width {found}, the adapter reads {expected}");
        self.reader.forward(image)
    }

    /// The same adapter, acting on some of the UNet's attentions only: those whose [traced](canvas_core::trace) names are
    /// asked for, such as `up.0.stages.1.transformer.blocks.0.cross`.
    ///
    /// Several of them with strengths of their own, beside each other in one
    /// [`ImagePrompted`], are what diffusers calls a scale for each block. With SDXL,
    /// `up.0.stages.1` alone takes the style of an image and leaves its content.
    ///
    /// # Panics
    /// If no attention is left.
    ///
    /// # Reference
    /// Wang et al., "InstantStyle: Free Lunch towards Style-Preserving in Text-to-Image Generation", 2024,
    /// <https://arxiv.org/abs/2404.02733>.
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        let pairs = self.layers.iter().cloned().zip(self.names.iter().cloned());
        let (layers, names): (Vec<_>, Vec<_>) = pairs.filter(|(_, name)| keep(name)).unzip();
        assert!(!layers.is_empty(), "none of the IP-Adapter's attentions is left of {:?}", self.names);
        Self { reader: self.reader.clone(), layers, names }
    }

    /// Begins training where the paper does: with the keys and values that the UNet has for its text.
    ///
    /// # Panics
    /// If the UNet is another than the configured one.
    pub fn from_text(mut self, unet: &Unet) -> Self {
        let mut found = TextLayers { path: Vec::new(), found: BTreeMap::new() };
        unet.visit(&mut found);
        let begin = |layer: Linear, name: String| Linear {
            weight: layer.weight.map(|old| {
                let new = found.found.get(&name).unwrap_or_else(|| panic!("the UNet has no {name}")).clone();
                let (dims, expected) = (new.dims(), old.dims());
                assert_eq!(dims, expected, "{name} of the UNet is {dims:?}, the adapter's {expected:?}");
                if old.is_require_grad() { new.detach().require_grad() } else { new }
            }),
            bias: None,
        };
        self.layers = self
            .layers
            .into_iter()
            .zip(&self.names)
            .map(|(layer, name)| KeyValue {
                key: begin(layer.key, format!("{name}.key.weight")),
                value: begin(layer.value, format!("{name}.value.weight")),
            })
            .collect();
        self
    }
}

/// The keys' and values' weights of all attentions to the text, by path.
struct TextLayers {
    path: Vec<String>,
    found: BTreeMap<String, Tensor<2>>,
}

impl ModuleVisitor for TextLayers {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if path.ends_with(".cross.key.weight") || path.ends_with(".cross.value.weight") {
            let value = param.val();
            let [from, to] = [value.dims()[0], value.dims()[1]];
            self.found.insert(path, value.reshape([from, to]));
        }
    }
}

//! What published IP-Adapters are called and what their shapes say.
//!
//! A file has the keys `image_proj.*` of the reader and `ip_adapter.{n}.to_k_ip.weight`, `ip_adapter.{n}.to_v_ip.weight`.
//! `n` counts the attentions of diffusers' UNet in the order of its modules: all on the way down, then **all on the
//! way up, and the middle's last**; those to the pixels have the even numbers, those to the text the odd ones.

use super::reader::HEAD;
use super::{ImageReader, IpAdapterConfig};
use crate::UnetConfig;
use canvas_core::weights::{Rules, Source, WeightsError};

impl UnetConfig {
    /// Traced name and width of each attention to the text, in the order of the numbers in published IP-Adapters.
    pub(super) fn cross_attentions(&self) -> Vec<(String, usize)> {
        let levels = self.channels.len();
        let blocks = |at: String, depth: usize, level: usize| {
            let name = move |i| format!("{at}.transformer.blocks.{i}.cross");
            (0..depth).map(move |i| (name(i), self.channels[level]))
        };
        let stages = |way: &'static str, i: usize, level: usize, count: usize| {
            (0..count).flat_map(move |j| blocks(format!("{way}.{i}.stages.{j}"), self.depth[level], level))
        };
        let down = (0..levels).flat_map(|i| stages("down", i, i, self.blocks));
        let up = (0..levels).flat_map(|i| stages("up", i, levels - 1 - i, self.blocks + 1));
        let middle = blocks("middle.first".into(), self.middle_depth, levels - 1);
        down.chain(up).chain(middle).collect()
    }
}

/// The key of a layer's `to_k_ip` or `to_v_ip`.
fn layer_key(layer: usize, part: &str) -> String {
    format!("ip_adapter.{}.{part}.weight", 2 * layer + 1)
}

impl IpAdapterConfig {
    /// The names of published IP-Adapters, for [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let rules = Rules::new().prefix("image_proj", "reader");
        let renames: &[(&str, &str)] = match self.reader {
            ImageReader::Pooled { .. } => &[("reader.proj", "reader.layer")],
            ImageReader::EachState => &[
                ("reader.proj.0", "reader.input"),
                ("reader.proj.2", "reader.output"),
                ("reader.proj.3", "reader.norm"),
            ],
            ImageReader::Resampler { .. } => &[
                ("reader.proj_in", "reader.input"),
                ("reader.proj_out", "reader.output"),
                ("reader.norm_out", "reader.norm"),
                ("reader.layers.{i}.0.norm1", "reader.layers.{i}.norm_states"),
                ("reader.layers.{i}.0.norm2", "reader.layers.{i}.norm_latents"),
                ("reader.layers.{i}.0.to_q", "reader.layers.{i}.query"),
                ("reader.layers.{i}.0.to_kv", "reader.layers.{i}.key_value"),
                ("reader.layers.{i}.0.to_out", "reader.layers.{i}.output"),
                ("reader.layers.{i}.1.0", "reader.layers.{i}.norm_feed"),
                ("reader.layers.{i}.1.1", "reader.layers.{i}.up"),
                ("reader.layers.{i}.1.3", "reader.layers.{i}.down"),
            ],
        };
        let rules = renames.iter().fold(rules, |rules, (published, ours)| rules.prefix(published, ours));
        (0..self.unet.cross_attentions().len()).fold(rules, |rules, i| {
            let (key, value) = (layer_key(i, "to_k_ip"), layer_key(i, "to_v_ip"));
            rules
                .exact(&key, &format!("layers.{i}.key.weight"))
                .exact(&value, &format!("layers.{i}.value.weight"))
        })
    }

    /// Reads off the shapes of a published IP-Adapter which one it is.
    ///
    /// # Errors
    /// [`WeightsError::Tensor`] names the key, what was expected and what was found: where the adapter is for a UNet of
    /// other widths or with other attentions, and where it is none of [`ImageReader`]'s, such as FaceID.
    pub fn detect(source: &Source, unet: &UnetConfig) -> Result<Self, WeightsError> {
        refuse_faces(source)?;
        let has = |key: &str| source.shape(key).is_some();
        let (reader, image_width) = if has("image_proj.proj.weight") {
            let [context] = source.dims("image_proj.norm.weight")?;
            let [rows, width] = source.dims("image_proj.proj.weight")?;
            if context == 0 || !rows.is_multiple_of(context) {
                let expected = format!("rows for whole tokens of width {context}");
                return Err(source.refuse("image_proj.proj.weight", &expected, &format!("{rows} rows")));
            }
            (ImageReader::Pooled { tokens: rows / context }, width)
        } else if has("image_proj.proj.3.weight") {
            let [_, width] = source.dims("image_proj.proj.0.weight")?;
            (ImageReader::EachState, width)
        } else if has("image_proj.latents") {
            let [_, tokens, width] = source.dims("image_proj.latents")?;
            let [inner, _] = source.dims("image_proj.layers.0.0.to_q.weight")?;
            let [_, image_width] = source.dims("image_proj.proj_in.weight")?;
            let depth = (0..).take_while(|i| has(&format!("image_proj.layers.{i}.0.to_q.weight"))).count();
            (ImageReader::Resampler { tokens, width, heads: inner / HEAD, depth }, image_width)
        } else {
            let expected = "one of image_proj.proj.weight, image_proj.proj.3.weight, image_proj.latents";
            let found = source.keys().next().map_or("no key".into(), |key| format!("keys such as {key}"));
            return Err(source.refuse("image_proj", expected, &found));
        };
        for (i, (name, width)) in unet.cross_attentions().into_iter().enumerate() {
            for key in [layer_key(i, "to_k_ip"), layer_key(i, "to_v_ip")] {
                let (found, expected) = (source.dims::<2>(&key)?, [width, unet.context_width]);
                if found != expected {
                    let expected = format!("{expected:?} for {name}");
                    return Err(source.refuse(&key, &expected, &format!("{found:?}")));
                }
            }
        }
        Ok(Self::new(unet.clone(), image_width).with_reader(reader))
    }
}

/// FaceID's files would look like others with something missing.
fn refuse_faces(source: &Source) -> Result<(), WeightsError> {
    let expected = "an IP-Adapter that reads CLIP's view of an image and nothing else";
    let kinds = [
        ("image_proj.perceiver_resampler", "FaceID Plus, which reads a face beside CLIP's states"),
        ("ip_adapter.0.to_k_lora", "FaceID, which comes with a LoRA for the UNet"),
        ("ip_adapter.0.to_q_lora", "FaceID, which comes with a LoRA for the UNet"),
    ];
    for (prefix, found) in kinds {
        if let Some(key) = source.keys().find(|key| key.starts_with(prefix)) {
            return Err(source.refuse(key, expected, found));
        }
    }
    // Two layers and a norm beside them: the vector of a face recogniser.
    let [layer, norm] = ["image_proj.proj.0.weight", "image_proj.norm.weight"];
    if source.shape(layer).is_some() && source.shape(norm).is_some() {
        return Err(source.refuse(layer, expected, "FaceID, which reads the vector of a face recogniser"));
    }
    Ok(())
}

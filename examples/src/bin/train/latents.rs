//! Latents of images, computed when they are first needed and kept in a cache.

use crate::images::{Feed, Given, Images};
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Autoencoder, picture};
use canvas_data::{Cache, CacheError, Fault, Key, ModelHash, Prepare, Tensors, draw_caption, reason};
use canvas_vae::AutoencoderTiny;
use image::RgbImage;
use std::path::Path;
use std::sync::Arc;

/// The one tensor of an entry.
const LATENTS: &str = "latents";

/// An image of the second stage: a caption, and the latents or, where the cache has none, the picture.
pub struct Item {
    /// The caption that was drawn for it.
    pub caption: String,
    key: Key,
    latents: Option<Tensors>,
    picture: Option<RgbImage>,
}

/// An autoencoder, and the latents it has computed.
pub struct Latents {
    autoencoder: AutoencoderTiny,
    cache: Arc<Cache>,
    device: Device,
}

impl Latents {
    /// Of a frozen autoencoder without gradients; the cache is a file in `folder` that is named after its weights.
    ///
    /// # Errors
    /// If the file cannot be used: another process writes it, it is of another program.
    pub fn open(autoencoder: &AutoencoderTiny, folder: &Path, device: &Device) -> Result<Self> {
        let cache = Cache::open(folder, &ModelHash::of_module(autoencoder))?;
        let (found, damage) = (cache.len(), cache.damage());
        if found > 0 {
            eprintln!("{}: latents of {found} images", cache.path().display());
        }
        if damage != Default::default() {
            eprintln!("{}: damaged, what is lost is computed again: {damage:?}", cache.path().display());
        }
        Ok(Self { autoencoder: autoencoder.clone(), cache: Arc::new(cache), device: device.clone() })
    }

    /// The images of the second stage.
    pub fn feed(&self, images: &Arc<Images>, group: usize) -> Feed<Item> {
        Feed::new(images, ("denoiser", group), self.reader())
    }

    /// Reads an image: by threads that read ahead, too.
    fn reader(&self) -> impl Fn(&Given) -> Result<Item, Fault> + Send + Sync + use<> {
        let cache = Arc::clone(&self.cache);
        move |given| {
            let record = &given.record;
            let [width, height] = given.assignment.target;
            let key = cache.key(&format!("middle of {width}x{height}, Lanczos, f32"), &record.image);
            let fault = |error: CacheError| Fault::new(&record.key, reason::UNREADABLE, error.to_string());
            let latents = cache.get(&key).map_err(fault)?;
            let picture =
                if latents.is_none() { Some(given.prepared(&Prepare::default())?.rgb) } else { None };
            let caption = draw_caption(&record.captions, given.draw).map(|caption| caption.text.clone());
            Ok(Item { caption: caption.unwrap_or_default(), key, latents, picture })
        }
    }

    /// Reads some images, which need not be of one size.
    ///
    /// # Errors
    /// If one cannot be read any more.
    pub fn items(&self, images: &Images, indices: &[usize]) -> Result<Vec<Item>, Fault> {
        indices.iter().map(|&index| images.read(index, 0, self.reader())).collect()
    }

    /// The latents `[B, C, h, w]` of images of one size; those that were not in the cache are now.
    ///
    /// Each image is encoded alone, so that its latents do not depend on which others came with it: a run that was
    /// stopped has the latents of one that was not.
    ///
    /// # Errors
    /// If the cache cannot be read or written: a full disk, say.
    pub fn of<I: AsRef<Item>>(&self, items: &[I]) -> Result<Tensor<4>, CacheError> {
        let mut new = Vec::new();
        let mut all = Vec::with_capacity(items.len());
        for item in items.iter().map(AsRef::as_ref) {
            let found = match (&item.latents, &item.picture) {
                (Some(latents), _) => latents.clone(),
                (None, picture) => match self.cache.get(&item.key)? {
                    Some(latents) => latents,
                    None => {
                        let picture = picture.as_ref().expect("what is not in the cache was read");
                        let latents = self.encode(picture);
                        new.push((item.key, latents.clone()));
                        latents
                    }
                },
            };
            all.push(Tensor::<3>::from_data(found[LATENTS].clone(), &self.device));
        }
        if !new.is_empty() {
            self.cache.put(&new)?;
        }
        Ok(Tensor::stack(all, 0))
    }

    fn encode(&self, picture: &RgbImage) -> Tensors {
        let mode = self.autoencoder.encode(picture::to_tensor([picture], &self.device)).mode();
        Tensors::from([(LATENTS.to_owned(), mode.squeeze_dim::<3>(0).into_data())])
    }
}

impl AsRef<Item> for Item {
    fn as_ref(&self) -> &Item {
        self
    }
}

//! Tiles and slices: parity with diffusers' `enable_tiling` (fixtures by `tools/fixtures_vae.py`), and what seams
//! there are.

mod common;

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::Distribution;
use canvas_core::{Autoencoder, Posterior, params};
use canvas_vae::{AutoencoderKl, AutoencoderKlConfig, AutoencoderTinyConfig, Sliced, Tiled};
use common::{compare_within, pattern};
use std::cell::RefCell;
use std::collections::BTreeMap;

fn kl(device: &Device) -> AutoencoderKl {
    let config = AutoencoderKlConfig::new().with_channels(vec![8, 16]).with_layers(1).with_latent(3);
    params::fill_by_formula(config.with_groups(4).init(device))
}

#[test]
fn tiles_equal_diffusers() {
    let device = Device::flex();
    let model = kl(&device);
    let images = pattern([2, 3, 28, 38], 0.0, &device);
    let latents = pattern([2, 3, 14, 19], 3.0, &device) * 2.0;
    let mut found = BTreeMap::new();
    for (name, overlap) in [("quarter", 2), ("half", 4)] {
        let tiled = Tiled::new(&model, 8, overlap);
        let posterior = tiled.encode(images.clone());
        let second = |x: Tensor<4>| x.narrow(0, 1, 1);
        found.insert(format!("{name}.mean"), second(posterior.mean).into_data());
        found.insert(format!("{name}.log_variance"), second(posterior.log_variance.unwrap()).into_data());
        let image = second(tiled.decode(latents.clone())).narrow(1, 0, 2);
        found.insert(format!("{name}.image"), image.into_data());
    }
    compare_within("tiled.safetensors", &found, 1e-5);
}

#[test]
fn what_fits_into_a_tile_is_not_tiled() {
    let device = Device::flex();
    let model = kl(&device);
    let (images, latents) = (pattern([1, 3, 16, 14], 0.0, &device), pattern([1, 3, 8, 7], 0.0, &device));
    let tiled = Tiled::new(&model, 8, 2);
    tiled.decode(latents.clone()).into_data().assert_eq(&model.decode(latents).into_data(), true);
    let spread = |posterior: Posterior| posterior.log_variance.unwrap().into_data();
    spread(tiled.encode(images.clone())).assert_eq(&spread(model.encode(images)), true);
}

#[test]
fn slices_equal_the_batch_bit_by_bit() {
    let device = Device::flex();
    let model = kl(&device);
    let images = pattern([3, 3, 12, 20], 0.0, &device);
    let sliced = Sliced::new(&model);
    let (one, all) = (sliced.encode(images.clone()), model.encode(images));
    one.mean.into_data().assert_eq(&all.mean.clone().into_data(), true);
    one.log_variance.unwrap().into_data().assert_eq(&all.log_variance.unwrap().into_data(), true);
    sliced.decode(all.mean.clone()).into_data().assert_eq(&model.decode(all.mean).into_data(), true);
}

/// Passes everything on, and keeps the shapes of what it was given.
struct Watched<'a> {
    inner: &'a AutoencoderKl,
    seen: RefCell<Vec<[usize; 4]>>,
}

impl Autoencoder for Watched<'_> {
    fn encode(&self, images: Tensor<4>) -> Posterior {
        self.seen.borrow_mut().push(images.dims());
        self.inner.encode(images)
    }
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.seen.borrow_mut().push(latents.dims());
        self.inner.decode(latents)
    }
    fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        self.inner.latent_shape(height, width)
    }
}

#[test]
fn the_network_sees_one_tile_of_one_image_at_a_time() {
    let device = Device::flex();
    let model = kl(&device);
    let watched = Watched { inner: &model, seen: RefCell::default() };
    let tiled = Tiled::new(&watched, 4, 1);
    let sliced = Sliced::new(&tiled);
    let seen = || watched.seen.take();
    let decoded = sliced.decode(pattern([2, 3, 4, 7], 0.0, &device));
    // Tiles start at 0, 3 and 6 latents; one image after the other.
    let tiles = |channels, rows: [usize; 2], columns: [usize; 3]| {
        rows.map(|row| columns.map(|column| [1, channels, row, column])).concat().repeat(2)
    };
    assert_eq!(seen(), tiles(3, [4, 1], [4, 4, 1]));
    sliced.encode(decoded);
    assert_eq!(seen(), tiles(3, [8, 2], [8, 8, 2]));
}

#[test]
fn an_encoder_without_spread_stays_without() {
    let config = AutoencoderTinyConfig::new().with_channels(vec![4, 4]).with_blocks(vec![0, 1]);
    let model = config.init(&Device::flex());
    let images = pattern([2, 3, 20, 12], 0.0, &Device::flex());
    for posterior in [Tiled::new(&model, 4, 1).encode(images.clone()), Sliced::new(&model).encode(images)] {
        assert_eq!(posterior.mean.dims(), [2, 4, 10, 6]);
        assert!(posterior.log_variance.is_none());
    }
}

#[test]
#[should_panic(expected = "an overlap (8) must be smaller than its tile (8)")]
fn an_overlap_of_the_whole_tile_is_refused() {
    Tiled::new(&kl(&Device::flex()), 8, 8);
}

/// Draws every kernel anew, so that none is zero.
struct Drawn;

impl ModuleMapper for Drawn {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 4 {
            return param;
        }
        param.map(|old| {
            let dims = old.dims();
            let inputs = dims[1..].iter().product::<usize>() as f64;
            Tensor::random(dims, Distribution::Normal(0.0, inputs.sqrt().recip()), &old.device())
        })
    }
}

/// Sides, in latents.
const SIDE: usize = 48;
const TILE: usize = 16;
/// What lies at least so many latents from an overlap is far from it.
const FAR: usize = 3;

/// Where a row or a column of pixels lies.
#[derive(PartialEq)]
enum Zone {
    /// In an overlap, or right behind the border of a tile.
    Seam,
    Near,
    Far,
}

fn zone(x: usize, overlap: usize, factor: usize) -> Zone {
    let stride = (TILE - overlap) * factor;
    let behind = x % stride; // tiles start at every stride
    let first = x < stride;
    if !first && behind <= overlap * factor {
        Zone::Seam
    } else if behind + FAR * factor <= stride && (first || behind >= (overlap + FAR) * factor) {
        Zone::Far
    } else {
        Zone::Near
    }
}

/// Root mean square of the deviation from the image decoded whole, and of its steps from column to column: at the
/// seams between columns of tiles, and far from all; in percent of the image's standard deviation.
fn deviation(model: &impl Autoencoder, overlap: usize) -> [f64; 4] {
    let device = Device::flex();
    let factor = 256 / model.latent_shape(256, 256)[1];
    let latents = Tensor::random([1, 4, SIDE, SIDE], Distribution::Normal(0.0, 1.0), &device);
    let whole = model.decode(latents.clone());
    let tiled = Tiled::new(model, TILE, overlap).decode(latents);
    let spread = whole.clone().flatten::<1>(0, 3).var(0).sqrt().into_scalar::<f32>();
    let width = SIDE * factor;
    let off: Vec<f32> = ((tiled - whole) / spread * 100.0).into_data().iter::<f32>().collect();
    let mut sums = [[0.0; 2]; 4];
    for (row, pixels) in off.chunks(width).enumerate() {
        let far_row = zone(row % width, overlap, factor) == Zone::Far;
        for (x, pair) in (1..width).zip(pixels.windows(2)) {
            let place = match zone(x, overlap, factor) {
                Zone::Seam => 0,
                Zone::Far if far_row => 1,
                _ => continue,
            };
            for (kind, value) in [(place, pair[1]), (2 + place, pair[1] - pair[0])] {
                sums[kind][0] += f64::from(value).powi(2);
                sums[kind][1] += 1.0;
            }
        }
    }
    sums.map(|[sum, count]| (sum / count).sqrt())
}

/// Prints the table in the documentation of [`Tiled`].
#[test]
fn seams() {
    let device = Device::flex();
    device.seed(5);
    let config = AutoencoderKlConfig::new().with_channels(vec![16, 32, 32]).with_layers(1).with_groups(8);
    let kl = config.init(&device).map(&mut Drawn);
    let plain = config.with_middle_attention(false).init(&device).map(&mut Drawn);
    let tiny = AutoencoderTinyConfig::new().with_channels(vec![16; 3]).with_blocks(vec![1; 3]);
    let tiny = tiny.init(&device).map(&mut Drawn);
    let table = |name: &str, measure: &dyn Fn(usize) -> [f64; 4]| {
        [0, 2, 4].map(|overlap| {
            let found = measure(overlap);
            let row = found.map(|value| format!("{value:.1}")).join(" | ");
            println!("/// | {name} | {overlap} | {row} |");
            found
        })
    };
    println!(
        "/// | network | overlap | deviation at seams | far from them | steps at seams | far from them |"
    );
    println!("/// |---|---|---|---|---|---|");
    let kl = table("`AutoencoderKl`", &|overlap| deviation(&kl, overlap));
    table("without attention", &|overlap| deviation(&plain, overlap));
    let tiny = table("`AutoencoderTiny`", &|overlap| deviation(&tiny, overlap));
    for [[_, _, hard, _], _, [_, _, faded, _]] in [kl, tiny] {
        assert!(faded < 0.5 * hard, "fading must spread the step: {faded} of {hard}");
    }
    // Norms and attention change a tile everywhere, a local network only near its border.
    assert!(kl[2][1] > 5.0, "{kl:?}");
    assert!(tiny[2][1] < 0.1 * tiny[2][0], "{tiny:?}");
}

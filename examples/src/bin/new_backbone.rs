//! A researcher's idea in one file: trains a denoising network that no library crate knows, on the emoji.
//!
//! The idea: a picture of 16 patches needs no attention between them. A "switchboard" holds a small bank of
//! matrices that say which patch hears which, and the time and the prompt choose the blend, for each sample
//! and each group of channels. Words are read by one key and one value each, made once for all blocks.
//! Objective, sampler, autoencoder, text encoder, data, measurements and report are those of `emoji`, so
//! `report.html` of the two compares the networks and nothing else.
//!
//! ```text
//! cargo run --release --bin new_backbone                 # emoji's recipe; --minutes N for another length
//! cargo run --bin new_backbone -- --smoke --out runs/try # the whole path in seconds
//! ```
//!
//! `--smoke` takes a second and teaches nothing. `--minutes 1.5`, unoptimised and on two cores busy with other
//! work, made 60 images/s, 4,576 in all, and ended with:
//!
//! ```text
//! denoiser: loss 0.630 on trained pictures, 0.489 on held-out ones
//! retrieval: top-1 7.8%, top-5 31.2% (chance 0.4%, 2.1%; autoencoder's ceiling 89.1%, 100.0%)
//! composition: colour 32.1%, shape 51.8%, both 8.9%
//! ```

use anyhow::Result;
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::{silu, softmax};
use canvas_core::nn::init::{normal_linear, xavier_linear, zero_linear};
use canvas_core::nn::{Activation, Mlp, MlpConfig, TimeEmbed, TimeEmbedConfig};
use canvas_core::nn::{dense, modulate, patch, position};
use canvas_core::{Backbone, Text, trace};
use canvas_examples::config::RunConfig;
use canvas_examples::interrupt;
use canvas_examples::model::BackboneSizes;
use canvas_examples::run::{self, Folder};
use clap::Parser;
use std::path::PathBuf;

const PATCH: usize = 2;
/// Groups of channels, each with a blend of its own.
const GROUPS: usize = 4;
/// Matrices in the bank.
const BANK: usize = 16;

/// The new network: `B` batch, `C` channels, `H` and `S` height and width, `N` patches, `W` width, `T` words.
#[derive(Module, Debug)]
struct Switchboard {
    embed: Linear,
    position: Tensor<3>, // fixed, so not a parameter
    time: TimeEmbed,
    prompt: Linear,
    keys: Linear,
    values: Linear,
    blocks: Vec<Block>,
    last: Linear,
    unembed: Linear,
}

/// Patches hear each other and the words, then think alone.
#[derive(Module, Debug)]
struct Block {
    choose: Linear,
    bank: Linear,
    mlp: Mlp,
    modulation: Linear,
}

impl Switchboard {
    fn new(sizes: BackboneSizes, device: &Device) -> Result<Self> {
        let [channels, height, columns] = sizes.latent;
        let (width, depth) = if sizes.smoke { (32, 2) } else { (256, 8) };
        let (height, columns, token) = (height / PATCH, columns / PATCH, channels * PATCH * PATCH);
        Ok(Self {
            embed: xavier_linear(token, width, device),
            position: position::sincos_2d(height, columns, width, device),
            time: TimeEmbedConfig::new(width).init(device),
            prompt: xavier_linear(sizes.text, width, device),
            keys: xavier_linear(sizes.text, width, device),
            values: xavier_linear(sizes.text, width, device),
            blocks: (0..depth).map(|_| Block::new(width, height * columns, device)).collect(),
            last: zero_linear(width, 2 * width, device),
            unembed: zero_linear(width, token, device),
        })
    }
}

impl Backbone<4> for Switchboard {
    type Cond = Text;

    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &Text) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let c = self.time.forward(time) + self.prompt.forward(cond.pooled.clone()); // [B, W]
        let keys = dense(&self.keys, cond.tokens.clone()).swap_dims(1, 2); // [B, W, T]
        let words = (keys, dense(&self.values, cond.tokens.clone()), cond.mask.clone());
        let mut h = dense(&self.embed, patch::split(x, PATCH)) + self.position.clone(); // [B, N, W]
        for (i, block) in self.blocks.iter().enumerate() {
            h = trace::block(|| format!("blocks.{i}"), h, |h| block.forward(h, c.clone(), &words)); // [B, N, W]
        }
        let [shift, scale] = modulate::chunks("final_modulation", &self.last, c);
        let h = dense(&self.unembed, modulate::apply(modulate::norm(h), shift, scale));
        patch::join_channels_last(h, PATCH, height, width) // [B, C, H, S]
    }
}

impl Block {
    fn new(width: usize, patches: usize, device: &Device) -> Self {
        let mlp = MlpConfig::new(width, 3 * width).with_activation(Activation::ReluSquared);
        Self {
            choose: LinearConfig::new(width, GROUPS * BANK).init(device),
            bank: normal_linear((patches as f64).sqrt().recip(), BANK, patches * patches, device),
            mlp: mlp.init(device),
            modulation: zero_linear(width, 6 * width, device), // every block starts as the identity
        }
    }

    /// `h`: `[B, N, W]`, `c`: `[B, W]`, output: `[B, N, W]`.
    fn forward(&self, h: Tensor<3>, c: Tensor<2>, words: &Words) -> Tensor<3> {
        let chunks = modulate::chunks("modulation", &self.modulation, c.clone()); // [B, 1, W] each
        let [shift_a, scale_a, gate_a, shift_m, scale_m, gate_m] = chunks;
        let a = modulate::apply(modulate::norm(h.clone()), shift_a, scale_a);
        let h = h + gate_a * (self.hear(a.clone(), c) + read(a, words));
        let m = modulate::apply(modulate::norm(h.clone()), shift_m, scale_m);
        h + gate_m * self.mlp.forward(m)
    }

    /// Each patch as a blend of all: `a`: `[B, N, W]`, `c`: `[B, W]`, output: `[B, N, W]`.
    fn hear(&self, a: Tensor<3>, c: Tensor<2>) -> Tensor<3> {
        let [b, n, w] = a.dims();
        let blend = self.choose.forward(silu(c)).reshape([b, GROUPS, BANK]);
        let board = dense(&self.bank, blend).reshape([b, GROUPS, n, n]);
        let heard = board.matmul(a.reshape([b, n, GROUPS, w / GROUPS]).swap_dims(1, 2)); // [B, G, N, W/G]
        heard.swap_dims(1, 2).reshape([b, n, w])
    }
}

/// Keys `[B, W, T]`, values `[B, T, W]`, and which words are not padding `[B, T]`.
type Words = (Tensor<3>, Tensor<3>, Tensor<2, Bool>);

/// What the words most like each patch say: `a` and output `[B, N, W]`.
fn read(a: Tensor<3>, (keys, values, real): &Words) -> Tensor<3> {
    let scale = (a.dims()[2] as f64).sqrt().recip();
    let scores = (a * scale).matmul(keys.clone()); // [B, N, T]
    let padding = real.clone().bool_not().unsqueeze_dim::<3>(1).expand(scores.dims());
    softmax(scores.mask_fill(padding, f32::MIN), 2).matmul(values.clone())
}

/// Trains a network of this file's own on the emoji, and measures it as `emoji` does.
#[derive(Parser, Debug)]
struct Args {
    /// Folder of the new run [default: runs/new-backbone, or the next free one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "minutes", "smoke"])]
    resume: Option<PathBuf>,
    /// Train for about this many minutes on this machine
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// The whole path in seconds; nothing worth looking at comes out
    #[arg(long, conflicts_with = "minutes")]
    smoke: bool,
    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = canvas_examples::device::open(&args.device)?;
    let (folder, config) = match args.resume {
        Some(path) => {
            let config = RunConfig::read(&path)?;
            config.expect_program("new-backbone", &path)?;
            (Folder(path), config)
        }
        None => {
            let recipe = if args.smoke { RunConfig::smoke } else { RunConfig::standard };
            let mut config = RunConfig { backbone: "switchboard".into(), ..recipe("new-backbone") };
            if let Some(minutes) = args.minutes {
                run::fit_to_minutes(&mut config, minutes, Switchboard::new, &device)?;
            }
            let path = args.out.unwrap_or_else(|| Folder::fresh("runs/new-backbone".as_ref()));
            (Folder::create(&path, &config)?, config)
        }
    };
    let _lock = folder.lock()?;
    let done = run::run(&folder, &config, Switchboard::new, &device.into());
    interrupt::ended(done, &format!("go on with --resume {}", folder.0.display())).map(drop)
}

//! Multiply-accumulate operations, held against PyTorch's counter on diffusers' networks (`tools/count_macs.py`).

use burn::prelude::*;
use canvas_core::{Backbone, Class, Text, Unconditional, macs};
use canvas_unet::{AdmConfig, DdpmConfig, Edm2Config, Resample, UnetConfig};

/// What the parabola through three points has at `x`, of whole numbers.
fn parabola(nodes: [f64; 3], values: [f64; 3], x: f64) -> f64 {
    let term = |i: usize| {
        let others = (0..3).filter(|&j| j != i);
        others.fold(values[i], |y, j| y * (x - nodes[j]) / (nodes[i] - nodes[j]))
    };
    (0..3).map(term).sum::<f64>().round()
}

/// Operations on one latent of `side` by `side` and 77 tokens, with all channels over ten and times `width`.
fn of_sd1(width: usize, side: usize) -> f64 {
    let device = Device::flex();
    let channels: Vec<usize> = UnetConfig::sd1().channels.iter().map(|count| count / 10 * width).collect();
    let unet = UnetConfig { channels, ..UnetConfig::sd1() }.init(&device);
    let text = Text {
        tokens: Tensor::zeros([1, 77, 768], &device),
        mask: Tensor::<2, Int>::ones([1, 77], &device).bool(),
        pooled: Tensor::zeros([1, 1], &device),
    };
    let x = Tensor::zeros([1, 4, side, side], &device);
    let (_, count) = macs::count(|| unet.forward(x, Tensor::zeros([1], &device), &text));
    count as f64
}

/// The count is a parabola in the number of pixels, because of attention, and one in the width, 0 at the width 0: so the
/// count of the published network at 64 by 64 follows from those of small ones on small latents.
#[test]
fn stable_diffusion_computes_what_pytorch_counts() {
    let whole = |width| parabola([1.0, 4.0, 9.0], [8, 16, 24].map(|side| of_sd1(width, side)), 64.0);
    let found = parabola([0.0, 1.0, 2.0], [0.0, whole(1), whole(2)], 10.0);
    assert_eq!(found, 401_636_720_640.0);
}

#[test]
fn networks_of_pixels_compute_what_pytorch_counts() {
    let device = Device::flex();
    let (x, time) = (Tensor::<4>::zeros([2, 3, 8, 12], &device), Tensor::<1>::zeros([2], &device));
    let body = DdpmConfig::new(3, vec![16, 24, 32], vec![false, true, false])
        .with_head_width(Some(8))
        .with_norm_groups(2);
    let ddpm = body.clone().with_resample(Resample::After).init(&device);
    let (_, count) = macs::count(|| ddpm.forward(x.clone(), time.clone(), &Unconditional(2)));
    assert_eq!(count, 14_256_384);

    let body = body.with_out_channels(Some(6)).with_scale_shift(true).with_resample(Resample::Residual);
    let adm = AdmConfig::new(body, 5).init(&device);
    let (_, count) = macs::count(|| adm.forward(x.clone(), time.clone(), &Class::new(&[3, 1], &device)));
    assert_eq!(count, 16_028_672);

    let edm2 = Edm2Config::new(3, vec![16, 24, 32], vec![false, true, false], 0).with_blocks(2).with_head(8);
    let (_, count) = macs::count(|| edm2.init(&device).forward(x, time, &Class::new(&[0, 0], &device)));
    assert_eq!(count, 15_974_912);
}

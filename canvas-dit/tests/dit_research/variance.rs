//! The variance that a network has learned, on its way to the sampler. (That the sampler does with it what diffusers does is
//! tested in canvas-sched: `DDPMScheduler` with `learned_range`.)

use super::*;
use canvas_core::{Denoiser, Hop, Level, Process, Sampler, Seeded, Std};
use canvas_dit::{DitConfig, LearnsVariance, PixArtConfig, WithVariance};
use canvas_sched::{Cfg, Ddpm, Variance, predict, schedule::Vp};
use canvas_testkit::{chirped, panic_text};

fn process() -> Process {
    Process { schedule: Box::new(Vp::linear(1000)), prediction: Box::new(predict::Epsilon) }
}

/// Mean and standard deviation of the step of Ddpm with what the denoiser says.
fn drawn<D: Denoiser<4>>(denoiser: &D, x: &Tensor<4>, steps: [Level; 2], cond: &D::Cond) -> [Tensor<4>; 2] {
    let vp = Vp::linear(1000);
    let mut noise = Seeded::new(0, [0, 1]);
    let denoise = |x: Tensor<4>, level: Level| denoiser.denoise(x, &[level], cond);
    let mut hop = Hop::single((steps[0], steps[1]), &vp, &denoise, &mut noise);
    let step = Ddpm { variance: Variance::LearnedRange }.step(x.clone(), &mut hop);
    let Std::Each(std) = step.std else { panic!("one deviation for all") };
    [step.mean, std]
}

/// Nichol & Dhariwal, 2021, equations 10 and 15 in their own symbols, of what the network itself says.
fn is_the_papers<N: LearnsVariance + Backbone<4, Cond = C>, C: Condition>(net: &N, x: &Tensor<4>, cond: &C) {
    let (vp, device, channels) = (Vp::linear(1000), x.device(), x.dims()[1]);
    let [from, to] = [400, 300].map(|step| vp.training_step(step));
    let time = Tensor::from_floats([from.time as f32; 2], &device);
    let said = net.with_variance(x.clone(), time.clone(), cond);
    let [eps, v] = [0, 1].map(|half| said.clone().narrow(1, half * channels, channels));
    assert!(v.clone().abs().max().into_scalar::<f32>() > 0.1, "a variance that says something");

    let (bar, bar_prev) = (from.alpha.powi(2), to.alpha.powi(2));
    let alpha = bar / bar_prev;
    let beta = 1.0 - alpha;
    let posterior = beta * (1.0 - bar_prev) / (1.0 - bar);
    let x0 = (x.clone() - eps * (1.0 - bar).sqrt()) / bar.sqrt();
    let mean = x0 * (bar_prev.sqrt() * beta / (1.0 - bar))
        + x.clone() * (alpha.sqrt() * (1.0 - bar_prev) / (1.0 - bar));
    let share = (v + 1.0) / 2.0;
    let variance = (share.clone() * beta.ln() + (-share + 1.0) * posterior.ln()).exp();

    let (process, network) = (process(), WithVariance(net));
    let found = drawn(&process.denoiser(&network), x, [from, to], cond);
    for (found, expected) in found.into_iter().zip([mean, variance.sqrt()]) {
        let largest = expected.clone().abs().max().into_scalar::<f32>();
        let off = distance(found, expected) / largest;
        assert!(off < 1e-5, "off by {off:e}");
    }
}

#[test]
fn a_learned_variance_reaches_the_sampler() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 3, 4, 6], 1.0, &device), labels(&device));
    let dit = chirped(DitConfig::new([4, 6], 16, 2, 2).with_channels(3).with_classes(5).init(&device));
    is_the_papers(&dit, &x, &cond);
    let pixart = PixArtConfig::new(4).with_depth(2).with_heads(2).with_head(12).with_context(12);
    is_the_papers(
        &chirped(pixart.init(&device)),
        &pattern([2, 4, 4, 6], 1.0, &device),
        &text(&device).into(),
    );

    // Guidance passes on that of the condition.
    let steps = [400, 300].map(|step| Vp::linear(1000).training_step(step));
    let (process, network) = (process(), WithVariance(&dit));
    let null = Class::new(&[5, 5], &device);
    let [plain_mean, plain] = drawn(&process.denoiser(&network), &x, steps, &cond);
    let [mean, std] = drawn(&Cfg::new(process.denoiser(&network), null, 4.0), &x, steps, &cond);
    assert!(distance(std, plain) < 1e-6);
    assert!(distance(mean, plain_mean) > 1e-3);
}

#[test]
fn a_network_without_one_is_refused() {
    let device = Device::flex();
    let config = DitConfig::new([4, 6], 16, 1, 2).with_channels(3).with_learn_variance(false);
    let (net, x) = (config.init(&device), pattern([2, 3, 4, 6], 1.0, &device));
    let said = panic_text(|| WithVariance(&net).forward(x, times(&device), &labels(&device)));
    assert!(said.contains("3 channels for 3: this network has learned no variance"), "{said}");
}

use crate::{close, panic_text, tensor};
use burn::prelude::*;
use canvas_core::{Backbone, Level, Noise, NoiseSchedule, Preconditioned, Seeded, Unconditional};
use canvas_sched::{predict, schedule};
use canvas_train::{ChainStep, Noised, Objective, multi_resolution, offset, variational_bound};

const AT: Level = Level { time: 0.4, alpha: 0.6, sigma: 0.8 };

fn images(seed: f64) -> Tensor<4> {
    tensor(crate::wave(2 * 3 * 4 * 5, seed, 1.0), [2, 3, 4, 5], &Device::flex())
}

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Says nothing.
struct Zero;
impl Backbone<4> for Zero {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<4>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
        x.zeros_like()
    }
}

#[test]
fn a_perturbed_input_has_other_noise_and_the_same_target() {
    let (x0, eps, other) = (images(0.0), images(1.0), images(2.0));
    let noised = Noised::new(x0.clone(), eps.clone(), vec![AT; 2]);
    let perturbed = noised.clone().perturbed(other.clone(), 0.1);
    let (found, plain, other) = (host(&perturbed.x), host(&noised.x), host(&other));
    for i in 0..found.len() {
        close(found[i], plain[i] + 0.8 * 0.1 * other[i], 1e-6);
    }
    assert_eq!(perturbed.eps.into_data(), eps.into_data());
    let message = panic_text(|| Noised::new(x0, images(1.0), vec![AT]));
    assert!(message.contains("levels of a batch"), "{message}");
}

/// The mean over what counts: halves that are hidden do not make the loss smaller.
#[test]
fn a_masked_loss_is_the_mean_over_what_counts() {
    let noised = Noised::new(images(0.0), images(1.0), vec![AT; 2]);
    let network = Preconditioned { backbone: &Zero, prediction: &predict::Epsilon };
    let losses = |mask: Tensor<4>| {
        host(&Objective::default().losses(network, &noised.clone().masked(mask), &Unconditional(2)))
    };
    let ones = Tensor::<4>::ones([2, 1, 4, 5], &Device::flex());
    let plain = host(&Objective::default().losses(network, &noised, &Unconditional(2)));
    losses(ones.clone()).iter().zip(&plain).for_each(|(&found, &plain)| close(found, plain, 1e-6));
    losses(ones.clone() * 0.25).iter().zip(&plain).for_each(|(&found, &plain)| close(found, plain, 1e-6));

    // Two of five columns of the second image, and nothing of the first.
    let first = ones.clone().narrow(0, 0, 1).zeros_like();
    let columns = Tensor::cat(
        vec![ones.clone().slice([0..1, 0..1, 0..4, 0..2]), first.clone().slice([0..1, 0..1, 0..4, 0..3])],
        3,
    );
    let found = losses(Tensor::cat(vec![first, columns], 0));
    let square = host(&images(1.0).slice([1..2, 0..3, 0..4, 0..2]).square().mean())[0];
    assert_eq!(found[0], 0.0);
    close(found[1], square, 1e-6);
}

/// What a network says of variances is no part of its answer.
#[test]
fn answers_with_variances_are_compared_without() {
    let noised = Noised::new(images(0.0), images(1.0), vec![AT; 2]);
    let both = Tensor::cat(vec![images(3.0), images(4.0)], 1);
    let found = Objective::default().of_answer(both, &noised, &predict::Epsilon);
    let plain = Objective::default().of_answer(images(3.0), &noised, &predict::Epsilon);
    assert_eq!(found.into_data(), plain.into_data());
}

#[test]
fn offset_noise_has_a_common_part_in_each_channel() {
    let images: Vec<u64> = (0..200).collect();
    let zeros = Tensor::<4>::zeros([200, 2, 4, 4], &Device::flex());
    let made = offset(zeros, 0.1, &mut Seeded::new(3, images));
    // Nothing else is in it here.
    let means = made.clone().mean_dim(2).mean_dim(3);
    assert!(host(&(made - means.clone()).abs().max())[0] < 1e-7);
    let square = host(&means.square().mean())[0];
    close(square.sqrt(), 0.1, 0.015);
}

/// Unit variance in each image, neighbours alike, and no image depends on another.
#[test]
fn multi_resolution_noise_is_of_each_image_alone() {
    let noise = |images: Vec<u64>| {
        let count = images.len();
        let mut seeded = Seeded::new(9, images);
        let eps: Tensor<4> = seeded.normal_like(&Tensor::zeros([count, 3, 16, 12], &Device::flex()));
        multi_resolution(&eps, 0.7, &mut seeded)
    };
    let together = noise(vec![4, 5, 6]);
    assert_eq!(together.clone().narrow(0, 1, 1).into_data(), noise(vec![5]).into_data());
    let rows: Tensor<2> = together.clone().reshape([3, 3 * 16 * 12]);
    let variance = (rows.clone() - rows.mean_dim(1)).square().mean_dim(1);
    host(&variance).iter().for_each(|&found| close(found, 1.0, 1e-5));
    let many = noise((0..64).collect());
    let beside = host(&(many.clone().narrow(3, 0, 11) * many.narrow(3, 1, 11)).mean())[0];
    assert!(beside > 0.3, "neighbours have {beside} in common");
}

/// An answer that is right and a variance that is right cost nothing but the first step's decoding.
#[test]
fn the_bound_of_the_truth_is_zero_and_only_variances_learn() {
    let device = Device::flex().autodiff();
    let vp = schedule::Vp::linear(1000);
    let steps = [ChainStep::new(&vp, 400, 1000), ChainStep::new(&vp, 7, 1000)];
    let at = steps.map(|step| step.from).to_vec();
    let on = |x: Tensor<4>| x.to_device(&device);
    let (x0, eps) = (on(images(0.0)), on(images(1.0)));
    let noised = Noised::new(x0, eps.clone(), at);
    let bound = |answer: Tensor<4>, v: f64| {
        let raw = Tensor::cat(vec![answer.clone(), answer.full_like(v)], 1).autodiff().require_grad();
        let bound = variational_bound(raw.clone(), &noised, &steps, &predict::Epsilon);
        let grads = bound.clone().sum().backward();
        let grad = raw.grad(&grads).unwrap();
        (
            host(&bound),
            host(&grad.clone().narrow(1, 0, 3).abs().max())[0],
            host(&grad.narrow(1, 3, 3).abs().max())[0],
        )
    };
    // -1 is the variance of the posterior given the data.
    let (right, of_answer, of_variance) = bound(eps.clone(), -1.0);
    right.iter().for_each(|&bits| close(bits, 0.0, 1e-5));
    assert_eq!(of_answer, 0.0);
    assert!(of_variance < 1e-4);
    // 1 is the other: its divergence in closed form, (q - ln q - 1) / 2 of the ratio of variances.
    let (wider, of_answer, of_variance) = bound(eps.clone(), 1.0);
    for (found, step) in wider.iter().zip(steps) {
        let q = step.low / step.high;
        close(*found, (q - q.ln() - 1.0) / 2.0 / 2f64.ln(), 1e-4);
    }
    assert_eq!(of_answer, 0.0);
    assert!(of_variance > 1e-5);
    let (wrong, ..) = bound(eps + 0.5, -1.0);
    assert!(wrong.iter().all(|&bits| bits > 1e-3), "{wrong:?}");
}

/// Improved DDPM's table: the first step's least variance is the second's, all lie below the greatest.
#[test]
fn variances_of_a_chain_are_in_order() {
    let vp = schedule::Vp::cosine(4000);
    let chain: Vec<ChainStep> = (0..4000).map(|index| ChainStep::new(&vp, index, 4000)).collect();
    assert_eq!(chain[0].low, chain[1].low);
    assert_eq!((chain[0].to.alpha, chain[0].to.sigma), (1.0, 0.0));
    assert!(chain.iter().skip(1).all(|step| step.low > 0.0 && step.low < step.high));
    for (index, step) in chain.iter().enumerate() {
        assert_eq!(step.from, vp.training_step(index));
    }
    assert!(panic_text(|| ChainStep::new(&vp, 4000, 4000)).contains("step 4000 of a chain of 4000"));
    let line = schedule::Flow::default();
    assert_eq!(ChainStep::new(&line, 9, 10).from, line.level(1.0));
}

/// The first step of a chain: the 256 numbers that data can be have probabilities that add up to 1, wherever the estimate is.
#[test]
fn the_first_step_decodes_to_one_of_256() {
    let device = Device::flex();
    let vp = schedule::Vp::linear(1000);
    let steps = vec![ChainStep::new(&vp, 0, 1000); 256];
    let values = (0..256u16).map(|k| -1.0 + 2.0 * f32::from(k) / 255.0).collect();
    let x0: Tensor<4> = tensor(values, [256, 1, 1, 1], &device);
    let noised = Noised::new(x0.clone(), x0.zeros_like(), vec![steps[0].from; 256]);
    for (estimate, v) in [(0.3, -1.0), (-0.97, 0.0), (1.0, 1.0), (-1.5, -1.0)] {
        let raw = Tensor::cat(vec![x0.full_like(estimate), x0.full_like(v)], 1);
        let bits = host(&variational_bound(raw, &noised, &steps, &predict::Sample));
        close(bits.iter().map(|bits| (-bits).exp2()).sum(), 1.0, 1e-5);
        // The most likely is the nearest.
        let best = (0..256).min_by(|&a, &b| bits[a].total_cmp(&bits[b])).unwrap();
        close(-1.0 + 2.0 * best as f64 / 255.0, f64::clamp(estimate, -1.0, 1.0), 1.0 / 255.0 + 1e-6);
    }
}

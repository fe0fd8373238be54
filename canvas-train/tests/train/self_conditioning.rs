use crate::{close, panic_text};
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use canvas_core::{
    Backbone, Channels, Concatenated, Condition, Denoiser, Estimate, Level, NoiseSchedule, Preconditioned,
    Unconditional, params,
};
use canvas_sched::{Cfg, predict, schedule};
use canvas_testkit::{distance, pattern};
use canvas_train::self_conditioning::{Given, SelfConditioned, is_given, own_estimate};
use canvas_train::{Noised, Objective};
use std::cell::RefCell;

fn at(times: &[f64]) -> Vec<Level> {
    times.iter().map(|&t| schedule::Flow::default().level(t)).collect()
}

fn noised(device: &Device) -> Noised<4> {
    Noised::new(
        pattern([4, 2, 3, 3], 1.0, device),
        pattern([4, 2, 3, 3], 2.0, device),
        at(&[0.2, 0.4, 0.6, 0.8]),
    )
}

/// Answers its input, and half of what it estimated; notes its batches.
struct Network(RefCell<Vec<usize>>);
impl Backbone<4> for Network {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<4>, _time: Tensor<1>, cond: &Unconditional) -> Tensor<4> {
        self.0.borrow_mut().push(cond.batch());
        x.clone().narrow(1, 0, 2) + x.narrow(1, 2, 2) * 0.5
    }
}

#[test]
fn half_of_the_images_are_given_theirs() {
    let images: Vec<u64> = (0..10_000).collect();
    let given = is_given(0.5, 3, &images);
    close(given.iter().filter(|&&given| given).count() as f64, 5000.0, 4.0 * 50.0);
    assert_eq!(is_given(0.5, 3, &[17])[0], given[17]);
    assert!(is_given(0.0, 3, &images).iter().all(|given| !given));
    assert!(is_given(1.0, 3, &images).iter().all(|&given| given));
}

/// The estimate of a network that is told zeros, for those rows alone, which are all that it is asked about.
#[test]
fn an_estimate_is_that_of_a_network_that_is_given_zeros() {
    let device = Device::flex().autodiff();
    let (network, noised) = (Network(RefCell::default()), noised(&device));
    let concatenated = Concatenated { backbone: &network };
    let denoiser = Preconditioned { backbone: &concatenated, prediction: &predict::Flow };
    let zeros = Channels { values: noised.x.zeros_like() };
    let expected = denoiser.denoise(noised.x.clone(), &noised.at, &(Unconditional(4), zeros)).x0;
    network.0.take();
    let own = own_estimate(denoiser, &noised, &Unconditional(4), &[false, true, false, true]).values;
    assert_eq!(network.0.take(), [2]);
    for (row, given) in [false, true, false, true].into_iter().enumerate() {
        let found = own.clone().narrow(0, row, 1);
        let expected = expected.clone().narrow(0, row, 1);
        let expected = if given { expected } else { expected.zeros_like() };
        assert_eq!(found.into_data(), expected.into_data(), "row {row}");
    }
    let none = own_estimate(denoiser, &noised, &Unconditional(4), &[false; 4]).values;
    assert_eq!(none.abs().max().into_scalar::<f32>(), 0.0);
    assert!(network.0.take().is_empty(), "nobody asked for an estimate");
    let says = panic_text(|| own_estimate(denoiser, &noised, &Unconditional(4), &[true]));
    assert!(says.contains("flags for images"), "{says}");
}

/// It is a constant of the step: its graph ends where it is given.
#[test]
fn an_estimate_has_no_gradient() {
    let device = Device::flex().autodiff();
    let conv = params::fill_by_formula(Conv2dConfig::new([4, 2], [1, 1]).init(&device));
    #[derive(Module, Debug)]
    struct Net {
        conv: Conv2d,
    }
    impl Backbone<4> for Net {
        type Cond = Unconditional;
        fn forward(&self, x: Tensor<4>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
            self.conv.forward(x)
        }
    }
    let (net, noised) = (Net { conv }, noised(&device));
    let concatenated = Concatenated { backbone: &net };
    let denoiser = Preconditioned { backbone: &concatenated, prediction: &predict::Flow };
    let own = own_estimate(denoiser, &noised, &Unconditional(4), &[true; 4]);
    assert!(!own.values.is_require_grad());
    let gradient = |own: Channels<4>| {
        let losses = Objective::default().losses(denoiser, &noised, &(Unconditional(4), own));
        net.conv.weight.grad(&losses.mean().backward()).unwrap().into_data()
    };
    let constant = Channels { values: Tensor::from_data(own.values.to_data(), &device) };
    assert_eq!(gradient(own), gradient(constant));
}

/// With zeros for the new inputs it answers as the network before, whatever it is given.
#[test]
fn a_widened_network_begins_as_the_narrow_one() {
    let device = Device::flex();
    let layer = |inputs| Conv2dConfig::new([inputs, 5], [3, 3]).init(&device);
    let narrow = layer(2);
    let wide = params::widened(layer(4), &narrow).unwrap();
    let (x, own) = (pattern([2, 2, 4, 4], 0.0, &device), pattern([2, 2, 4, 4], 5.0, &device));
    let found = wide.forward(Tensor::cat(vec![x.clone(), own], 1));
    assert!(distance(found, narrow.forward(x)) < 1e-6);
}

/// `x0 = x + previous / 2`, by hand over three steps.
struct Remembers;
impl Denoiser<4> for Remembers {
    type Cond = (Unconditional, Channels<4>);
    fn denoise(&self, x: Tensor<4>, _at: &[Level], (_, own): &Self::Cond) -> Estimate<4> {
        (x + own.values.clone() * 0.5).into()
    }
}

#[test]
fn a_run_carries_the_last_estimate() {
    let x = Tensor::<4>::ones([2, 1, 1, 1], &Device::flex());
    let drawing = SelfConditioned::new(|own| Given::new(Remembers, own));
    let level = at(&[0.5]);
    let step = |x: &Tensor<4>| drawing.denoise(x.clone(), &level, &Unconditional(x.dims()[0])).x0;
    for expected in [1.0, 1.5, 1.75] {
        assert_eq!(step(&x).max().into_scalar::<f32>(), expected);
    }
    let says = panic_text(|| step(&x.clone().narrow(0, 0, 1)));
    assert!(says.contains("the last estimate, of the same run"), "{says}");
}

/// The guided estimate is carried, and both halves of guidance are told it.
#[test]
fn guidance_goes_around() {
    #[derive(Clone)]
    struct Adds;
    impl Denoiser<4> for Adds {
        type Cond = (canvas_core::Class, Channels<4>);
        fn denoise(&self, _x: Tensor<4>, _at: &[Level], (class, own): &Self::Cond) -> Estimate<4> {
            (class.labels.clone().float().reshape([-1, 1, 1, 1]) + own.values.clone()).into()
        }
    }
    let device = Device::flex();
    let class = |labels: &[usize]| canvas_core::Class::new(labels, &device);
    let drawing = SelfConditioned::new(|own| Cfg::new(Given::new(Adds, own), class(&[1]), 3.0));
    let x = Tensor::<4>::zeros([2, 1, 1, 1], &device);
    // Of labels 2 and 5: 1 + 3 (label - 1), and the estimate before in both halves alike.
    for expected in [[4.0, 13.0], [8.0, 26.0]] {
        let found = drawing.denoise(x.clone(), &at(&[0.5]), &class(&[2, 5])).x0;
        assert_eq!(found.into_data().iter::<f32>().collect::<Vec<_>>(), expected);
    }
    let given = Given::new(Adds, Channels { values: x });
    let says =
        panic_text(|| given.denoise(Tensor::zeros([3, 1, 1, 1], &device), &at(&[0.5]), &class(&[1, 2, 3])));
    assert_eq!(says, "channels given for 2 samples, a batch of 3");
}

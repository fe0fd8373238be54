use burn::prelude::*;
use canvas_core::{Class, Denoiser, Estimate, Level, per_sample};
use canvas_sched::Cfg;
use std::cell::RefCell;

/// `x * label + sigma`, and the batch sizes it was asked for.
#[derive(Default)]
struct Labelled {
    calls: RefCell<Vec<usize>>,
}

impl Denoiser<3> for Labelled {
    type Cond = Class;
    fn denoise(&self, x: Tensor<3>, at: &[Level], cond: &Class) -> Estimate<3> {
        self.calls.borrow_mut().push(x.dims()[0]);
        let labels: Tensor<3> = cond.labels.clone().float().reshape([-1, 1, 1]);
        let sigma = per_sample::<3>(at, &x.device(), |level| level.sigma);
        (x * labels + sigma).into()
    }
}

fn level(sigma: f64) -> Level {
    Level { time: sigma, alpha: 1.0, sigma }
}

fn inputs() -> (Device, Tensor<3>, Class) {
    let device = Device::flex();
    let x = Tensor::from_data([[[0.5, 1.0]], [[-1.0, 0.25]], [[2.0, -3.0]]], &device);
    let cond = Class::new(&[3, 1, 4], &device);
    (device, x, cond)
}

#[track_caller]
fn same(left: Tensor<3>, right: Tensor<3>) {
    left.into_data().assert_approx_eq::<f32>(&right.into_data(), burn::tensor::Tolerance::absolute(1e-5));
}

#[test]
fn scale_1_is_the_plain_denoiser_and_calls_it_once() {
    let (device, x, cond) = inputs();
    let plain = Labelled::default().denoise(x.clone(), &[level(0.5)], &cond).x0;
    let guided = Cfg::new(Labelled::default(), Class::new(&[7], &device), 1.0);
    assert_eq!(guided.denoise(x, &[level(0.5)], &cond).x0.into_data(), plain.into_data());
    assert_eq!(*guided.denoiser.calls.borrow(), [3]);
}

#[test]
fn one_call_equals_two_and_is_linear_in_the_scale() {
    let (device, x, cond) = inputs();
    let plain = Labelled::default();
    let at = [level(0.5), level(0.1), level(2.0)];
    let yes = plain.denoise(x.clone(), &at, &cond).x0;
    for nulls in [vec![7], vec![7, 8, 9]] {
        let null = Class::new(&nulls, &device);
        let spread = canvas_core::Condition::spread(&null, 3);
        let no = plain.denoise(x.clone(), &at, &spread).x0;
        for scale in [0.0, 0.5, 2.0, 7.5] {
            let guided = Cfg::new(Labelled::default(), null.clone(), scale);
            let found = guided.denoise(x.clone(), &at, &cond).x0;
            same(found, no.clone() + (yes.clone() - no.clone()) * scale);
            assert_eq!(*guided.denoiser.calls.borrow(), [6], "one call of twice the batch");
        }
    }
}

#[test]
fn a_shared_level_and_a_single_condition_are_spread() {
    let (device, x, _) = inputs();
    let (yes, no) = (Class::new(&[2], &device), Class::new(&[0], &device));
    let guided = Cfg::new(Labelled::default(), no, 3.0);
    same(guided.denoise(x.clone(), &[level(0.5)], &yes).x0, x * 6.0 + 0.5);
}

#[test]
fn guidance_can_be_limited_to_a_range_per_sample() {
    let (device, x, cond) = inputs();
    let guided = Cfg::new(Labelled::default(), Class::new(&[0], &device), 2.0).within(0.2, 1.0);
    let at = [level(0.5), level(0.1), level(2.0)];
    let scales = Tensor::<3>::from_data([[[6.0]], [[1.0]], [[4.0]]], &device); // only the first is doubled
    let sigmas = Tensor::<3>::from_data([[[0.5]], [[0.1]], [[2.0]]], &device);
    same(guided.denoise(x.clone(), &at, &cond).x0, x.clone() * scales + sigmas);
    guided.denoise(x, &[level(0.1)], &cond).x0;
    assert_eq!(*guided.denoiser.calls.borrow(), [6, 3], "outside of the range one plain call is enough");
}

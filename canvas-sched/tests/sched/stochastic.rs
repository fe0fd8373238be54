use crate::oracle::DATA;
use burn::prelude::*;
use canvas_core::{Hop, Level, Noise, Run, Sampler, Seeded};
use canvas_sched::schedule::{Edm, Flow, Vp};
use canvas_sched::{Churned, Ddim, Ddpm, Heun, Timesteps, Variance, by_name};

fn x() -> Tensor<2> {
    Tensor::from_data([[0.9, -0.3, 0.2], [1.4, 0.1, -2.0]], &Device::flex())
}

#[track_caller]
fn same(left: Tensor<2>, right: Tensor<2>, tolerance: f32) {
    let off = (left - right).abs().max().into_scalar::<f32>();
    assert!(off <= tolerance, "off by {off}");
}

#[test]
fn ddim_with_eta_1_is_ddpm() {
    for name in by_name::SCHEDULES {
        let schedule = by_name::schedule(name).unwrap();
        let denoise = |x: Tensor<2>, level: Level| DATA.denoise(x, level).into();
        for pair in Timesteps::linspace(1000).levels(&schedule, 9).unwrap().windows(2) {
            let mut noise = Seeded::new(0, [0, 1]);
            let x = x() * pair[0].alpha.hypot(pair[0].sigma);
            let ddpm = Ddpm::default()
                .step(x.clone(), &mut Hop::single((pair[0], pair[1]), &schedule, &denoise, &mut noise));
            let ddim = Ddim { eta: 1.0 }
                .step(x, &mut Hop::single((pair[0], pair[1]), &schedule, &denoise, &mut noise));
            assert!((ddpm.std.same() - ddim.std.same()).abs() <= 1e-9 * ddpm.std.same(), "{name}");
            same(ddpm.mean, ddim.mean, 1e-5 * pair[0].sigma.max(1.0) as f32);
        }
    }
}

#[test]
fn a_step_to_clean_data_is_certain() {
    let (from, clean) = (Flow::default().at(0.1), Flow::default().at(0.0));
    let denoise = |x: Tensor<2>, level: Level| DATA.denoise(x, level).into();
    for variance in [Variance::FixedSmall, Variance::FixedLarge] {
        let mut noise = Seeded::new(0, [0, 1]);
        let step = Ddpm { variance }
            .step(x(), &mut Hop::single((from, clean), &Flow::default(), &denoise, &mut noise));
        assert!(step.std.is_zero());
        same(step.mean, DATA.denoise(x(), from), 1e-6);
    }
}

/// Ho et al., 2020, equation 7 in their own symbols, with betas.
#[test]
fn ddpm_is_the_papers_posterior() {
    let vp = Vp::linear(1000);
    let (from, to) = (vp.training_step(400), vp.training_step(399));
    let (bar, bar_prev) = (from.alpha.powi(2), to.alpha.powi(2));
    let beta = 1e-4 + (0.02 - 1e-4) * 400.0 / 999.0;
    let denoise = |x: Tensor<2>, level: Level| DATA.denoise(x, level).into();
    let mut noise = Seeded::new(0, [0, 1]);
    let step = Ddpm::default().step(x(), &mut Hop::single((from, to), &vp, &denoise, &mut noise));
    let (c0, ct) =
        (bar_prev.sqrt() * beta / (1.0 - bar), (1.0 - beta).sqrt() * (1.0 - bar_prev) / (1.0 - bar));
    same(step.mean, DATA.denoise(x(), from) * c0 + x() * ct, 1e-6);
    assert!((step.std.same() - ((1.0 - bar_prev) / (1.0 - bar) * beta).sqrt()).abs() < 1e-12);
}

#[test]
fn a_ddpm_step_has_the_log_probability_of_its_gaussian() {
    let flow = Flow::default();
    let (from, to) = (flow.at(0.6), flow.at(0.4));
    let denoise = |x: Tensor<2>, level: Level| DATA.denoise(x, level).into();
    let mut noise = Seeded::new(0, [0, 1]);
    let step = Ddpm::default().step(x(), &mut Hop::single((from, to), &flow, &denoise, &mut noise));
    let next = step.mean.clone() + Tensor::from_data([[0.1, -0.2, 0.0], [0.3, 0.0, 0.05]], &Device::flex());
    let found: Vec<f64> = step.log_prob(next).into_data().iter::<f64>().collect();

    let added = 0.6f64.powi(2) - (0.4 / 0.6 * 0.4f64).powi(2);
    let variance = added * (0.4f64 / 0.6).powi(2);
    for (found, squares) in found.into_iter().zip([0.01 + 0.04, 0.09 + 0.0025]) {
        let expected = -0.5 * squares / variance - 1.5 * (2.0 * std::f64::consts::PI * variance).ln();
        crate::close(found, expected, 1e-5);
    }
}

trait At {
    fn at(&self, t: f64) -> Level;
}

impl<S: canvas_core::NoiseSchedule> At for S {
    fn at(&self, t: f64) -> Level {
        self.level(t)
    }
}

/// Image 17 is the same alone and in a batch, for samplers that draw in the loop and in the step.
#[test]
fn an_image_does_not_depend_on_its_batch() {
    let schedule = Edm::default();
    let churned = Churned { inner: Heun, amount: 5.0, range: (0.05, 50.0), noise: 1.003 };
    let samplers: [(&str, Box<dyn Sampler<2>>); 3] = [
        ("ddpm", Box::new(Ddpm::default())),
        ("ddim", Box::new(Ddim { eta: 0.7 })),
        ("churned heun", Box::new(churned)),
    ];
    let levels = Timesteps::edm().levels(&schedule, 10).unwrap();
    for (name, sampler) in samplers {
        let draw = |images: &[u64]| {
            let mut noise = Seeded::new(9, images);
            let like = Tensor::<2>::zeros([images.len(), 5], &Device::flex());
            let start = noise.normal_like(&like) * levels[0].sigma;
            let run = Run::new(&sampler, &schedule, &levels, &mut noise).unwrap();
            run.sample(|x, level| DATA.denoise(x, level), start)
        };
        let batch = draw(&[3, 17, 5]);
        assert_eq!(batch.narrow(0, 1, 1).into_data(), draw(&[17]).into_data(), "{name}");
    }
}

/// Churn reaches further than its own noise: with it, two seeds differ; without, they do not.
#[test]
fn churn_is_what_makes_heun_stochastic() {
    let schedule = Edm::default();
    let levels = Timesteps::edm().levels(&schedule, 10).unwrap();
    let draw = |amount, seed| {
        let sampler = Churned { inner: Heun, amount, range: (0.05, 50.0), noise: 1.0 };
        let mut noise = Seeded::new(seed, [0, 1]);
        let run = Run::new(&sampler, &schedule, &levels, &mut noise).unwrap();
        run.sample(|x, level| DATA.denoise(x, level), x() * 80.0).into_data()
    };
    assert_eq!(draw(0.0, 1), draw(0.0, 2));
    assert_ne!(draw(5.0, 1), draw(5.0, 2));
}

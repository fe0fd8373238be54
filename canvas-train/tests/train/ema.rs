use crate::{Net, Ranks, bits, close, panic_text};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use canvas_core::params;
use canvas_train::{Ema, Moment, power_of_width};

/// Steps of four images.
fn at(step: u64) -> Moment {
    Moment { step, images: 4 * step.saturating_add(1), batch: 4 }
}

#[test]
fn decay_warms_up_to_its_limit() {
    let ema = Ema::WarmUp { limit: 0.999 };
    // TensorFlow's and Stable Diffusion's min(limit, (1 + step) / (10 + step)).
    for (step, expected) in [(0, 0.1), (1, 2.0 / 11.0), (8, 0.5), (90, 0.91), (8989, 8990.0 / 8999.0)] {
        close(ema.decay(at(step)), expected, 1e-15);
    }
    assert!(ema.decay(at(8989)) < 0.999);
    assert_eq!(ema.decay(at(9_000)), 0.999);
    assert_eq!(ema.decay(at(u64::MAX / 8)), 0.999);
    assert_eq!(Ema::WarmUp { limit: 0.0 }.decay(at(5)), 0.0);
}

/// Adds a constant to every parameter.
struct Add(f64);

impl ModuleMapper for Add {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value + self.0)
    }
}

/// Regression: diffusers 5783, an average that was made, saved and never stepped.
#[test]
fn five_steps_are_those_by_hand() {
    let (ema, mut model) = (Ema::WarmUp { limit: 0.25 }, Ranks::new(&Device::flex().autodiff()));
    let mut average = model.valid();
    let values = |model: &Ranks| -> Vec<f64> {
        params::named(model).iter().flat_map(|param| param.data.iter::<f64>().collect::<Vec<_>>()).collect()
    };
    let mut expected = values(&model);
    let trained = bits(&model);
    // (1 + step) / (10 + step), held at a quarter from step 2 on (3/12).
    for (step, decay) in [0.1, 2.0 / 11.0, 0.25, 0.25, 0.25].into_iter().enumerate() {
        model = model.map(&mut Add(1.0 + step as f64));
        average = ema.update(average, &model, at(step as u64));
        for (old, new) in expected.iter_mut().zip(values(&model)) {
            *old = decay * *old + (1.0 - decay) * new;
        }
        values(&average).iter().zip(&expected).for_each(|(&found, &expected)| close(found, expected, 5e-6));
    }
    assert_ne!(bits(&average), bits(&model), "the average lags behind");
    assert_ne!(bits(&average), trained, "and moves");
}

#[test]
fn the_average_tracks_no_gradients() {
    let model = Ranks::new(&Device::flex().autodiff());
    let average = Ema::WarmUp { limit: 0.9 }.update(model.valid(), &model, at(0));
    assert!(!average.two.val().device().is_autodiff());
    assert!(model.two.val().is_require_grad());
}

#[test]
fn a_model_that_lacks_a_parameter_of_its_average_panics() {
    let device = Device::flex().autodiff();
    let average = params::realise(Net::new(4, &device)).valid();
    let stranger = Net::new(4, &device); // not realised: its identities are others
    let message = panic_text(|| Ema::WarmUp { limit: 0.9 }.update(average, &stranger, at(0)));
    assert!(message.contains("the model lacks a parameter of its average"), "{message}");
}

/// EDM's: after its half-life an average is half new, however many steps that took.
#[test]
fn half_lives_are_counted_in_images() {
    let ema = Ema::HalfLife { images: 1000.0, part: 0.05 };
    for batch in [10, 50, 200] {
        let moment = |step: u64| Moment { step, images: 100_000 + batch * (step + 1), batch };
        let kept: f64 = (0..1000 / batch).map(|step| ema.decay(moment(step))).product();
        close(kept, 0.5, 1e-12);
    }
    // Early on, a twentieth of the training so far.
    close(ema.decay(Moment { step: 9, images: 1000, batch: 50 }), 0.5, 1e-12);
}

/// Karras et al., 2023: the widths that the paper's code names, and the powers that they have.
#[test]
fn widths_and_powers_are_each_others() {
    for (width, power) in [(0.05, 16.97), (0.10, 6.94)] {
        close(power_of_width(width), power, 5e-3);
    }
    for width in [1e-3, 0.01, 0.05, 0.1, 0.2, 0.28] {
        let power = power_of_width(width);
        let found = ((power + 1.0) / ((power + 2.0).powi(2) * (power + 3.0))).sqrt();
        close(found / width, 1.0, 1e-12);
    }
    for width in [0.0, -0.1, 0.3, f64::NAN] {
        assert!(panic_text(|| power_of_width(width)).contains("a relative width of"));
    }
}

/// The weights of all steps: a power of their time, as wide as was asked for.
#[test]
fn a_power_function_average_is_as_wide_as_it_says() {
    let ema = Ema::Power { width: 0.1 };
    let mut parts: Vec<f64> = Vec::new();
    for step in 0..20_000 {
        let decay = ema.decay(Moment { step, images: 2 * (step + 1), batch: 2 });
        parts.iter_mut().for_each(|part| *part *= decay);
        parts.push(1.0 - decay);
    }
    let total = parts.len() as f64;
    let moment = |power: i32| -> f64 {
        parts.iter().enumerate().map(|(i, part)| part * ((i + 1) as f64 / total).powi(power)).sum()
    };
    close(moment(0), 1.0, 1e-9);
    close((moment(2) - moment(1).powi(2)).sqrt(), 0.1, 1e-4);
}

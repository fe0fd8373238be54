use crate::{Net, Ranks, bits, close, panic_text};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use canvas_core::params;
use canvas_train::Ema;

#[test]
fn decay_warms_up_to_its_limit() {
    let ema = Ema { limit: 0.999 };
    // TensorFlow's and Stable Diffusion's min(limit, (1 + step) / (10 + step)).
    for (step, expected) in [(0, 0.1), (1, 2.0 / 11.0), (8, 0.5), (90, 0.91), (8989, 8990.0 / 8999.0)] {
        close(ema.decay(step), expected, 1e-15);
    }
    assert!(ema.decay(8989) < 0.999);
    assert_eq!(ema.decay(9_000), 0.999);
    assert_eq!(ema.decay(u64::MAX), 0.999);
    assert_eq!(Ema { limit: 0.0 }.decay(5), 0.0);
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
    let (ema, mut model) = (Ema { limit: 0.25 }, Ranks::new(&Device::flex().autodiff()));
    let mut average = model.valid();
    let values = |model: &Ranks| -> Vec<f64> {
        params::named(model).iter().flat_map(|param| param.data.iter::<f64>().collect::<Vec<_>>()).collect()
    };
    let mut expected = values(&model);
    let trained = bits(&model);
    // (1 + step) / (10 + step), held at a quarter from step 2 on (3/12).
    for (step, decay) in [0.1, 2.0 / 11.0, 0.25, 0.25, 0.25].into_iter().enumerate() {
        model = model.map(&mut Add(1.0 + step as f64));
        average = ema.update(average, &model, step as u64);
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
    let average = Ema { limit: 0.9 }.update(model.valid(), &model, 0);
    assert!(!average.two.val().device().is_autodiff());
    assert!(model.two.val().is_require_grad());
}

#[test]
fn a_model_that_lacks_a_parameter_of_its_average_panics() {
    let device = Device::flex().autodiff();
    let average = params::realise(Net::new(4, &device)).valid();
    let stranger = Net::new(4, &device); // not realised: its identities are others
    let message = panic_text(|| Ema { limit: 0.9 }.update(average, &stranger, 0));
    assert!(message.contains("the model lacks a parameter of its average"), "{message}");
}

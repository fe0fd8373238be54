use crate::{Net, bits, tensor};
use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{
    Backbone, Level, NoiseSchedule, Preconditioned, Text, TextEncoder, Tokens, Unconditional, params,
};
use canvas_dit::{TextDit, TextDitConfig};
use canvas_sched::{predict, schedule};
use canvas_testkit::{chirped, pattern};
use canvas_text::{TextTransformer, TextTransformerConfig};
use canvas_train::{AdamW, Ema, Gradients, Noised, Objective, Precision, StepOptions, TrainState};
use canvas_unet::{Unet, UnetConfig};

const OPTIONS: StepOptions = StepOptions { rate: 1e-3, clip: 1.0, ema: Ema::WarmUp { limit: 0.8 } };
const SHAPE: [usize; 4] = [4, 4, 8, 8];

fn device() -> Device {
    Device::flex().autodiff()
}

trait Network: Module + ModuleDisplay + Backbone<4, Cond = Text> {}
impl<B: Module + ModuleDisplay + Backbone<4, Cond = Text>> Network for B {}

/// A text encoder and a network, as they are trained together.
#[derive(Module, Debug)]
struct Joint<B> {
    text: TextTransformer,
    network: B,
}

fn joint<B: Network>(network: B) -> TrainState<Joint<B>, AdamW> {
    let text = TextTransformerConfig::new(11, 6).with_width(32).with_depth(1).init(&device());
    TrainState::new(chirped(Joint { text, network }), AdamW::default())
}

fn dit() -> TrainState<Joint<TextDit>, AdamW> {
    joint(TextDitConfig::new([8, 8], 4, 32, 2, 2, 32, 32).init(&device()))
}

fn unet() -> TrainState<Joint<Unet>, AdamW> {
    let config = UnetConfig::new(4, 32, vec![16, 32], vec![1, 1], vec![2, 2]).with_blocks(1);
    joint(config.with_norm_groups(8).with_pooled_width(Some(32)).init(&device()))
}

fn tokens() -> Tokens {
    let ids = [2, 3, 5, 7].into_iter().flat_map(|word| [0, word, word + 1, 1]).collect();
    Tokens { ids, mask: vec![true; 16], length: 4 }
}

fn losses<B: Network>(precision: Precision, model: &Joint<B>) -> Tensor<1> {
    let flow = schedule::Flow::default();
    let at: Vec<Level> = [0.1, 0.4, 0.6, 0.9].map(|time| flow.level(time)).to_vec();
    let x0 = pattern(SHAPE, 10.0, &device()) * 0.8;
    let noised = Noised::new(x0, pattern(SHAPE, 20.5, &device()) * 1.3, at);
    let model = precision.model(model);
    let cond = model.text.encode(&tokens());
    let network = precision.network(&model.network);
    let network = Preconditioned { backbone: &network, prediction: &predict::Flow };
    let losses = Objective::default().losses(network, &noised, &cond);
    assert_eq!(losses.dtype(), DType::F32);
    losses
}

fn values<M: Module>(model: &M, gradients: &Gradients) -> Vec<f64> {
    let named = params::named_gradients(model, &gradients.grads);
    named.iter().flat_map(|grad| grad.data.iter::<f64>()).collect()
}

/// `|found - expected| / |expected|`.
fn relative(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let off = length(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    off / length(&mut expected.iter().copied())
}

/// All numbers that a module or gradients of it are in.
#[derive(Default)]
struct Types<'a> {
    gradients: Option<&'a Gradients>,
    found: Vec<DType>,
}

impl ModuleVisitor for Types<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(match self.gradients {
            None => param.val().dtype(),
            Some(gradients) => gradients.grads.get::<D>(param.id).expect("a gradient").dtype(),
        });
    }
}

fn all_are<M: Module>(dtype: DType, model: &M, gradients: Option<&Gradients>) -> bool {
    let mut types = Types { gradients, ..Types::default() };
    model.visit(&mut types);
    !types.found.is_empty() && types.found.iter().all(|&found| found == dtype)
}

fn gradients_are_those_of_f32<B: Network>(name: &str, state: &TrainState<Joint<B>, AdamW>) {
    let of = |precision| state.gradients(losses(precision, &state.model)).unwrap();
    let (exact, found) = (of(Precision::F32), of(Precision::Bf16));
    assert!(all_are(DType::F32, &state.model, Some(&found)));
    assert!(all_are(DType::BF16, &Precision::Bf16.model(&state.model), None));
    let loss = relative(&found.losses, &exact.losses);
    let [grad, expected] = [&found, &exact].map(|gradients| values(&state.model, gradients));
    let grad = relative(&grad, &expected);
    println!("{name}: losses off by {loss:.1e}, gradients by {grad:.1e}");
    // A number in bf16 is off by up to 2^-9, or 2e-3: a network's answer by some of those, and not by none.
    assert!((1e-4..2e-2).contains(&loss), "losses off by {loss:e}");
    assert!((1e-4..5e-2).contains(&grad), "gradients off by {grad:e}");

    let again = |model: &Joint<B>| losses(Precision::Bf16, model);
    let again = values(&state.model, &state.gradients_recomputed(again, 1).unwrap());
    let off = relative(&again, &values(&state.model, &found));
    println!("{name}: with blocks run again, gradients off by {off:.1e}");
    assert!(off < 5e-2, "gradients off by {off:e}");
}

#[test]
fn gradients_of_bf16_are_those_of_f32_but_for_its_rounding() {
    gradients_are_those_of_f32("transformer", &dit());
    gradients_are_those_of_f32("unet", &unet());
}

#[test]
fn a_model_trains_in_bf16_as_in_f32() {
    let run = |precision: Precision| {
        let mut state = dit();
        let found = (0..10).map(|_| {
            let losses = losses(precision, &state.model);
            state.step(losses, &OPTIONS).unwrap().loss
        });
        let found: Vec<f64> = found.collect();
        assert!(all_are(DType::F32, &state.model, None) && all_are(DType::F32, &state.average, None));
        found
    };
    let [exact, found] = [Precision::F32, Precision::Bf16].map(run);
    let off = relative(&found, &exact);
    println!("losses {exact:.4?} and {found:.4?}: off by {off:.1e}");
    assert!(exact[9] < 0.8 * exact[0], "{exact:?}");
    assert!((1e-4..2e-2).contains(&off), "{found:?} off by {off:e} from {exact:?}");
}

/// A step of 1e-5 on a parameter of 1 is lost in bf16, whose numbers there are 2^-7 apart.
#[test]
fn small_steps_add_up_in_the_f32_parameters() {
    let options = StepOptions { rate: 1e-5, ..OPTIONS };
    let ones = Param::from_tensor(Tensor::<1>::ones([4], &device()));
    let optimizer = AdamW { weight_decay: 0.0, ..AdamW::default() };
    let mut state = TrainState::new(vec![ones], optimizer);
    for _ in 0..10 {
        let losses = Precision::Bf16.model(&state.model)[0].val().square();
        state.step(losses.cast(DType::F32), &options).unwrap();
    }
    let found = state.model[0].val().into_data();
    for value in found.iter::<f64>() {
        crate::close(1.0 - value, 1e-4, 1e-6);
    }
}

#[test]
fn f32_changes_nothing() {
    let model = params::realise(Net::new(8, &device()));
    let (x, time) = (pattern([3, 2], 1.0, &device()), tensor(vec![0.1, 0.5, 0.9], [3], &device()));
    let expected = model.forward(x.clone(), time.clone(), &Unconditional(3));
    assert_eq!(bits(&Precision::F32.model(&model)), bits(&model));
    let found = Precision::F32.network(&model).forward(x, time, &Unconditional(3));
    assert_eq!(found.into_data(), expected.into_data());
}

#[test]
fn a_precision_is_known_by_its_name() {
    for precision in [Precision::F32, Precision::Bf16] {
        assert_eq!(precision.to_string().parse(), Ok(precision));
        precision.check(&device()).unwrap();
    }
    let error = "f16".parse::<Precision>().unwrap_err().to_string();
    assert_eq!(error, "\"f16\" is no precision: there are f32 and bf16");
}

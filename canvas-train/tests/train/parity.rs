//! Five AdamW steps of small networks beside PyTorch's (fixture by `tools/fixtures_training.py`): losses, gradients,
//! parameters, averages.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::{
    Autoencoder, Channels, Class, Concatenated, Level, NoiseSchedule, Preconditioned, Prediction, Text,
    Tokens, params, weights,
};
use canvas_dit::{Dit, DitConfig, WithVariance};
use canvas_sched::{predict, schedule};
use canvas_testkit::{chirped, pattern};
use canvas_text::ClipTextConfig;
use canvas_train::adapters::{AdapterConfig, Adapters, Kind};
use canvas_train::{
    AdamW, ChainStep, Distance, Ema, Noised, Objective, StepOptions, TrainState, Weighting, inpainting,
    variational_bound,
};
use canvas_unet::{
    ControlNetConfig, Controlled, Hints, ImagePrompted, ImageTokens, IpAdapterConfig, UnetConfig,
};
use canvas_vae::AutoencoderKlConfig;
use std::collections::BTreeMap;
use std::path::Path;

const STEPS: usize = 5;
const INDICES: [[usize; 2]; STEPS] = [[10, 600], [999, 0], [300, 45], [0, 800], [500, 120]];
const TIMES: [[f64; 2]; STEPS] = [[0.1, 0.6], [0.95, 0.02], [0.3, 0.5], [0.75, 0.8], [0.5, 0.25]];
const SIGMAS: [[f64; 2]; STEPS] = [[0.05, 1.0], [30.0, 0.2], [0.4, 2.5], [0.01, 7.0], [0.9, 0.6]];
const OPTIONS: StepOptions =
    StepOptions { rate: 1e-3, clip: f64::INFINITY, ema: Ema::WarmUp { limit: 0.25 } };

fn device() -> Device {
    Device::flex().autodiff()
}

/// Length, and products with waves of two frequencies: as `summary` of the script.
fn summary(values: &[f64]) -> [f64; 3] {
    let product = |wave: usize| {
        let rate = 0.37 + 0.21 * wave as f64;
        values.iter().enumerate().map(|(i, x)| x * (rate * i as f64 + wave as f64).sin()).sum()
    };
    [values.iter().map(|x| x * x).sum::<f64>().sqrt(), product(0), product(1)]
}

type Values = BTreeMap<String, Vec<f64>>;

/// Trains, and holds everything against the fixture of a case.
fn equals<M: Module>(case: &str, model: M, losses: impl Fn(&M, usize) -> Tensor<1>) {
    equals_by_name(case, model, losses, str::to_owned);
}

/// As [`equals`], where the fixture has other names for parameters.
fn equals_by_name<M: Module>(
    case: &str,
    model: M,
    losses: impl Fn(&M, usize) -> Tensor<1>,
    name: impl Fn(&str) -> String,
) {
    let by_name = |all: Vec<params::Named>| -> Values {
        all.into_iter().map(|each| (name(&each.name), each.data.iter::<f64>().collect())).collect()
    };
    let mut state = TrainState::new(model, AdamW { epsilon: 1e-5, ..AdamW::default() });
    state.also_average(Ema::Power { width: 0.1 });
    let start = by_name(params::named(&state.model));
    let fixture = Fixture::new(case, &start);

    let gradients = GradientsParams::from_grads(losses(&state.model, 0).mean().backward(), &state.model);
    let gradients = by_name(params::named_gradients(&state.model, &gradients));
    let most = gradients.values().map(|grad| summary(grad)[0]).fold(0.0, f64::max);
    // Those that are nothing but rounding, to the largest.
    fixture.compare("grad", &gradients, 1e-4, |grad| summary(grad)[0].max(1e-3 * most));

    let reports = (0..STEPS).map(|step| {
        let losses = losses(&state.model, step);
        state.step(losses, &OPTIONS).unwrap().loss
    });
    fixture.losses(&reports.collect::<Vec<_>>());
    let power = state.others().next().unwrap().1;
    for (kind, now) in [("param", &state.model.valid()), ("warm_up", &state.average), ("power", power)] {
        let moved = by_name(params::named(now)).into_iter().map(|(name, now)| {
            let moved = now.iter().zip(&start[&name]).map(|(now, before)| now - before).collect();
            (name, moved)
        });
        // To what five steps of the whole rate would be.
        let whole = |moved: &[f64]| STEPS as f64 * OPTIONS.rate * (moved.len() as f64).sqrt();
        fixture.compare(kind, &moved.collect(), 2e-4, whole);
    }
}

/// What PyTorch found in a case.
struct Fixture {
    case: String,
    values: Values,
}

impl Fixture {
    fn new(case: &str, parameters: &Values) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/training.safetensors");
        let mut all = weights::read_tensors(&path).unwrap();
        let kinds = ["losses", "grad", "param", "warm_up", "power"];
        let values: Values = kinds
            .map(|kind| {
                let data = all.remove(&format!("{case}/{kind}")).expect(kind);
                (kind.to_owned(), data.iter::<f64>().collect())
            })
            .into();
        assert_eq!(values["param"].len(), 3 * parameters.len(), "{case}: parameters");
        Self { case: case.to_owned(), values }
    }

    fn losses(&self, found: &[f64]) {
        for (found, expected) in found.iter().zip(&self.values["losses"]) {
            let error = (found / expected - 1.0).abs();
            assert!(error < 1e-5, "{}: losses {found}, expected {expected}", self.case);
        }
    }

    fn compare(&self, kind: &str, found: &Values, limit: f64, scale: impl Fn(&[f64]) -> f64) {
        let expected = self.values[kind].as_chunks::<3>().0;
        assert_eq!(found.len(), expected.len(), "{} {kind}: as many as parameters", self.case);
        let (mut worst, mut failed) = (0.0f64, String::new());
        for ((name, found), expected) in found.iter().zip(expected) {
            let off = summary(found).iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let error = off / scale(found);
            if error.is_nan() || error >= limit {
                failed +=
                    &format!("\n{name}: error {error:.1e}, {:?}, expected {expected:?}", summary(found));
            }
            worst = worst.max(error);
        }
        assert!(failed.is_empty(), "{} {kind}:{failed}", self.case);
        println!("{} {kind}: {worst:.1e}", self.case);
    }
}

const SHAPE: [usize; 4] = [2, 3, 4, 10];

fn noised(step: usize, shape: [usize; 4], at: [Level; 2]) -> Noised<4> {
    let x0 = pattern(shape, 10.0 + step as f64, &device()) * 0.8;
    let eps = pattern(shape, 20.5 + step as f64, &device()) * 1.3;
    Noised::new(x0, eps, at.to_vec())
}

fn dit(learn_variance: bool) -> Dit {
    let config = DitConfig::new([4, 10], 16, 2, 2).with_channels(3).with_classes(7);
    params::fill_by_formula(config.with_learn_variance(learn_variance).init(&device()))
}

fn labels() -> Class {
    Class::new(&[3, 7], &device())
}

/// A DiT without variances, on these levels.
fn dit_equals(
    case: &str,
    prediction: &dyn Prediction,
    weighting: Weighting,
    at: impl Fn(usize) -> [Level; 2],
) {
    let objective = Objective { weighting, ..Objective::default() };
    equals(case, dit(false), |model, step| {
        let network = Preconditioned { backbone: model, prediction };
        objective.losses(network, &noised(step, SHAPE, at(step)), &labels())
    });
}

fn chain(step: usize) -> [Level; 2] {
    let vp = schedule::Vp::linear(1000);
    INDICES[step].map(|index| vp.training_step(index))
}

#[test]
fn a_flow_trains_as_in_pytorch() {
    let at = |step: usize| TIMES[step].map(|t| schedule::Flow::default().level(t));
    dit_equals("dit_flow", &predict::Flow, Weighting::Uniform, at);
}

#[test]
fn noise_and_velocity_train_as_in_pytorch_with_min_snr() {
    let weighting = Weighting::MinSnr { gamma: 5.0 };
    dit_equals("dit_min_snr", &predict::Epsilon, weighting, chain);
    dit_equals("dit_velocity", &predict::Velocity, weighting, chain);
}

#[test]
fn edm_trains_as_in_pytorch() {
    let at = |step: usize| SIGMAS[step].map(|sigma| schedule::Edm::default().level_at_ratio(sigma));
    dit_equals("dit_edm", &predict::Edm::default(), Weighting::Uniform, at);
}

/// ADM's and DiT's hybrid loss; the first step of the chain is among those that are drawn.
#[test]
fn variances_are_learned_as_in_pytorch() {
    let vp = schedule::Vp::linear(1000);
    equals("dit_variance", dit(true), |model, step| {
        let network = WithVariance(model);
        let network = Preconditioned { backbone: &network, prediction: &predict::Epsilon };
        let noised = noised(step, SHAPE, chain(step));
        let raw = network.raw(noised.x.clone(), &noised.at, &labels());
        let steps = INDICES[step].map(|index| ChainStep::new(&vp, index, 1000));
        let bound = variational_bound(raw.clone(), &noised, &steps, &predict::Epsilon);
        Objective::default().of_answer(raw, &noised, &predict::Epsilon) + bound
    });
}

fn unet_config() -> UnetConfig {
    UnetConfig::new(3, 12, vec![8, 16], vec![1, 0], vec![2, 2]).with_blocks(1).with_norm_groups(2)
}

fn prompts() -> Text {
    let device = device();
    Text {
        tokens: pattern([2, 5, 12], 1.0, &device),
        mask: Tensor::<2, Int>::ones([2, 5], &device).bool(),
        pooled: pattern([2, 7], 3.0, &device),
    }
}

#[test]
fn a_unet_trains_as_diffusers() {
    let text = prompts();
    equals("unet", chirped(unet_config().init(&device())), |model, step| {
        let network = Preconditioned { backbone: model, prediction: &predict::Epsilon };
        Objective::default().losses(network, &noised(step, [2, 3, 8, 12], chain(step)), &text)
    });
}

#[test]
fn a_lora_trains_as_in_peft() {
    let device = device();
    let unet = chirped(unet_config().init(&device)).no_grad();
    let config = AdapterConfig { kind: Kind::Lora, rank: 3, alpha: 6.0 };
    let attends = |layer: &str| {
        let last = layer.rsplit('.').next().unwrap();
        (layer.contains(".attention.") || layer.contains(".cross."))
            && ["query", "key", "value", "output"].contains(&last)
    };
    let adapters = Adapters::new(&unet, config, attends, &device).unwrap();
    let layers: Vec<String> = adapters.layers().map(str::to_owned).collect();
    // `adapters.3.factors.Low.down` is the first factor of layer 3.
    let name = |path: &str| {
        let segments: Vec<&str> = path.split('.').collect();
        let factor = if path.ends_with("down") { "lora_A" } else { "lora_B" };
        format!("{}.{factor}", layers[segments[1].parse::<usize>().unwrap()])
    };
    let names = params::named(&adapters).into_iter().map(|param| name(&param.name)).collect::<Vec<_>>();
    let adapters = adapters.map(&mut Named(names.into_iter()));
    let losses = |adapters: &Adapters, step: usize| {
        let changed = adapters.apply(&unet);
        let network = Preconditioned { backbone: &changed, prediction: &predict::Epsilon };
        Objective::default().losses(network, &noised(step, [2, 3, 8, 12], chain(step)), &prompts())
    };
    equals_by_name("lora", adapters, losses, name);
}

/// Fills parameters by the formula, under other names.
struct Named(std::vec::IntoIter<String>);

impl ModuleMapper for Named {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.0.next().unwrap();
        param.map(|old| {
            let (dims, count) = (old.dims(), old.dims().iter().product::<usize>());
            let values = params::formula(&name, count, count / dims[1], false);
            let value = Tensor::from_data(TensorData::new(values, dims), &old.device());
            if old.is_require_grad() { value.require_grad() } else { value }
        })
    }
}

#[test]
fn an_autoencoder_trains_as_diffusers() {
    let device = device();
    let config = AutoencoderKlConfig::new().with_channels(vec![8, 16]).with_layers(1).with_latent(3);
    let model = params::fill_by_formula(config.with_groups(4).init(&device));
    equals("autoencoder", model, |model, step| {
        let image = pattern([2, 3, 8, 8], 10.0 + step as f64, &device) * 0.8;
        let posterior = model.encode(image.clone());
        let noise = pattern(posterior.mean.dims(), 20.5 + step as f64, &device) * 1.3;
        let rebuilt = model.decode(posterior.sample(noise));
        let apart = Distance::Absolute.each(rebuilt, image).flatten::<2>(1, 3).mean_dim(1);
        apart.reshape([2]) + posterior.kl() * 1e-2
    });
}

#[test]
fn a_text_encoder_trains_as_transformers() {
    let device = device();
    let config =
        ClipTextConfig::new(32, 37, 5, 4, Activation::QuickGelu).with_vocabulary(1000).with_context(11);
    let ids = [[990, 5, 7, 120, 999, 0, 0, 0, 0], [990, 44, 999, 7, 7, 999, 3, 999, 7]];
    let tokens = Tokens { ids: ids.concat(), mask: vec![true; 18], length: 9 };
    let model = chirped(config.init(&device));
    equals("text", model, |model, step| {
        let last = model.states(&tokens).last;
        let target = pattern(last.dims(), 10.0 + step as f64, &device);
        Distance::Squared.each(last, target).flatten::<2>(1, 2).mean_dim(1).reshape([2])
    });
}

/// From three channels to seven, as diffusers' inpainting networks read them; the new ones begin at zero.
#[test]
fn an_inpainting_unet_trains_as_diffusers() {
    let device = device();
    let wide = chirped(unet_config().with_in_channels(7).init(&device));
    let model = params::widened(wide, &chirped(unet_config().init(&device))).unwrap();
    let mask = inpainting::shrunk(inpainting::binary(pattern([2, 1, 16, 24], 7.0, &device)), [8, 12]);
    let values = Tensor::cat(vec![mask, pattern([2, 3, 8, 12], 8.0, &device)], 1);
    let cond = (prompts(), Channels { values });
    equals("inpainting", model, |model, step| {
        let network = Concatenated { backbone: model };
        let network = Preconditioned { backbone: &network, prediction: &predict::Epsilon };
        Objective::default().losses(network, &noised(step, [2, 3, 8, 12], chain(step)), &cond)
    });
}

/// Zeros where a ControlNet begins with them.
#[derive(Default)]
struct ZeroEnds(Vec<String>);

impl ModuleMapper for ZeroEnds {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.0.join(".");
        if !["hint.output", "skips", "middle_out"].iter().any(|end| path.starts_with(end)) {
            return param;
        }
        param
            .map(|old| if old.is_require_grad() { old.zeros_like().require_grad() } else { old.zeros_like() })
    }
}

/// From a frozen UNet and zero convolutions, as by diffusers' `from_unet`.
#[test]
fn a_controlnet_trains_as_diffusers() {
    let device = device();
    let unet = chirped(unet_config().init(&device)).no_grad();
    let config = ControlNetConfig::new(unet_config()).with_hint_widths(vec![4, 6]);
    let control = chirped(config.init(&device)).map(&mut ZeroEnds::default()).from_unet(&unet);
    let hints = Hints(vec![Channels { values: pattern([2, 3, 16, 24], 4.0, &device) }]);
    let cond = (prompts().into(), hints);
    equals("controlnet", control, |control, step| {
        let network = Controlled { unet: &unet, controls: vec![(control, 1.0)] };
        let network = Preconditioned { backbone: &network, prediction: &predict::Epsilon };
        Objective::default().losses(network, &noised(step, [2, 3, 8, 12], chain(step)), &cond)
    });
}

/// The adapter alone learns, of strength 0.7.
#[test]
fn an_ip_adapter_trains_as_diffusers() {
    let device = device();
    let unet = chirped(unet_config().init(&device)).no_grad();
    let adapter = chirped(IpAdapterConfig::new(unet_config(), 10).init(&device));
    equals("ip_adapter", adapter, |adapter, step| {
        let network = ImagePrompted { backbone: &unet, adapters: vec![(adapter, 0.7)] };
        let network = Preconditioned { backbone: &network, prediction: &predict::Epsilon };
        let images = ImageTokens(vec![adapter.tokens(pattern([2, 1, 10], 5.0, &device))]);
        Objective::default().losses(network, &noised(step, [2, 3, 8, 12], chain(step)), &(prompts(), images))
    });
}

use crate::{bits, close, panic_text, tensor};
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use canvas_core::params;
use canvas_core::weights::{Lora, Merging, Part, Rules, WeightsError};
use canvas_train::adapters::{AdapterConfig, Adapters, Kind};
use canvas_train::{AdamW, Ema, StepOptions, TrainState};

const KINDS: [Kind; 4] = [Kind::Lora, Kind::Dora, Kind::Loha, Kind::Lokr { factor: 3 }];

/// A convolution and two linear layers.
#[derive(Module, Debug)]
struct Base {
    conv: Conv2d,
    mlp: Vec<Linear>,
}

impl Base {
    fn new(device: &Device) -> Self {
        let conv = Conv2dConfig::new([2, 6], [3, 3]).with_padding(PaddingConfig2d::Same);
        let layer = |from, to| LinearConfig::new(from, to).init(device);
        let base = Self { conv: conv.init(device), mlp: vec![layer(6, 9), layer(9, 4)] };
        params::fill_by_formula(params::realise(base)).no_grad()
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let h: Tensor<2> = self.conv.forward(x).mean_dim(3).mean_dim(2).flatten(1, 3);
        self.mlp[1].forward(self.mlp[0].forward(h).tanh())
    }
}

fn input(device: &Device) -> Tensor<4> {
    tensor(crate::wave(3 * 2 * 4 * 4, 0.4, 1.0), [3, 2, 4, 4], device)
}

fn config(kind: Kind) -> AdapterConfig {
    AdapterConfig { kind, rank: 2, alpha: 3.0 }
}

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Every number of the adapters by its place: none is 0.
struct Fill(f64);
impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1.0;
        let seed = self.0;
        param.map(|old| {
            let values = crate::wave(old.dims().iter().product(), seed, 0.7);
            let new: Tensor<D> = tensor(values, old.dims(), &old.device());
            let new = if D == 1 { new + 1.5 } else { new };
            if old.is_require_grad() { new.require_grad() } else { new }
        })
    }
}

#[test]
fn at_the_start_nothing_is_changed() {
    let device = Device::flex();
    let base = Base::new(&device);
    let expected = host(&base.forward(input(&device)));
    for kind in KINDS {
        let adapters = Adapters::new(&base, config(kind), |_| true, &device).unwrap();
        assert_eq!(adapters.layers().collect::<Vec<_>>(), ["conv", "mlp.0", "mlp.1"]);
        let found = host(&adapters.apply(&base).forward(input(&device)));
        found.iter().zip(&expected).for_each(|(&found, &expected)| close(found, expected, 1e-6));
    }
}

/// Training moves the adapters and nothing else, and lowers the loss.
#[test]
fn adapters_learn_and_the_network_stays() {
    let device = Device::flex().autodiff();
    let base = Base::new(&device);
    let before = bits(&base);
    for kind in KINDS {
        device.seed(1);
        let adapters = Adapters::new(&base, config(kind), |_| true, &device).unwrap();
        let mut state = TrainState::new(adapters, AdamW { weight_decay: 0.0, ..AdamW::default() });
        let options = StepOptions { rate: 3e-2, clip: 1.0, ema: Ema::WarmUp { limit: 0.5 } };
        let losses = |adapters: &Adapters| {
            let answer = adapters.apply(&base).forward(input(&device));
            (answer - 0.7).square().mean_dim(1).reshape([3])
        };
        let first = state.step(losses(&state.model), &options).unwrap();
        assert!(first.grad_norm > 1e-4, "{kind:?}: {first:?}");
        for _ in 0..60 {
            state.step(losses(&state.model), &options).unwrap();
        }
        let last = losses(&state.model).mean().into_scalar::<f64>();
        assert!(last < 0.3 * first.loss, "{kind:?}: {} -> {last}", first.loss);
        assert_eq!(bits(&base), before);
        // What draws is the average, on a device without gradients.
        let drawn = state.average.apply(&base.valid()).forward(input(&Device::flex()));
        assert!(host(&drawn).iter().all(|x| x.is_finite()));
    }
}

/// What is saved changes the network as the adapters do: by the reader that is tested against diffusers and peft.
#[test]
fn files_change_the_network_as_the_adapters_do() {
    let device = Device::flex();
    let base = Base::new(&device);
    let names = Rules::new().segments("first", "mlp.0").segments("convolution", "conv");
    for kind in KINDS {
        let adapters = Adapters::new(&base, config(kind), |_| true, &device).unwrap().map(&mut Fill(0.0));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapters.safetensors");
        adapters.save(&path, Part::Unet, &names).unwrap();
        let file = Lora::open(&path).unwrap();
        let mut merging = Merging::new(&[(&file, 1.0)]);
        let merged = merging.merge(base.clone(), Part::Unet, &[&names]).unwrap();
        let report = merging.finish().unwrap().remove(0);
        assert!(report.renamed.len() >= 6, "{kind:?}: {report:?}");
        let applied = adapters.apply(&base);
        let plain = host(&base.forward(input(&device)));
        let (found, expected) =
            (host(&merged.forward(input(&device))), host(&applied.forward(input(&device))));
        found.iter().zip(&expected).for_each(|(&found, &expected)| close(found, expected, 1e-5));
        let moved = expected.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(moved > 1e-2, "{kind:?}: {moved}");
    }
}

/// Each kind by its formula, in f64.
#[test]
fn changes_are_their_formulas() {
    let device = Device::flex();
    let base = Base::new(&device);
    let matrix = |model: &Base| -> Vec<f64> { host(&model.mlp[1].weight.val().swap_dims(0, 1)) }; // [4, 9]
    let w = matrix(&base);
    for kind in KINDS {
        let only = |layer: &str| layer == "mlp.1";
        let adapters = Adapters::new(&base, config(kind), only, &device).unwrap().map(&mut Fill(0.0));
        let f: Vec<Vec<f64>> =
            params::named(&adapters).iter().map(|param| param.data.iter::<f64>().collect()).collect();
        let product = |a: &[f64], b: &[f64], i: usize, j: usize, columns: usize| -> f64 {
            (0..2).map(|r| a[2 * i + r] * b[columns * r + j]).sum()
        };
        let plain = |i: usize, j: usize| 1.5 * product(&f[1], &f[0], i, j, 9);
        let found = matrix(&adapters.apply(&base));
        for (place, found) in found.into_iter().enumerate() {
            let (i, j) = (place / 9, place % 9);
            let expected = match kind {
                Kind::Lora => w[place] + plain(i, j),
                Kind::Dora => {
                    let sum = |j: usize| w[9 * i + j] + plain(i, j);
                    f[2][i] * sum(j) / (0..9).map(|j| sum(j).powi(2)).sum::<f64>().sqrt()
                }
                Kind::Loha => {
                    w[place] + 1.5 * product(&f[0], &f[1], i, j, 9) * product(&f[2], &f[3], i, j, 9)
                }
                // 4 and 9 have the divisors 2 and 3 up to 3: [2, 3] kron [2, 3].
                Kind::Lokr { .. } => {
                    w[place] + 1.5 * f[0][3 * (i / 2) + j / 3] * product(&f[1], &f[2], i % 2, j % 3, 3)
                }
            };
            close(found, expected, 1e-5);
        }
    }
}

#[test]
fn what_cannot_be_is_said() {
    let device = Device::flex();
    let base = Base::new(&device);
    let message = Adapters::new(&base, config(Kind::Lora), |_| false, &device).unwrap_err().to_string();
    assert_eq!(message, "no layer was selected; there are conv, mlp.0, mlp.1, ...");
    let none = AdapterConfig { rank: 0, ..config(Kind::Lora) };
    let message = Adapters::new(&base, none, |_| true, &device).unwrap_err().to_string();
    assert_eq!(message, "rank must be at least 1, found 0");

    let adapters = Adapters::new(&base, config(Kind::Lora), |_| true, &device).unwrap();
    let other = crate::Net::new(4, &device);
    assert!(panic_text(|| adapters.apply(&other)).contains("these are adapters of another"));
    // A published tensor that holds two layers has no LoRA for one of them.
    let fused = Rules::new().split("both", &["mlp.0", "mlp.1"]);
    let folder = tempfile::tempdir().unwrap();
    let error = adapters.save(&folder.path().join("x.safetensors"), Part::Unet, &fused).unwrap_err();
    assert!(matches!(&error, WeightsError::Rules { name, .. } if name == "mlp.0.weight"), "{error}");
}

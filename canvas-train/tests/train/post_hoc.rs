use crate::{Net, close};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use canvas_core::{params, weights};
use canvas_train::post_hoc::{Profile, coefficients, reconstruct, save, saved};
use canvas_train::{AdamW, Ema, Moment, StepOptions, TrainState};
use std::collections::BTreeMap;
use std::fs;

const BATCH: u64 = 4;
const WIDTHS: [f64; 2] = [0.05, 0.10];

/// What each step counts in a power-function average after so many, in f64.
fn profile(width: f64, steps: u64) -> Vec<f64> {
    let mut parts: Vec<f64> = Vec::new();
    for step in 0..steps {
        let moment = Moment { step, images: BATCH * (step + 1), batch: BATCH };
        let decay = Ema::Power { width }.decay(moment);
        parts.iter_mut().for_each(|part| *part *= decay);
        parts.push(1.0 - decay);
    }
    parts
}

/// Averages of two widths, saved eight times in a run, make others: each step counts almost as it would have.
#[test]
fn other_widths_are_found_afterwards() {
    const STEPS: u64 = 8192;
    let had: Vec<(u64, f64)> = (1..=8).flat_map(|i| WIDTHS.map(|width| (STEPS / 8 * i, width))).collect();
    let profiles: Vec<Profile> =
        had.iter().map(|&(steps, width)| Profile { images: steps * BATCH, width }).collect();
    for (steps, width) in [(STEPS, 0.07), (STEPS, 0.12), (STEPS, 0.15), (6144, 0.08)] {
        let parts = coefficients(&profiles, Profile { images: steps * BATCH, width });
        close(parts.iter().sum(), 1.0, 1e-12);
        let mut found = vec![0.0; STEPS as usize];
        for (&(steps, width), part) in had.iter().zip(parts) {
            found.iter_mut().zip(profile(width, steps)).for_each(|(sum, x)| *sum += part * x);
        }
        let mut expected = profile(width, steps);
        expected.resize(STEPS as usize, 0.0);
        let off: f64 = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum();
        assert!(off < 0.06, "{width} after {steps} steps: {off} of the weight lies elsewhere");
    }
}

/// What was saved is found again to the last digits of f64, alone and among many.
#[test]
fn what_was_saved_is_found_exactly() {
    let had: Vec<Profile> =
        (1..=6).flat_map(|i| WIDTHS.map(|width| Profile { images: 1000 * i, width })).collect();
    for (number, wanted) in had.iter().enumerate() {
        for (other, part) in coefficients(&had, *wanted).into_iter().enumerate() {
            close(part, if other == number { 1.0 } else { 0.0 }, 1e-9);
        }
    }
    assert_eq!(coefficients(&had[..1], Profile { images: 7, width: 0.2 }), [1.0]);
}

/// Sets every parameter to a function of its step.
struct Walk(f64);
impl ModuleMapper for Walk {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value.full_like((0.1 * self.0).sin()).require_grad())
    }
}

/// A run whose parameters are known: what is reconstructed from files is the sum of what the files hold, in f64.
#[test]
fn files_of_a_run_make_the_model() {
    let device = Device::flex().autodiff();
    let folder = tempfile::tempdir().unwrap();
    let mut state = TrainState::new(Net::new(4, &device), AdamW::default());
    WIDTHS.iter().for_each(|&width| state.also_average(Ema::Power { width }));
    let options = StepOptions { rate: 0.0, clip: 1.0, ema: Ema::Constant { decay: 0.0 } };
    for step in 0..64u32 {
        state.model = state.model.map(&mut Walk(f64::from(step)));
        let losses = state.model.up.weight.val().sum().reshape([1]).repeat_dim(0, BATCH as usize);
        state.step(losses, &options).unwrap();
        if step % 8 == 7 {
            save(&state, folder.path()).unwrap();
        }
    }
    let files = saved(folder.path()).unwrap();
    assert_eq!(files.len(), 16);
    assert_eq!(files[0].0, Profile { images: 32, width: 0.05 });
    assert_eq!(files[15].0, Profile { images: 256, width: 0.1 });

    let model = state.model.valid();
    let first = |model: &Net| params::named(model)[0].data.iter::<f64>().next().unwrap();
    // What there is, exactly.
    let same = reconstruct(model.clone(), folder.path(), files[5].0).unwrap();
    let kept = weights::load(model.clone(), &files[5].1, &[]).unwrap();
    close(first(&same), first(&kept), 1e-7);
    // What there is not, nearly: the average by hand.
    let wanted = Profile { images: 256, width: 0.08 };
    let found = first(&reconstruct(model.clone(), folder.path(), wanted).unwrap());
    let by_hand: f64 =
        profile(0.08, 64).iter().enumerate().map(|(i, part)| part * (0.1 * i as f64).sin()).sum();
    close(found, by_hand, 5e-3);

    // Files that are none of these, and an unfinished one.
    fs::write(folder.path().join("000000000256-0.05.safetensors.tmp"), "half").unwrap();
    assert_eq!(saved(folder.path()).unwrap().len(), 16);
    let stranger = folder.path().join("model.safetensors");
    weights::save(&model, &stranger, &BTreeMap::new()).unwrap();
    let message = reconstruct(model.clone(), folder.path(), wanted).unwrap_err().to_string();
    assert!(message.contains("model.safetensors: expected a name of images and width"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    let message = reconstruct(model, empty.path(), wanted).unwrap_err().to_string();
    assert!(message.contains("no averages were saved here"), "{message}");
}

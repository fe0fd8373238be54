use crate::{Net, Ranks, bits, close, tensor};
use burn::prelude::*;
use canvas_core::{Noise, Process, Seeded, Unconditional, generator, params, trace, weights};
use canvas_sched::{predict, schedule};
use canvas_train::{
    AdamW, CheckpointError, Ema, LevelDistribution, Objective, StepOptions, StepReport, TrainState, Weighting,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const BATCH: u64 = 4;
const OPTIONS: StepOptions = StepOptions { rate: 3e-2, clip: 1.0, ema: Ema { limit: 0.8 } };

fn device() -> Device {
    Device::flex().autodiff()
}

fn state(hidden: usize) -> TrainState<Net, AdamW> {
    TrainState::new(Net::new(hidden, &device()), AdamW::default())
}

/// Per-sample losses of flow matching towards a ring: functions of the number of the images only.
fn losses(model: &Net, first: u64) -> Tensor<1> {
    let process =
        Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
    let objective = Objective { levels: LevelDistribution::Uniform, weighting: Weighting::Uniform };
    let images: Vec<u64> = (first..first + BATCH).collect();
    let points = images.iter().flat_map(|&i| [(i as f32).cos(), (i as f32).sin()]).collect();
    let x0 = tensor(points, [BATCH as usize, 2], &device());
    let levels = images.iter().map(|&i| objective.levels.draw(&*process.schedule, &mut generator(3, i, 0)));
    let at: Vec<_> = levels.collect();
    let eps = Seeded::new(5, images).normal_like(&x0);
    objective.losses(process.denoiser(model), x0, eps, &at, &Unconditional(BATCH as usize))
}

fn step(state: &mut TrainState<Net, AdamW>) -> StepReport {
    let losses = losses(&state.model, state.images);
    state.step(losses, &OPTIONS).unwrap()
}

/// The network is one block, and run again.
#[test]
fn a_step_with_blocks_run_again_is_the_same_step() {
    let (mut whole, mut recomputed) = (state(16), state(16));
    recomputed.model = whole.model.clone();
    recomputed.average = whole.average.clone();
    for _ in 0..3 {
        let report = step(&mut whole);
        let first = recomputed.images;
        let losses = |model: &Net| trace::unit(|| "net".into(), || losses(model, first));
        assert_eq!(recomputed.step_recomputed(losses, 1, &OPTIONS).unwrap(), report);
    }
    assert_eq!(saved(&recomputed), saved(&whole));
    // A broken loss changes nothing, and no gradient is computed.
    let error = recomputed.step_recomputed(|model| losses(model, 0) / 0.0, 1, &OPTIONS).unwrap_err();
    assert_eq!((error.what, error.images, error.rows.len()), ("loss", 3 * BATCH, BATCH as usize));
    assert_eq!(saved(&recomputed), saved(&whole));
}

fn steps(state: &mut TrainState<Net, AdamW>, count: usize) {
    for _ in 0..count {
        step(state);
    }
}

/// Everything a state saves, to the bit.
fn saved<O: burn::optim::Optimizer>(state: &TrainState<Net, O>) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    state.save(folder.path()).unwrap();
    let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn training_lowers_the_loss_and_counts() {
    let mut state = state(16);
    // At fixed images, levels and noise.
    let held_out = |model: &Net| -> f64 {
        let batches = (0..50).map(|batch| losses(model, 10_000 + BATCH * batch).mean());
        batches.map(|mean| f64::from(mean.into_scalar::<f32>())).sum::<f64>() / 50.0
    };
    let before = held_out(&state.model);
    for _ in 0..200 {
        let report = step(&mut state);
        assert!(report.grad_norm > 0.0 && report.grad_norm.is_finite(), "{report:?}");
    }
    let (model, average) = (held_out(&state.model), held_out(&state.average));
    assert!(model < 0.9 * before && average < 0.9 * before, "{before} -> {model}, average {average}");
    assert_eq!((state.images, state.steps), (800, 200));
}

#[test]
fn a_report_is_of_the_model_before_the_step() {
    let mut state = state(8);
    let values: Vec<f64> = losses(&state.model, 0).into_data().iter::<f64>().collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    close(step(&mut state).loss, mean, 1e-12);
}

/// Parameters are drawn on first use. Burn 0.22.1 shares that draw among clones; were the average ever made in
/// another way (from a second `init`, or on another device before the first use), it would be another model.
#[test]
fn the_average_starts_as_the_model_to_the_bit() {
    let state = state(8);
    assert_eq!(bits(&state.average), bits(&state.model));
    assert!(bits(&state.model).iter().any(|(_, values)| values.iter().any(|&value| value != 0)));
}

/// Averages and optimizer states are found by identity: the next process must give the same ones.
#[test]
fn identities_are_functions_of_the_names() {
    let ids = |model: &Net| -> Vec<_> { params::named(model).iter().map(|param| param.id).collect() };
    let state = state(8);
    assert_eq!(ids(&state.average), ids(&state.model));
    assert_eq!(ids(&self::state(6).model), ids(&state.model));
}

#[test]
fn the_average_follows_the_model() {
    let mut state = state(8);
    let before = params::named(&state.average);
    step(&mut state);
    // Decay 1/10 at the first step.
    let (model, average) = (params::named(&state.model), params::named(&state.average));
    for ((old, new), found) in before.iter().zip(&model).zip(&average) {
        let pairs = old.data.iter::<f64>().zip(new.data.iter::<f64>());
        let expected = pairs.map(|(old, new)| 0.1 * old + 0.9 * new);
        found.data.iter::<f64>().zip(expected).for_each(|(found, expected)| close(found, expected, 1e-6));
    }
    assert_ne!(bits(&state.average), bits(&state.model));
}

#[test]
fn a_restored_run_is_the_uninterrupted_one_to_the_bit() {
    let mut whole = state(8);
    steps(&mut whole, 7);
    let folder = tempfile::tempdir().unwrap();
    whole.save(folder.path()).unwrap();
    let middle = saved(&whole);

    let mut resumed = state(8); // drawn afresh
    assert_ne!(bits(&resumed.model), bits(&whole.model));
    resumed.restore(folder.path()).unwrap();
    assert_eq!(saved(&resumed), middle);
    for _ in 0..9 {
        let (a, b) = (step(&mut whole), step(&mut resumed));
        assert_eq!((a.loss.to_bits(), a.grad_norm.to_bits()), (b.loss.to_bits(), b.grad_norm.to_bits()));
    }
    assert_eq!(saved(&resumed), saved(&whole));
    assert_ne!(saved(&whole), middle);
}

/// Also at the very start, before there is any optimizer state.
#[test]
fn a_state_without_steps_is_restored() {
    let (whole, mut resumed) = (state(8), state(8));
    let folder = tempfile::tempdir().unwrap();
    whole.save(folder.path()).unwrap();
    resumed.restore(folder.path()).unwrap();
    assert_eq!(saved(&resumed), saved(&whole));
}

#[test]
fn a_checkpoint_of_another_architecture_names_what_differs_and_changes_nothing() {
    let mut other = state(6);
    step(&mut other);
    let folder = tempfile::tempdir().unwrap();
    other.save(folder.path()).unwrap();
    let mut state = state(8);
    step(&mut state);
    let before = saved(&state);
    let message = state.restore(folder.path()).unwrap_err().to_string();
    for expected in
        ["model.safetensors", "up.weight: expected shape [2, 8], found [2, 6]", "down.weight: expected shape"]
    {
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(saved(&state), before);

    // Another module altogether.
    let ranks = TrainState::new(Ranks::new(&device()), AdamW::default());
    ranks.save(folder.path()).unwrap();
    let message = state.restore(folder.path()).unwrap_err().to_string();
    assert!(message.contains("missing up.weight [2, 8]"), "{message}");
    assert!(message.contains("unexpected three [2, 1, 3]"), "{message}");
    assert_eq!(saved(&state), before);
}

/// Each file of a checkpoint that is not of this state, one at a time.
#[test]
fn a_checkpoint_that_lacks_a_part_changes_nothing() {
    let (mut state, mut newer) = (state(8), state(8));
    step(&mut state);
    steps(&mut newer, 3);
    let before = saved(&state);
    type Break = fn(&Path);
    let cases: [(Break, &str); 6] = [
        (|folder| fs::remove_file(folder.join("counters.json")).unwrap(), "counters.json: "),
        (|folder| fs::write(folder.join("counters.json"), "{}").unwrap(), "counters.json: missing field"),
        (|folder| fs::remove_file(folder.join("average.safetensors")).unwrap(), "average.safetensors: "),
        (|folder| fs::remove_file(folder.join("optimizer.safetensors")).unwrap(), "optimizer.safetensors: "),
        (|folder| truncate(&folder.join("optimizer.safetensors")), "it may be truncated"),
        (
            |folder| forget(&folder.join("optimizer.safetensors")),
            "that of up.weight is missing or incomplete",
        ),
    ];
    for (damage, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        newer.save(folder.path()).unwrap();
        damage(folder.path());
        let message = state.restore(folder.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(saved(&state), before, "{expected}");
    }
}

fn truncate(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
}

/// Takes one parameter's state out of an optimizer's file.
fn forget(file: &Path) {
    let mut tensors = weights::read_tensors(file).unwrap();
    tensors.retain(|name, _| !name.starts_with("up.weight."));
    let tensors: Vec<_> = tensors.into_iter().collect();
    weights::write_tensors(file, &tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn a_loss_that_is_not_finite_changes_nothing_and_names_the_rows() {
    let mut state = state(8);
    step(&mut state);
    let before = saved(&state);
    let broken = tensor(vec![0.0, f32::NAN, 0.0, f32::INFINITY], [4], &device());
    let error = state.step(losses(&state.model, 4) + broken, &OPTIONS).unwrap_err();
    assert_eq!((error.images, &error.rows[..], error.what), (4, &[1, 3][..], "loss"));
    assert_eq!(error.to_string(), "loss is not finite after 4 images");
    assert_eq!(saved(&state), before);
    step(&mut state);
    assert_eq!((state.images, state.steps), (8, 2));
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut state = state(8);
    step(&mut state);
    let before = saved(&state);
    // The root of 0 is 0, and its slope is not finite.
    let root = (state.model.down.weight.val() * 0.0).sum().sqrt();
    let error = state.step(losses(&state.model, 4) + root, &OPTIONS).unwrap_err();
    assert_eq!((error.images, error.rows.len(), error.what), (4, 0, "gradient norm"));
    assert_eq!(saved(&state), before);
}

#[test]
fn a_device_without_gradients_is_refused() {
    let make = || TrainState::new(Net::new(8, &Device::flex()), AdamW::default());
    let payload = std::panic::catch_unwind(|| drop(make())).unwrap_err();
    let message = payload.downcast::<&str>().unwrap();
    assert!(message.contains("device.autodiff()"), "{message}");
}

/// A checkpoint folder that is not there.
#[test]
fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("gone");
    let mut state = state(8);
    let error = state.restore(&place).unwrap_err();
    assert!(matches!(&error, CheckpointError::Io { path, .. } if path.starts_with(&place)), "{error}");
    assert!(state.save(&place).unwrap_err().to_string().contains("model.safetensors"));
}

use crate::{Net, Ranks, bits, close, tensor};
use burn::prelude::*;
use canvas_core::{Noise, Process, Seeded, Unconditional, params, trace, weights};
use canvas_sched::{predict, schedule};
use canvas_train::{
    AdamW, CheckpointError, Draws, Ema, ModuleOptimizer, Noised, Objective, StepOptions, StepReport,
    TrainState,
};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

const BATCH: u64 = 4;
const OPTIONS: StepOptions = StepOptions { rate: 3e-2, clip: 1.0, ema: Ema::WarmUp { limit: 0.8 } };

fn device() -> Device {
    Device::flex().autodiff()
}

fn state(hidden: usize) -> TrainState<Net, AdamW> {
    TrainState::new(Net::new(hidden, &device()), AdamW::default())
}

/// Per-sample losses of flow matching towards a ring: functions of the number of the images only.
fn losses(model: &Net, first: u64) -> Tensor<1> {
    losses_of(model, first..first + BATCH)
}

fn losses_of(model: &Net, images: Range<u64>) -> Tensor<1> {
    let process =
        Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
    let objective = Objective::default();
    let images: Vec<u64> = images.collect();
    let (points, count) = (images.iter().flat_map(|&i| [(i as f32).cos(), (i as f32).sin()]), images.len());
    let x0 = tensor(points.collect(), [count, 2], &device());
    let level = |&image: &u64| objective.level(&*process.schedule, Draws::Independent.at(3, image));
    let at = images.iter().map(level).collect();
    let eps = Seeded::new(5, images).normal_like(&x0);
    objective.losses(process.denoiser(model), &Noised::new(x0, eps, at), &Unconditional(count))
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

/// A batch in parts is one batch but for rounding, whatever the parts are.
#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    const MANY: u64 = 12;
    let mut whole = state(16);
    let start = whole.model.clone();
    let losses_now = losses_of(&whole.model, 0..MANY);
    let expected = whole.step(losses_now, &OPTIONS).unwrap();
    for at_once in [1, 3, 5, 12, 100] {
        let mut parts = state(16);
        (parts.model, parts.average) = (start.clone(), start.valid());
        let of = |model: &Net, part: Range<usize>| losses_of(model, part.start as u64..part.end as u64);
        let found = parts.step_accumulated(of, MANY as usize, at_once, &OPTIONS).unwrap();
        close(found.loss, expected.loss, 1e-6);
        close(found.grad_norm, expected.grad_norm, 1e-6);
        assert_eq!((parts.images, parts.steps), (MANY, 1));
        for (found, expected) in params::named(&parts.model).iter().zip(params::named(&whole.model)) {
            for (a, b) in found.data.iter::<f64>().zip(expected.data.iter::<f64>()) {
                // Adam's first step is the rate, whatever the gradient: one of nearly nothing may differ.
                close(a, b, 1e-5);
            }
        }
    }
}

/// The row of the batch, not of its part.
#[test]
fn a_broken_image_of_a_part_is_named() {
    let mut state = state(8);
    let before = saved(&state);
    let of = |model: &Net, part: Range<usize>| {
        let losses = losses_of(model, part.start as u64..part.end as u64);
        if part.contains(&5) { losses / 0.0 } else { losses }
    };
    let error = state.step_accumulated(of, 8, 2, &OPTIONS).unwrap_err();
    assert_eq!((error.what, error.rows), ("loss", vec![4, 5]));
    assert_eq!(saved(&state), before);
}

/// Regression: a loss of another length would be weighted wrongly and never noticed.
#[test]
fn parts_with_other_losses_than_images_are_refused() {
    let mut state = state(8);
    let message = crate::panic_text(|| {
        state.step_accumulated(|model, _| losses_of(model, 0..3), 8, 2, &OPTIONS).unwrap();
    });
    assert!(message.contains("losses of images 0..2"), "{message}");
}

/// Two more averages are kept, saved and restored, and each is the one by hand.
#[test]
fn several_averages_are_kept() {
    let kinds = [Ema::Constant { decay: 0.5 }, Ema::Power { width: 0.2 }];
    let make = || {
        let mut state = state(8);
        kinds.iter().for_each(|&ema| state.also_average(ema));
        state
    };
    let mut whole = make();
    let start = params::named(&whole.model);
    let mut constant: Vec<Vec<f64>> = start.iter().map(|param| param.data.iter::<f64>().collect()).collect();
    for _ in 0..6 {
        step(&mut whole);
        for (old, new) in constant.iter_mut().zip(params::named(&whole.model)) {
            old.iter_mut().zip(new.data.iter::<f64>()).for_each(|(old, new)| *old = 0.5 * *old + 0.5 * new);
        }
    }
    let averages: Vec<_> = whole.others().map(|(ema, model)| (ema, params::named(model))).collect();
    assert_eq!(averages.iter().map(|(ema, _)| *ema).collect::<Vec<_>>(), kinds);
    for (found, expected) in averages[0].1.iter().zip(&constant) {
        found.data.iter::<f64>().zip(expected).for_each(|(found, &expected)| close(found, expected, 1e-6));
    }
    assert_ne!(averages[1].1[0].data, averages[0].1[0].data);

    let folder = tempfile::tempdir().unwrap();
    whole.save(folder.path()).unwrap();
    let mut resumed = make();
    resumed.restore(folder.path()).unwrap();
    step(&mut whole);
    step(&mut resumed);
    assert_eq!(saved(&resumed), saved(&whole));

    // One average fewer, or more, is another recipe.
    let message = state(8).restore(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("average-2.safetensors: it has more averages than the 1 kept here"),
        "{message}"
    );
    let mut more = make();
    more.also_average(Ema::Constant { decay: 0.9 });
    let message = more.restore(folder.path()).unwrap_err().to_string();
    assert!(message.contains("average-4.safetensors"), "{message}");
}

/// A group with a rate of 0 stands still, one with a tenth moves a tenth in Adam's first step, whose length is the rate.
#[test]
fn groups_have_their_own_rates() {
    let adamw = AdamW { weight_decay: 0.0, ..AdamW::default() };
    let optimizer = ModuleOptimizer::new(adamw)
        .with_group(|name| name == "up.weight", adamw, 0.0)
        .with_group(|name| name.starts_with("up."), adamw, 0.1);
    let mut state = TrainState::with_groups(Net::new(8, &device()), optimizer);
    let before = params::named(&state.model);
    step(&mut state);
    for (before, after) in before.iter().zip(params::named(&state.model)) {
        let moved = before.data.iter::<f64>().zip(after.data.iter::<f64>()).map(|(a, b)| (a - b).abs());
        let expected = match &*before.name {
            "up.weight" => 0.0,
            "up.bias" => 0.1 * OPTIONS.rate,
            _ => OPTIONS.rate,
        };
        close(moved.fold(0.0, f64::max), expected, 1e-4 * OPTIONS.rate);
    }
}

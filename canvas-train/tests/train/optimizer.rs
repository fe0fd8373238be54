use crate::{Ranks, bits, close};
use burn::optim::{AdamWConfig, SgdConfig};
use burn::prelude::*;
use canvas_core::params;
use canvas_train::{AdamW, ModuleOptimizer};
use std::collections::BTreeMap;

const RATE: f64 = 1e-2;

fn config() -> AdamWConfig {
    AdamWConfig::new().with_weight_decay(0.1).with_epsilon(1e-8)
}

fn adamw() -> ModuleOptimizer<AdamW> {
    ModuleOptimizer::new(AdamW { weight_decay: 0.1, ..AdamW::default() })
}

fn device() -> Device {
    Device::flex().autodiff()
}

/// Steps `from..to` of a fixed sequence of gradients.
fn train(optimizer: &mut ModuleOptimizer<AdamW>, mut model: Ranks, from: usize, to: usize) -> Ranks {
    for step in from..to {
        let grads = model.grads(step, 1.0);
        model = optimizer.step(RATE, model, grads);
    }
    model
}

#[test]
fn steps_are_burns_own_to_the_bit() {
    let start = Ranks::new(&device());
    let ours = train(&mut adamw(), start.clone(), 0, 20);
    let (mut burns, mut model) = (config().init(), start);
    for step in 0..20 {
        let grads = model.grads(step, 1.0);
        model = burns.step(RATE, model, grads);
    }
    assert_eq!(bits(&ours), bits(&model));
}

/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, algorithm 2, in f64.
#[test]
fn steps_are_adamw_by_hand() {
    let start = Ranks::new(&device());
    let (beta1, beta2, decay, epsilon) = (f64::from(0.9f32), f64::from(0.999f32), 0.1, 1e-8);
    let trained = train(&mut adamw(), start.clone(), 0, 20);
    for (rank, (before, after)) in params::named(&start).iter().zip(params::named(&trained)).enumerate() {
        let mut values: Vec<f64> = before.data.iter::<f64>().collect();
        let (mut mean, mut square) = (vec![0.0; values.len()], vec![0.0; values.len()]);
        for step in 0..20 {
            let grads = crate::wave(values.len(), 0.3 * step as f64 + rank as f64, 1.0);
            for (i, grad) in grads.into_iter().map(f64::from).enumerate() {
                mean[i] = beta1 * mean[i] + (1.0 - beta1) * grad;
                square[i] = beta2 * square[i] + (1.0 - beta2) * grad * grad;
                let count = step + 1;
                let m = mean[i] / (1.0 - beta1.powi(count));
                let v = square[i] / (1.0 - beta2.powi(count));
                values[i] -= RATE * (m / (v.sqrt() + epsilon) + decay * values[i]);
            }
        }
        assert_ne!(before.data, after.data);
        // 1 - 0.999f32 has a relative error of 1e-5 in f32, which the correction by powers mostly takes back.
        after.data.iter::<f64>().zip(values).for_each(|(found, expected)| close(found, expected, 2e-6));
    }
}

fn exported(optimizer: &ModuleOptimizer<AdamW>, model: &Ranks) -> BTreeMap<String, TensorData> {
    optimizer.export(model).into_iter().collect()
}

#[test]
fn a_restored_state_goes_on_to_the_bit() {
    let mut whole = adamw();
    let middle = train(&mut whole, Ranks::new(&device()), 0, 5);
    let saved = exported(&whole, &middle);
    assert_eq!(saved.len(), 4 * 3, "two moments and a counter a parameter: {:?}", saved.keys());
    let counts: Vec<f32> =
        saved.iter().filter(|(name, _)| name.ends_with("#count")).flat_map(values).collect();
    assert_eq!(counts, [5.0; 4]);

    let mut resumed = adamw();
    resumed.import(&middle, saved.clone(), &Device::flex()).unwrap();
    assert_eq!(exported(&resumed, &middle), saved);
    let (expected, found) =
        (train(&mut whole, middle.clone(), 5, 12), train(&mut resumed, middle.clone(), 5, 12));
    assert_eq!(bits(&found), bits(&expected));
    assert_eq!(exported(&resumed, &found), exported(&whole, &expected));

    // Were only a counter lost, the next steps would show it.
    let mut wrong = saved;
    wrong.insert("two.momentum.time#count".into(), TensorData::new(vec![4f32], [1]));
    resumed.import(&middle, wrong, &Device::flex()).unwrap();
    assert_ne!(bits(&train(&mut resumed, middle, 5, 12)), bits(&expected));
}

fn values((_, data): (&String, &TensorData)) -> Vec<f32> {
    data.iter::<f32>().collect()
}

#[test]
fn a_parameter_without_gradient_stays_and_has_no_state() {
    let (mut optimizer, model) = (adamw(), Ranks::new(&device()));
    let mut grads = model.grads(0, 1.0);
    grads.remove::<3>(model.three.id).unwrap();
    let stepped = optimizer.step(RATE, model.clone(), grads);
    let changed: Vec<bool> = bits(&stepped).into_iter().zip(bits(&model)).map(|(a, b)| a != b).collect();
    assert_eq!(changed, [true, true, false, true]);

    let saved = exported(&optimizer, &stepped);
    assert!(saved.contains_key("three#none"), "{:?}", saved.keys());
    let mut resumed = adamw();
    resumed.import(&stepped, saved.clone(), &Device::flex()).unwrap();
    assert_eq!(exported(&resumed, &stepped), saved);
    // So is an optimizer that has not yet stepped.
    resumed.import(&stepped, exported(&adamw(), &stepped), &Device::flex()).unwrap();
    assert_eq!(exported(&resumed, &stepped), exported(&adamw(), &stepped));
}

#[test]
fn a_state_that_does_not_fit_names_what_does_not() {
    let mut optimizer = adamw();
    let model = train(&mut optimizer, Ranks::new(&device()), 0, 2);
    let saved = exported(&optimizer, &model);
    type Change = fn(&mut BTreeMap<String, TensorData>);
    let cases: [(Change, &str); 10] = [
        (|s| drop(s.remove("two.momentum.moment_2")), "that of two is missing or incomplete"),
        (|s| drop(s.remove("two.momentum.time#count")), "that of two is missing or incomplete"),
        (|s| s.retain(|name, _| !name.starts_with("four.")), "that of four is missing or incomplete"),
        (|s| s.clear(), "that of one is missing or incomplete"),
        (|s| extra(s, "five.momentum.moment_1"), "five.momentum.moment_1 belongs to no parameter"),
        (|s| extra(s, "five.momentum.time#count"), "five.momentum.time#count belongs to no parameter"),
        (|s| extra(s, "three.momentum.moment_3"), "three.momentum.moment_3 has shape"),
        (
            |s| drop(s.insert("two.momentum.moment_1".into(), TensorData::new(vec![0f32; 8], [4, 2]))),
            "two.momentum.moment_1 has shape [4, 2], its parameter [3, 2]",
        ),
        (
            |s| drop(s.insert("one.momentum.time#count".into(), TensorData::new(vec![1.5f32], [1]))),
            "one.momentum.time#count is no counter: [1.5]",
        ),
        (
            |s| drop(s.insert("one.momentum.time#count".into(), TensorData::new(vec![f32::NAN], [1]))),
            "one.momentum.time#count is no counter",
        ),
    ];
    for (change, expected) in cases {
        let mut changed = saved.clone();
        change(&mut changed);
        let message = optimizer.import(&model, changed, &Device::flex()).unwrap_err().to_string();
        assert!(message.starts_with(&format!("optimizer state: {expected}")), "{message}");
        assert_eq!(exported(&optimizer, &model), saved, "{expected}: the old state must stay");
    }
    // Of the right shape, but nothing that this optimizer knows.
    let mut changed = saved;
    changed.insert("three.momentum.moment_3".into(), TensorData::new(vec![0f32; 6], crate::THREE));
    let message = optimizer.import(&model, changed, &Device::flex()).unwrap_err().to_string();
    assert!(message.contains("three.momentum.moment_3 belongs to no parameter"), "{message}");
}

fn extra(saved: &mut BTreeMap<String, TensorData>, name: &str) {
    saved.insert(name.into(), TensorData::new(vec![1f32], [1]));
}

/// The state of another optimizer.
#[test]
fn a_state_of_another_optimizer_is_an_error() {
    let model = Ranks::new(&device());
    let momentum = burn::optim::momentum::MomentumConfig::new();
    let mut sgd = ModuleOptimizer::new(SgdConfig::new().with_momentum(Some(momentum)).build());
    let model = sgd.step(RATE, model.clone(), model.grads(0, 1.0));
    let saved: BTreeMap<_, _> = sgd.export(&model).into_iter().collect();
    let message = adamw().import(&model, saved.clone(), &Device::flex()).unwrap_err().to_string();
    assert_eq!(message, "optimizer state: that of one is missing or incomplete");
    sgd.import(&model, saved, &Device::flex()).unwrap();
}

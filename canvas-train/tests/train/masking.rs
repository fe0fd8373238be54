use crate::{bits, close, panic_text, tensor};
use burn::optim::GradientsParams;
use burn::prelude::*;
use canvas_core::trace::{self, Kept, Route};
use canvas_core::{Backbone, Class, NoiseSchedule, Process, params, recompute};
use canvas_dit::{Dit, DitConfig};
use canvas_sched::{predict, schedule};
use canvas_testkit::{chirped, pattern};
use canvas_train::masking::{MaskTokens, reconstruction};
use canvas_train::representation::watch;
use canvas_train::{AdamW, Ema, Noised, Objective, StepOptions, TrainState};
use std::cell::RefCell;
use std::rc::Rc;

fn device() -> Device {
    Device::flex().autodiff()
}

fn process() -> Process {
    Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) }
}

/// Six patches, four blocks.
fn dit() -> Dit {
    chirped(DitConfig::new([4, 6], 16, 4, 2).with_classes(5).with_learn_variance(false).init(&device()))
}

fn class() -> Class {
    Class::new(&[3, 5], &device())
}

fn noised() -> Noised<4> {
    let at = [0.3, 0.8].map(|t| schedule::Flow::default().level(t)).to_vec();
    Noised::new(pattern([2, 4, 4, 6], 1.0, &device()), pattern([2, 4, 4, 6], 2.0, &device()), at)
}

fn losses(dit: &Dit, noised: &Noised<4>) -> Tensor<1> {
    Objective::default().losses(process().denoiser(dit), noised, &class())
}

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

#[test]
fn kept_tokens_are_drawn_for_each_image() {
    let images: Vec<u64> = (0..3000).collect();
    let kept = Kept::draw(0.25, 10, 4, &images);
    let mut often = [0.0; 10];
    for (image, row) in kept.rows().iter().enumerate() {
        assert_eq!(row.len(), 3, "0.25 of 10, rounded");
        assert!(row.windows(2).all(|pair| pair[0] < pair[1]));
        row.iter().for_each(|&token| often[token] += 1.0);
        assert_eq!(Kept::draw(0.25, 10, 4, &[image as u64]).rows(), std::slice::from_ref(row));
    }
    let deviation = (0.3f64 * 0.7 * 3000.0).sqrt();
    often.iter().for_each(|&often| close(often, 900.0, 4.0 * deviation));
    assert_ne!(Kept::draw(0.25, 10, 5, &images), kept);
    assert_eq!(Kept::draw(1e-9, 10, 0, &[1]).rows()[0].len(), 1);
    assert!(Kept::draw(1.0, 10, 0, &[1, 2]).is_all());
    for keep in [0.0, 1.5, f64::NAN] {
        assert!(panic_text(|| Kept::draw(keep, 10, 0, &[1])).contains("above 0 and at most 1"));
    }
    for rows in [vec![], vec![vec![]], vec![vec![1, 1]], vec![vec![3]], vec![vec![0], vec![1, 2]]] {
        assert!(panic_text(|| Kept::new(3, rows.clone())).contains("kept tokens"), "{rows:?}");
    }
}

#[test]
fn pixels_and_features_follow_the_tokens() {
    let kept = Kept::new(6, vec![vec![0, 5], vec![1, 2]]);
    let mask = host(&kept.mask([2, 3], 2, &Device::flex()));
    let row = |cells: [f64; 3]| cells.iter().flat_map(|&x| [x, x]).collect::<Vec<_>>();
    let picture = |up: [f64; 3], down: [f64; 3]| [row(up), row(up), row(down), row(down)].concat();
    assert_eq!(mask[..24], picture([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]));
    assert_eq!(mask[24..], picture([0.0, 1.0, 1.0], [0.0, 0.0, 0.0]));
    let features = tensor((0..24).map(|i| i as f32).collect(), [2, 6, 2], &Device::flex());
    assert_eq!(host(&kept.pick(features)), [0.0, 1.0, 10.0, 11.0, 14.0, 15.0, 16.0, 17.0]);
    assert!(panic_text(|| kept.mask([2, 2], 2, &Device::flex())).contains("patches"));
}

/// With everything kept no bit changes, of losses or gradients.
#[test]
fn all_kept_is_the_network_itself() {
    let (dit, noised) = (dit(), noised());
    let gradients = |losses: Tensor<1>| GradientsParams::from_grads(losses.mean().backward(), &dit);
    let all = |losses: Tensor<1>| {
        let named = params::named_gradients(&dit, &gradients(losses.clone()));
        (losses.into_data(), named.into_iter().map(|param| param.data).collect::<Vec<_>>())
    };
    let kept = Kept::draw(1.0, 6, 0, &[17, 18]);
    let routed = Route::new("blocks.1", "blocks.2").through(&kept, || losses(&dit, &noised));
    assert_eq!(all(routed), all(losses(&dit, &noised)));
}

/// Inside there are the kept tokens, outside all of them; those that went around are what they were.
#[test]
fn tokens_go_around_and_come_back() {
    let (dit, kept) = (dit(), Kept::new(6, vec![vec![0, 3, 4], vec![1, 2, 5]]));
    let run = || dit.forward(noised().x, Tensor::from_floats([0.3, 0.8], &device()), &class());
    let route = Route::new("blocks.1", "blocks.2");
    let at = |part: &'static str| watch(part, || route.through(&kept, run)).1;
    let (before, behind) = (at("blocks.0"), at("blocks.3.input"));
    assert_eq!((before.dims(), behind.dims()), ([2, 6, 16], [2, 6, 16]));
    // The innermost hook sees what the outer ones will leave: here the route's.
    let inner = route.through(&kept, || watch("blocks.2.input", run).1);
    assert_eq!(inner.dims(), [2, 3, 16]);
    let change = (behind - before).abs().sum_dim(2);
    let change = host(&change);
    for (image, row) in kept.rows().iter().enumerate() {
        for token in 0..6 {
            let changed = change[6 * image + token];
            assert_eq!(changed > 1e-3, row.contains(&token), "image {image}, token {token}: {changed}");
        }
    }
}

/// Every patch of the input and every parameter learns.
#[test]
fn gradients_reach_all_tokens() {
    let (dit, mut noised) = (dit(), noised());
    noised.x = noised.x.require_grad();
    let kept = Kept::draw(0.34, 6, 0, &[17, 18]);
    let losses = Route::new("blocks.1", "blocks.2").through(&kept, || losses(&dit, &noised));
    let all = losses.mean().backward();
    let of_x = host(&noised.x.grad(&all).unwrap());
    assert!(of_x.iter().all(|&x| x != 0.0));
    let all = GradientsParams::from_grads(all, &dit);
    let found = params::named_gradients(&dit, &all);
    assert_eq!(found.len(), params::named(&dit).len());
    assert!(found.iter().all(|param| param.data.iter::<f32>().any(|x| x != 0.0)));
}

/// Finite differences of the routed loss along a direction of the first block's input.
#[test]
fn gradients_are_slopes() {
    let (dit, noised, along) = (dit(), noised(), pattern([2, 4, 4, 6], 5.0, &device()));
    let kept = Kept::new(6, vec![vec![0, 3, 4], vec![1, 2, 5]]);
    let run = |x: Tensor<4>| {
        let mut noised = noised.clone();
        noised.x = x;
        Route::new("blocks.1", "blocks.2").through(&kept, || losses(&dit, &noised)).sum()
    };
    let x = noised.x.clone().require_grad();
    let gradient = x.grad(&run(x.clone()).backward()).unwrap();
    let found = (gradient * along.clone().inner()).sum().into_scalar::<f64>();
    let at = |step: f64| run(noised.x.clone() + along.clone() * step).into_scalar::<f64>();
    let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
    close(found, slope, 2e-3 * slope.abs());
}

/// Blocks that are run again are run on the tokens that were there.
#[test]
fn routed_blocks_run_again() {
    let (dit, noised) = (dit(), noised());
    let kept = Kept::new(6, vec![vec![0, 3, 4], vec![1, 2, 5]]);
    let run = |dit: &Dit| Route::new("blocks.1", "blocks.2").through(&kept, || losses(dit, &noised));
    let whole = GradientsParams::from_grads(run(&dit).mean().backward(), &dit);
    let again = recompute::Forward::new(&dit, run).gradients(1);
    let [whole, again] = [whole, again].map(|all| params::named_gradients(&dit, &all));
    for (whole, again) in whole.iter().zip(&again) {
        let largest = whole.data.iter::<f64>().fold(0.0, |most, x| x.abs().max(most));
        let pairs = whole.data.iter::<f64>().zip(again.data.iter::<f64>());
        pairs.for_each(|(a, b)| close(a, b, 1e-5 * largest));
    }
}

/// Attention costs what the square of the kept tokens costs, everything else what they cost themselves.
#[test]
fn a_route_costs_what_its_tokens_cost() {
    use canvas_core::macs;
    let device = Device::flex();
    let net = DitConfig::new([16, 16], 64, 4, 2).with_classes(5).init(&device);
    let (x, time) = (Tensor::<4>::zeros([1, 4, 16, 16], &device), Tensor::ones([1], &device));
    let class = Class::new(&[1], &device);
    let run = || drop(net.forward(x.clone(), time.clone(), &class));
    let routed = |keep: f64| {
        let kept = Kept::draw(keep, 64, 0, &[3]);
        macs::count(|| Route::new("blocks.0", "blocks.3").through(&kept, run)).1 as f64
    };
    // Of a block: 12 N W^2 for layers, 2 N^2 W for attention, 6 W^2 for modulation.
    let block = |n: f64| 12.0 * n * 64.0 * 64.0 + 2.0 * n * n * 64.0;
    close(routed(1.0) - routed(0.5), 4.0 * (block(64.0) - block(32.0)), 0.5);
    close(routed(1.0) - routed(0.25), 4.0 * (block(64.0) - block(16.0)), 0.5);
}

/// In place of those that were left out stands what is given, and it learns.
#[test]
fn learned_tokens_stand_instead() {
    let (dit, tokens) = (dit(), params::fill_by_formula(MaskTokens::new(16, &device())));
    let kept = Kept::new(6, vec![vec![0, 3, 4], vec![1, 2, 5]]);
    let run = || dit.forward(noised().x, Tensor::from_floats([0.3, 0.8], &device()), &class());
    let route = Route::new("blocks.0", "blocks.2").instead(tokens.at([2, 3]));
    let (answer, decoded) = watch("blocks.3.input", || route.through(&kept, run));
    let (decoded, places) = (host(&decoded), host(&tokens.at([2, 3])));
    for (image, row) in kept.rows().iter().enumerate() {
        for token in 0..6 {
            let at = |all: &[f64], token: usize| all[16 * token..16 * (token + 1)].to_vec();
            assert_eq!(at(&decoded, 6 * image + token) == at(&places, token), !row.contains(&token));
        }
    }
    let all = GradientsParams::from_grads(answer.clone().sum().backward(), &tokens);
    assert_eq!(params::named_gradients(&tokens, &all).len(), 1);
    // The encoder never saw them: what was there makes no difference.
    let other = noised().x + (kept.mask([2, 3], 2, &device()).neg() + 1.0);
    let seen = |x: Tensor<4>| dit.forward(x, Tensor::from_floats([0.3, 0.8], &device()), &class());
    assert_eq!(route.through(&kept, || seen(other)).into_data(), answer.into_data());
}

/// By hand, patch by patch.
#[test]
fn what_was_left_out_is_rebuilt() {
    let (estimate, x) =
        (pattern([2, 4, 4, 6], 0.3, &Device::flex()), pattern([2, 4, 4, 6], 1.7, &Device::flex()));
    let kept = Kept::new(6, vec![vec![0, 3], vec![1, 2]]);
    let found = host(&reconstruction(estimate.clone(), x.clone(), &kept, 2));
    let (estimate, x) = (host(&estimate), host(&x));
    for (image, row) in kept.rows().iter().enumerate() {
        let mut errors = Vec::new();
        for token in (0..6).filter(|token| !row.contains(token)) {
            let [top, left] = [token / 3 * 2, token % 3 * 2];
            let place = |c: usize, i: usize| ((image * 4 + c) * 4 + top + i / 2) * 6 + left + i % 2;
            let of = |all: &[f64]| (0..16).map(|k| all[place(k / 4, k % 4)]).collect::<Vec<f64>>();
            let (found, target) = (of(&estimate), of(&x));
            let mean = target.iter().sum::<f64>() / 16.0;
            let variance = target.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 15.0;
            let square = |(a, b): (&f64, &f64)| (a - (b - mean) / (variance + 1e-6).sqrt()).powi(2);
            errors.push(found.iter().zip(&target).map(square).sum::<f64>() / 16.0);
        }
        close(found[image], errors.iter().sum::<f64>() / errors.len() as f64, 1e-5);
    }
    let all = Kept::draw(1.0, 6, 0, &[1, 2]);
    let x = pattern([2, 4, 4, 6], 0.0, &Device::flex());
    assert!(panic_text(|| reconstruction(x.clone(), x, &all, 2)).contains("nothing to rebuild"));
}

/// A step of deferred masking: the loss is of the pixels that were kept alone.
#[test]
fn deferred_masking_learns_of_what_was_kept() {
    let kept = Kept::draw(0.5, 6, 0, &[17, 18]);
    let noised = noised().masked(kept.mask([2, 3], 2, &device()));
    let mut state = TrainState::new(dit(), AdamW::default());
    let run = |dit: &Dit| Route::new("blocks.1", "blocks.3").through(&kept, || losses(dit, &noised));
    let options = StepOptions { rate: 1e-3, clip: 1.0, ema: Ema::WarmUp { limit: 0.9 } };
    let first = run(&state.model).mean().into_scalar::<f64>();
    for _ in 0..20 {
        let losses = run(&state.model);
        state.step(losses, &options).unwrap();
    }
    let last = run(&state.model).mean().into_scalar::<f64>();
    assert!(last < 0.7 * first, "from {first} to {last}");
    // What others should have answered does not count.
    let dropped = kept.mask([2, 3], 2, &device()).neg() + 1.0;
    let mut other = noised.clone();
    other.x0 = other.x0 + dropped * 7.0;
    let of = |noised: &Noised<4>| {
        Route::new("blocks.1", "blocks.3").through(&kept, || losses(&state.model, noised))
    };
    assert_eq!(of(&other).into_data(), of(&noised).into_data());
}

/// A network that is drawn with has no route left over, whatever happened inside.
#[test]
fn a_panic_leaves_no_route() {
    let (dit, kept) = (dit(), Kept::draw(0.5, 6, 0, &[1, 2]));
    let before = bits(&dit);
    let run = || losses(&dit, &noised());
    let expected = run().into_data();
    let stop = Rc::new(RefCell::new(0));
    struct Stop(Rc<RefCell<usize>>);
    impl trace::Hook for Stop {
        fn tap(&self, tapped: &mut trace::Tapped<'_>) {
            *self.0.borrow_mut() += 1;
            assert!(tapped.name() != "blocks.2.input", "stop in {}", tapped.name());
        }
    }
    let route = Route::new("blocks.1", "blocks.2");
    let says = panic_text(|| trace::with_hook(Rc::new(Stop(stop.clone())), || route.through(&kept, run)));
    assert_eq!(says, "stop in blocks.2.input");
    assert!(*stop.borrow() > 3);
    assert_eq!(run().into_data(), expected);
    assert_eq!(bits(&dit), before);
}

/// Prints what steps take; asserts nothing.
/// `cargo test --workspace --test train a_route_takes_less_time -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn a_route_takes_less_time() {
    let device = device();
    let net = DitConfig::new([32, 32], 256, 12, 4).with_classes(5).with_learn_variance(false).init(&device);
    let (images, levels) =
        ([0, 1, 2, 3], [0.2, 0.4, 0.6, 0.8].map(|t| schedule::Flow::default().level(t)).to_vec());
    let [x0, eps] = [1.0, 2.0].map(|seed| pattern([4, 4, 32, 32], seed, &device));
    let (noised, class) = (Noised::new(x0, eps, levels), Class::new(&[1, 2, 3, 4], &device));
    let mut state = TrainState::new(net, AdamW::default());
    let options = StepOptions { rate: 1e-4, clip: 1.0, ema: Ema::WarmUp { limit: 0.9 } };
    // TREAD's half of the tokens in its blocks, and MicroDiT's quarter behind two blocks.
    for (name, keep, from, to) in [("whole", 1.0, 2, 7), ("TREAD", 0.5, 2, 7), ("MicroDiT", 0.25, 2, 11)] {
        let route = Route::new(format!("blocks.{from}"), format!("blocks.{to}"));
        let mut times = Vec::new();
        for step in 0..7u64 {
            let start = std::time::Instant::now();
            let kept = Kept::draw(keep, 256, step, &images);
            let objective = Objective::default();
            let process = process();
            let losses =
                route.through(&kept, || objective.losses(process.denoiser(&state.model), &noised, &class));
            state.step(losses, &options).unwrap();
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        println!("{name}: keep {keep} from block {from} to {to}: {:.0} ms a step", 1e3 * times[3]);
    }
}

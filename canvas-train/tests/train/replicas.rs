use crate::{Net, bits, panic_text, tensor};
use burn::module::{Module, Param};
use burn::prelude::*;
use burn::tensor::distributed::{DistributedConfig, DistributedContext, ReduceOperation};
use canvas_core::{Noise, Process, Seeded, Unconditional, params, trace};
use canvas_sched::{predict, schedule};
use canvas_train::{
    AdamW, Draws, Ema, Exchange, Gradients, ModuleOptimizer, Noised, NonFinite, Objective, Replica, Replicas,
    StepOptions, StepReport, TrainState,
};
use std::ops::Range;

const BATCH: usize = 12;
const STEPS: usize = 5;
/// Every step is clipped, to a tenth or so.
const OPTIONS: StepOptions = StepOptions { rate: 1e-2, clip: 0.1, ema: Ema::WarmUp { limit: 0.8 } };

fn device() -> Device {
    Device::flex().autodiff()
}

fn state() -> TrainState<Net, AdamW> {
    let slow = AdamW { weight_decay: 0.0, ..AdamW::default() };
    let optimizer = ModuleOptimizer::new(AdamW::default()).with_group(|name| name == "up.bias", slow, 0.5);
    TrainState::with_groups(params::fill_by_formula(Net::new(16, &device())), optimizer)
}

/// Per-sample losses of flow matching towards a ring: functions of the number of the images only.
fn losses(model: &Net, first: u64, share: Range<usize>) -> Tensor<1> {
    let process =
        Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
    let objective = Objective::default();
    let images: Vec<u64> = share.map(|image| first + image as u64).collect();
    let points = images.iter().flat_map(|&i| [(i as f32).cos(), (i as f32).sin()]).collect();
    let x0 = tensor(points, [images.len(), 2], &device());
    let level = |&image: &u64| objective.level(&*process.schedule, Draws::Independent.at(3, image));
    let (at, count) = (images.iter().map(level).collect(), images.len());
    let eps = Seeded::new(5, images).normal_like(&x0);
    objective.losses(process.denoiser(model), &Noised::new(x0, eps, at), &Unconditional(count))
}

fn alone(state: &mut TrainState<Net, AdamW>) -> StepReport {
    let losses = losses(&state.model, state.images, 0..BATCH);
    state.step(losses, &OPTIONS).unwrap()
}

fn whole(replica: &Replica<Net>, first: u64, share: Range<usize>) -> Result<Gradients, NonFinite> {
    replica.gradients(losses(replica.model, first, share))
}

fn together(
    state: &mut TrainState<Net, AdamW>,
    replicas: &mut Replicas<Net, AdamW>,
    each: impl Fn(&Replica<Net>, u64, Range<usize>) -> Result<Gradients, NonFinite> + Sync,
) -> StepReport {
    let first = state.images;
    let gradients = replicas.gradients(state, BATCH, |replica, share| each(replica, first, share)).unwrap();
    replicas.update(state, gradients, &OPTIONS).unwrap()
}

/// So many devices, all of them the CPU.
fn replicas(state: &TrainState<Net, AdamW>, count: usize) -> Replicas<Net, AdamW> {
    Replicas::new(state, &vec![Device::flex(); count - 1], Exchange::Copies).unwrap()
}

/// The most that a parameter is off.
fn off<M: Module>(found: &M, expected: &M) -> f64 {
    let values = |module: &M| -> Vec<f64> {
        params::named(module).iter().flat_map(|param| param.data.iter::<f64>()).collect()
    };
    values(found).iter().zip(values(expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Parameters of about 1 move by about 0.04 in five steps.
#[test]
fn devices_make_the_steps_that_one_makes_of_the_whole_batch() {
    let (mut one, start) = (state(), state());
    let expected: Vec<StepReport> = (0..STEPS).map(|_| alone(&mut one)).collect();
    assert!(expected.iter().all(|report| report.grad_norm > 2.0 * OPTIONS.clip), "{expected:?}");
    assert!(off(&one.model, &start.model) > 0.03);
    for count in [2, 3, 4] {
        let mut many = state();
        let mut replicas = replicas(&many, count);
        for expected in &expected {
            let report = together(&mut many, &mut replicas, whole);
            assert!((report.loss / expected.loss - 1.0).abs() < 1e-6, "{report:?}, {expected:?}");
            assert!((report.grad_norm / expected.grad_norm - 1.0).abs() < 1e-6, "{report:?}, {expected:?}");
        }
        let found = [off(&many.model, &one.model), off(&many.average, &one.average)];
        println!("{count} devices: parameters off by {:.1e}, averages by {:.1e}", found[0], found[1]);
        assert!(found.iter().all(|&off| off < 1e-6), "{count} devices: {found:?}");
        assert_eq!((many.images, many.steps), (one.images, one.steps));
        assert_eq!(replicas.copies().count(), count - 1);
        assert!(replicas.copies().all(|copy| bits(copy) == bits(&many.model)), "copies are copies");
    }
}

#[test]
fn devices_accumulate_and_run_blocks_again() {
    let mut one = state();
    for _ in 0..STEPS {
        alone(&mut one);
    }
    type Each = fn(&Replica<Net>, u64, Range<usize>) -> Result<Gradients, NonFinite>;
    let parts: Each = |replica, first, share| {
        let of = |model: &Net, part: Range<usize>| losses(model, first + share.start as u64, part);
        replica.gradients_accumulated(of, share.len(), 4)
    };
    let again: Each = |replica, first, share| {
        let of = |model: &Net| trace::unit(|| "net".into(), || losses(model, first, share.clone()));
        replica.gradients_recomputed(of, 1)
    };
    for each in [parts, again] {
        let mut many = state();
        let mut replicas = replicas(&many, 2);
        for _ in 0..STEPS {
            together(&mut many, &mut replicas, each);
        }
        let off = off(&many.model, &one.model);
        assert!(off < 1e-6, "off by {off:e}");
    }
}

#[test]
fn devices_go_on_from_a_checkpoint() {
    let mut whole_run = state();
    let mut copies = replicas(&whole_run, 2);
    for _ in 0..2 {
        together(&mut whole_run, &mut copies, whole);
    }
    let folder = tempfile::tempdir().unwrap();
    whole_run.save(folder.path()).unwrap();
    let mut resumed = state();
    resumed.restore(folder.path()).unwrap();
    let mut new = replicas(&resumed, 2);
    for _ in 0..STEPS {
        let expected = together(&mut whole_run, &mut copies, whole);
        assert_eq!(together(&mut resumed, &mut new, whole), expected);
    }
    assert_eq!(bits(&resumed.model), bits(&whole_run.model));
    assert!(new.copies().all(|copy| bits(copy) == bits(&whole_run.model)));
}

/// A parameter for each image, of which a share has some.
#[derive(Module, Debug)]
struct OfImages {
    each: Vec<Param<Tensor<1>>>,
    untouched: Param<Tensor<1>>,
}

#[test]
fn a_parameter_may_have_a_part_in_one_share_only() {
    let one = |value: f32| Param::from_tensor(tensor(vec![value], [1], &device()));
    let model = OfImages { each: (0..4).map(|i| one(1.0 + i as f32)).collect(), untouched: one(9.0) };
    let mut state = TrainState::new(model, AdamW::default());
    let squares = |model: &OfImages, images: Range<usize>| {
        Tensor::cat(images.map(|image| model.each[image].val().square()).collect(), 0)
    };
    let mut replicas = Replicas::new(&state, &[Device::flex()], Exchange::Copies).unwrap();
    let each = |replica: &Replica<OfImages>, images: Range<usize>| -> Result<_, NonFinite> {
        replica.gradients(squares(replica.model, images))
    };
    let gradients = replicas.gradients(&state, 4, each).unwrap();
    assert_eq!(gradients.losses, [1.0, 4.0, 9.0, 16.0]);
    let grad = |param: &Param<Tensor<1>>| Some(gradients.grads.get::<1>(param.id)?.into_scalar::<f32>());
    let found: Vec<Option<f32>> = state.model.each.iter().map(grad).collect();
    assert_eq!(found, [0.5, 1.0, 1.5, 2.0].map(Some)); // 2 x / 4
    assert_eq!(grad(&state.model.untouched), None);
    replicas.update(&mut state, gradients, &OPTIONS).unwrap();
    assert!(replicas.copies().all(|copy| bits(copy) == bits(&state.model)));
}

#[test]
fn a_loss_that_is_not_finite_is_named_by_its_place_in_the_batch() {
    let mut state = state();
    let mut replicas = replicas(&state, 3);
    let before = bits(&state.model);
    let each = |replica: &Replica<Net>, share: Range<usize>| {
        let broken: Vec<f32> = share.clone().map(|row| if row == 6 { f32::NAN } else { 0.0 }).collect();
        let count = share.len();
        replica.gradients(losses(replica.model, 0, share) + tensor(broken, [count], &device()))
    };
    let error = replicas.gradients(&state, BATCH, each).err().unwrap();
    assert_eq!((error.rows, error.what, error.images), (vec![6], "loss", 0));
    // A gradient that is infinite is found by the update, which then changes nothing.
    let each = |replica: &Replica<Net>, share: Range<usize>| {
        let id = replica.model.up.weight.id;
        let mut gradients = whole(replica, 0, share)?;
        let grad = gradients.grads.remove::<2>(id).unwrap();
        gradients.grads.register(id, grad * f32::INFINITY);
        Ok::<_, NonFinite>(gradients)
    };
    let gradients = replicas.gradients(&state, BATCH, each).unwrap();
    assert_eq!(replicas.update(&mut state, gradients, &OPTIONS).unwrap_err().what, "gradient norm");
    assert_eq!(bits(&state.model), before);
    assert!(replicas.copies().all(|copy| bits(copy) == before));
    // And the next step is as if nothing had been.
    together(&mut state, &mut replicas, whole);
    assert!(replicas.copies().all(|copy| bits(copy) == bits(&state.model)));
}

#[test]
fn what_cannot_be_shared_out_is_refused() {
    let mut state = state();
    let mut five = replicas(&state, 5);
    let says = panic_text(|| five.gradients(&state, BATCH, |replica, share| whole(replica, 0, share)));
    assert_eq!(says, "12 images among 5 devices");
    // Burn 0.22's collectives are of CUDA devices; on a CPU they say so.
    let mut two = Replicas::new(&state, &[Device::flex()], Exchange::AllReduce).unwrap();
    let says = panic_text(|| together(&mut state, &mut two, whole));
    assert!(says.contains("Distributed operations are not supported"), "{says}");
    let config = DistributedConfig { all_reduce_op: ReduceOperation::Mean };
    let says = panic_text(|| DistributedContext::init(vec![Device::flex(); 2], config));
    assert!(says.contains("Distributed operations are not supported"), "{says}");
}

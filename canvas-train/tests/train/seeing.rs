use crate::{Net, bits, close, panic_text, tensor};
use burn::prelude::*;
use canvas_core::{Level, Noise, Process, Seeded, Unconditional, params};
use canvas_sched::{predict, schedule};
use canvas_train::seeing::{
    Clock, Event, EventWriter, HeldOut, LevelAxis, LossByLevel, Norms, Phase, Watch, block_of, grouped,
};
use canvas_train::{AdamW, Ema, Gradients, ModuleOptimizer, Noised, Objective, StepOptions, TrainState};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::rc::Rc;

const OPTIONS: StepOptions = StepOptions { rate: 3e-2, clip: 0.1, ema: Ema::WarmUp { limit: 0.8 } };

fn state() -> TrainState<Net, AdamW> {
    let device = Device::flex().autodiff();
    device.seed(3);
    TrainState::new(Net::new(6, &device), AdamW::default())
}

fn process() -> Process {
    Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) }
}

fn gradients(state: &TrainState<Net, AdamW>) -> Gradients {
    let images: Vec<u64> = (state.images..state.images + 4).collect();
    let points = images.iter().flat_map(|&i| [(i as f32).cos(), (i as f32).sin()]).collect();
    let x0 = tensor(points, [4, 2], &Device::flex().autodiff());
    let eps = Seeded::new(5, images).normal_like(&x0);
    let process = process();
    let at = [0.2, 0.4, 0.6, 0.8].map(|time| process.schedule.level(time)).to_vec();
    let losses = Objective::default().losses(
        process.denoiser(&state.model),
        &Noised::new(x0, eps, at),
        &Unconditional(4),
    );
    state.gradients(losses).unwrap()
}

fn l2(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn norms_are_those_of_gradient_parameter_and_change() {
    let mut state = state();
    for _ in 0..3 {
        let gradients = gradients(&state);
        let by_hand = params::named_gradients(&state.model, &gradients.grads);
        let before = params::named(&state.model);
        let watch = Watch::before(&state.model, &gradients);
        let report = state.update(gradients, &OPTIONS).unwrap();
        let norms = watch.after(&state.model);
        let after = params::named(&state.model);

        let names = ["up.weight", "up.bias", "time.weight", "down.weight", "down.bias"];
        assert_eq!(norms.iter().map(|norm| &*norm.name).collect::<Vec<_>>(), names);
        for (n, norm) in norms.iter().enumerate() {
            close(norm.gradient, l2(by_hand[n].data.iter::<f64>()), 1e-6);
            close(norm.parameter, l2(before[n].data.iter::<f64>()), 1e-6);
            let change = before[n].data.iter::<f64>().zip(after[n].data.iter::<f64>()).map(|(a, b)| b - a);
            close(norm.update, l2(change), 1e-7);
            assert!(norm.update > 0.0, "{norm:?}");
        }
        // Before clipping: together they are the norm that clipping saw.
        close(l2(norms.iter().map(|norm| norm.gradient)), report.grad_norm, 1e-6);
        assert!(report.grad_norm > OPTIONS.clip, "clipping is not tried by {}", report.grad_norm);
    }
}

#[test]
fn a_step_that_is_watched_is_the_same_to_the_bit() {
    let (mut plain, mut watched) = (state(), state());
    assert_eq!(bits(&plain.model), bits(&watched.model));
    for _ in 0..4 {
        let found = gradients(&plain);
        let report = plain.update(found, &OPTIONS).unwrap();
        let found = gradients(&watched);
        let watch = Watch::before(&watched.model, &found);
        assert_eq!(watched.update(found, &OPTIONS).unwrap(), report);
        watch.after(&watched.model);
    }
    assert_eq!(bits(&plain.model), bits(&watched.model));
    assert_eq!(bits(&plain.average), bits(&watched.average));
}

/// A group with a rate of 0 has gradients and does not move.
#[test]
fn what_a_group_of_parameters_does_is_seen() {
    let device = Device::flex().autodiff();
    let optimizer = ModuleOptimizer::new(AdamW { weight_decay: 0.0, ..AdamW::default() }).with_group(
        |name| name.starts_with("up."),
        AdamW::default(),
        0.0,
    );
    let mut state = TrainState::with_groups(Net::new(6, &device), optimizer);
    let gradients = gradients(&state);
    let watch = Watch::before(&state.model, &gradients);
    state.update(gradients, &OPTIONS).unwrap();
    let blocks = grouped(&watch.after(&state.model), block_of);
    let named: Vec<_> = blocks.iter().map(|norm| (&*norm.name, norm.update > 0.0)).collect();
    assert_eq!(named, [("up", false), ("time", true), ("down", true)]);
    assert!(blocks[0].gradient > 0.0);
}

#[test]
fn blocks_are_named_by_their_first_number() {
    for (name, block) in [
        ("backbone.blocks.3.attention.qkv.weight", "backbone.blocks.3"),
        ("encoder.2.blocks.1.weight", "encoder.2"),
        ("text.embed.weight", "text.embed"),
        ("conv2.weight", "conv2"), // not a number alone
        ("scale", "scale"),
    ] {
        assert_eq!(block_of(name), block);
    }
    let norm =
        |name: &str, gradient, parameter, update| Norms { name: name.into(), gradient, parameter, update };
    let found = grouped(
        &[norm("a.0.w", 3.0, 5.0, 0.0), norm("b.w", 1.0, 0.0, 1.0), norm("a.0.b", 4.0, 12.0, 2.0)],
        block_of,
    );
    assert_eq!(found, [norm("a.0", 5.0, 13.0, 2.0), norm("b", 1.0, 0.0, 1.0)]);
    assert_eq!(found[0].relative(), 2.0 / 13.0);
    assert_eq!(found[1].relative(), f64::INFINITY);
}

fn level(time: f64) -> Level {
    Level { time, alpha: 1.0 - time, sigma: time }
}

#[test]
fn losses_are_sorted_by_level_and_the_ends_hold_the_rest() {
    let mut table = LossByLevel::new(LevelAxis::HalfLogSnr, [-2.0, 2.0], 4);
    // Pure noise, then ln(3/7), ln(3), and clean data.
    table.add(&[level(1.0), level(0.7), level(0.25), level(0.0)], &[1.0, 2.0, 4.0, 8.0]);
    table.add(&[level(0.9)], &[3.0]); // ln(1/9) = -2.2
    let row = table.take(5);
    assert_eq!(row.edges, [-2.0, -1.0, 0.0, 1.0, 2.0]);
    assert_eq!(row.counts, [2, 1, 0, 2]);
    assert_eq!(row.losses, [Some(2.0), Some(2.0), None, Some(6.0)]);
    // Taken, it is empty.
    assert_eq!(table.take(5).counts, [0; 4]);
    assert!(panic_text(|| LossByLevel::new(LevelAxis::Time, [1.0, 1.0], 3)).contains("levels from 1 to 1"));
    assert!(table.fits(&LossByLevel::new(LevelAxis::HalfLogSnr, [-2.0, 2.0], 4)));
    assert!(!table.fits(&LossByLevel::new(LevelAxis::Time, [-2.0, 2.0], 4)));
}

#[test]
fn a_table_of_losses_that_was_saved_goes_on_exactly() {
    let losses: Vec<f64> = (0..40).map(|n| 1.0 / (n as f64 + 3.0)).collect();
    let levels: Vec<Level> = (0..40).map(|n| level(f64::from(n * 7 % 40) / 40.0)).collect();
    let mut whole = LossByLevel::new(LevelAxis::Time, [0.0, 1.0], 7);
    whole.add(&levels, &losses);
    for cut in [0, 1, 17, 40] {
        let mut table = LossByLevel::new(LevelAxis::Time, [0.0, 1.0], 7);
        table.add(&levels[..cut], &losses[..cut]);
        let saved = serde_json::to_string(&table).unwrap();
        let mut table: LossByLevel = serde_json::from_str(&saved).unwrap();
        table.add(&levels[cut..], &losses[cut..]);
        assert_eq!(table.take(40), whole.clone().take(40), "cut at {cut}");
    }
}

#[test]
fn held_out_losses_are_means_at_fixed_levels_whatever_the_batch() {
    let (state, process) = (state(), process());
    let x0 = tensor(crate::wave(22, 0.3, 1.0), [11, 2], &Device::flex());
    let levels: Vec<Level> = [0.1, 0.5, 0.9].map(|time| process.schedule.level(time)).to_vec();
    let held_out =
        |at_once| HeldOut { levels: levels.clone(), seed: 9, objective: Objective::default(), at_once };
    let found = held_out(64).losses(process.denoiser(&state.average), &x0, &Unconditional(11));

    // By hand, one image at a time.
    for (level, found) in levels.iter().zip(&found) {
        let each = (0..11).map(|n| {
            let x0 = x0.clone().narrow(0, n, 1);
            let eps = Seeded::new(9, vec![n as u64]).normal_like(&x0);
            let noised = Noised::new(x0, eps, vec![*level]);
            let losses =
                Objective::default().losses(process.denoiser(&state.average), &noised, &Unconditional(1));
            f64::from(losses.into_scalar::<f32>())
        });
        close(*found, each.sum::<f64>() / 11.0, 1e-6);
    }
    for at_once in [1, 4, 11] {
        let again = held_out(at_once).losses(process.denoiser(&state.average), &x0, &Unconditional(11));
        found.iter().zip(again).for_each(|(a, b)| close(*a, b, 1e-6));
    }
    let said = panic_text(|| {
        held_out(4).losses(process.denoiser(&state.average), &x0, &Unconditional(10));
    });
    assert!(said.contains("10") && said.contains("11"), "{said}");
}

#[test]
fn the_time_of_inner_phases_is_not_that_of_outer_ones() {
    let nap = || std::thread::sleep(std::time::Duration::from_millis(3));
    let clock = Clock::start(None);
    clock.measure(false);
    let answer = clock.within(Phase::Backward, || {
        nap();
        clock.within(Phase::Forward, || {
            nap();
            clock.within(Phase::Data, nap);
        });
        nap();
        7
    });
    clock.within(Phase::Evaluation, nap);
    let split = clock.take();
    assert_eq!((answer, split.steps, split.measured), (7, 1, 1));
    let [data, forward, backward] = [split.data, split.forward, split.backward].map(Option::unwrap);
    assert!(data >= 3e-3 && forward >= 3e-3 && backward >= 6e-3 && split.evaluation >= 3e-3, "{split:?}");
    // No moment counts twice: what is left for the rest is not negative.
    let parts = data + forward + backward + split.optimizer.unwrap() + split.evaluation + split.checkpoint;
    assert!(parts <= split.seconds && split.optimizer == Some(0.0), "{split:?}");
    close(split.training(), split.seconds - split.evaluation, 1e-12);
    assert_eq!(clock.take().steps, 0);
}

/// On a device that queues, the phases of measured steps stand for those of all.
#[test]
fn phases_of_steps_that_were_not_waited_for_are_scaled() {
    let nap = || std::thread::sleep(std::time::Duration::from_millis(4));
    let clock = Clock::start(Some(Box::new(|| ())));
    clock.measure(false);
    clock.within(Phase::Forward, nap);
    assert_eq!(clock.take().forward, None, "no step was measured");
    for step in 0..4 {
        clock.measure(step == 1);
        if step == 1 {
            clock.within(Phase::Forward, nap);
        }
        clock.within(Phase::Checkpoint, || ());
    }
    let split = clock.take();
    assert_eq!((split.steps, split.measured), (4, 1));
    assert!(split.forward.unwrap() >= 16e-3, "{split:?}");
    assert_eq!(split.data, Some(0.0));
}

/// Else its first phase, which asks nothing of the device, would have that time.
#[test]
fn what_is_left_of_the_step_before_is_waited_for_first() {
    let queue = Rc::new(Cell::new(0));
    let device = Rc::clone(&queue);
    let clock = Clock::start(Some(Box::new(move || device.set(0))));
    let left_after = |phase: Phase| {
        clock.within(phase, || queue.set(queue.get() + 1));
        queue.get()
    };
    clock.measure(false);
    assert_eq!([Phase::Forward, Phase::Optimizer].map(left_after), [1, 2]);
    clock.measure(true);
    assert_eq!(queue.get(), 0);
    assert_eq!([Phase::Forward, Phase::Optimizer].map(left_after), [0, 0]);
    clock.measure(false);
    assert_eq!(left_after(Phase::Forward), 1);
}

/// The records of a file, each with its frame.
fn records(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize + 16;
        found.push(&rest[..length]);
        rest = &rest[length..];
    }
    found
}

/// The same events as in `tools/fixtures_events.py`.
#[test]
fn events_are_the_bytes_that_tensorboard_writes() {
    let fixture =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/events.tfevents")).unwrap();
    // The picture is in the file itself.
    let start = fixture.windows(4).position(|window| window == b"\x89PNG").unwrap();
    let end = fixture.windows(4).position(|window| window == b"IEND").unwrap() + 8;
    let png = fixture[start..end].to_vec();
    let scalars = [("train/loss", 0.25), ("train/rate", 1e-4), ("nothing", 0.0)];
    let ours = [
        Event::version().at(0, 1.5),
        Event::restart().at(33, 2.5),
        Event::scalars(scalars).at(48, 1_764_583_183.123_456),
        Event::image("drawn", png).at(5_000_000_000, 1_764_583_184.0),
        Event::text("run", "`caf\u{e9}`").at(1, 1_764_583_185.0),
    ];
    let theirs = records(&fixture);
    assert_eq!(theirs.len(), ours.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours.record(), theirs, "{ours:?}");
    }
}

#[test]
fn each_process_writes_a_file_that_sorts_behind_and_says_where_it_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("not/there/yet");
    let mut names = Vec::new();
    for done in [0, 32, 16] {
        let mut events = EventWriter::resume(&folder, done).unwrap(); // all within a second
        events.push(done + 1, Event::scalars([("loss", 1.0)])).unwrap();
        events.sync().unwrap();
        names.push(events.path().to_owned());
        let bytes = fs::read(events.path()).unwrap();
        let records = records(&bytes);
        assert_eq!(records.len(), 3);
        // A step below 128 is the byte behind its tag, which is behind the time.
        let message = &records[1][12..];
        assert_eq!(message[9..11], [0x10, done as u8 + 1]);
    }
    assert!(names.is_sorted(), "{names:?}");
    // Whatever else lies there is no event file, and a clock that was set back does not matter.
    fs::write(folder.join("events.out.tfevents.x"), b"").unwrap();
    fs::write(folder.join("events.out.tfevents.9000000000.host.1"), b"").unwrap();
    let last = EventWriter::resume(&folder, 0).unwrap();
    assert!(last.path().to_str().unwrap().contains("tfevents.9000000001."), "{last:?}");

    let file = home.path().join("file");
    fs::write(&file, b"").unwrap();
    let said = EventWriter::resume(&file, 0).unwrap_err().to_string();
    assert!(said.contains("file"), "{said}");
    assert!(panic_text(|| Event::image("a", vec![1, 2, 3])).contains("PNG"));
}

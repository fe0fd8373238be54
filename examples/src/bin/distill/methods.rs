//! Each method's training: what is asked of the student in a step.

use crate::network::{Network, Told};
use crate::toy::{BATCH, Source, Toy};
use anyhow::Result;
use burn::module::Module;
use canvas_core::{Denoiser, Level, Unconditional};
use canvas_examples::points::{eight_gaussians, moons, tensor};
use canvas_sched::{Heun, Lcm};
use canvas_train::distill::{
    Adaptive, Adversarial, Chord, ChordWeight, Consistency, Coupling, Critic, Curriculum, Ladder, MeanFlow,
    Solver, Span, matching, two_levels,
};
use canvas_train::{Distance, LevelDistribution, Noised, Objective};

const COND: Unconditional = Unconditional(BATCH);
const SQUARED: Consistency<Distance> =
    Consistency { metric: Distance::Squared, weight: ChordWeight::Uniform };

/// Flow matching, of pairs at random; `normal` noises the moons with normal noise in place of the eight Gaussians.
pub fn teacher(toy: &Toy, normal: bool) -> Result<Network> {
    let start = Network::new(2, &toy.device);
    toy.train((if normal { "score" } else { "teacher" }, 2 * toy.steps), start, |state, step| {
        let noised = toy.noised(step);
        let noised = if normal { Noised::new(noised.x0, toy.normal(step), noised.at) } else { noised };
        Objective::default().losses(toy.process.denoiser(&state.model), &noised, &COND)
    })
}

/// Pairs that the teacher makes in 20 of Heun's steps, gone through again and again; and how bent its ways are.
pub fn reflow(toy: &Toy, teacher: &Network) -> Result<(Network, f64)> {
    const BATCHES: u64 = 64;
    let (levels, denoiser) = (toy.grid(20)?, toy.process.denoiser(teacher));
    let couple = |group: u64| -> Result<Coupling<2>> {
        let eps = tensor(&eight_gaussians(toy.seed, group, BATCH), &toy.device);
        let mut unasked = canvas_core::DeviceNoise;
        let run = canvas_core::Run::new(&Heun, &*toy.process.schedule, &levels, &mut unasked)?;
        Ok(Coupling::new(run, |x, level| denoiser.denoise(x, &[level], &COND), eps))
    };
    let pairs = (0..BATCHES).map(couple).collect::<Result<Vec<_>>>()?;
    let bends = pairs.iter().map(|pairs| pairs.bend.clone().mean().into_scalar::<f32>());
    let bend = f64::from(bends.sum::<f32>()) / BATCHES as f64;
    let student = toy.train(("reflow", toy.steps), teacher.clone(), |state, step| {
        let noised = pairs[(step % BATCHES) as usize].noised(toy.levels("reflow", step));
        Objective::default().losses(toy.process.denoiser(&state.model), &noised, &COND)
    })?;
    Ok((student, bend))
}

/// From so many steps to half as many, and so on to one: all students, with their steps.
pub fn progressive(toy: &Toy, teacher: &Network, most: usize) -> Result<Vec<(usize, Network)>> {
    let (mut students, mut teacher, mut hops) = (Vec::new(), teacher.clone(), most);
    while hops > 1 {
        let (ladder, before) = (Ladder::new(toy.grid(hops)?)?, teacher.clone());
        hops /= 2;
        let name = format!("progressive, {hops}");
        teacher = toy.train((&name, toy.steps / 2), teacher, |state, step| {
            let draws = toy.draws("progressive", step);
            let paths: Vec<&[Level]> = draws.iter().map(|&draw| ladder.block(draw, 2)).collect();
            let [x0, eps] = toy.pairs(step);
            let x = Noised::new(x0, eps, paths.iter().map(|path| path[0]).collect()).x;
            let chord = Chord::of_teacher((&toy.process.denoiser(&before), Solver::Euler), x, &paths, &COND);
            Objective::default().losses(toy.process.denoiser(&state.model), &chord.noised(), &COND)
        })?;
        students.push((hops, teacher.clone()));
    }
    Ok(students)
}

/// From a teacher, on a ladder of 32.
pub fn consistency_distilled(toy: &Toy, teacher: &Network) -> Result<Network> {
    let ladder = Ladder::new(toy.grid(32)?)?;
    toy.train(("consistency, distilled", toy.steps), teacher.clone(), |state, step| {
        let draws = toy.draws("consistency", step);
        let paths: Vec<&[Level]> = draws.iter().map(|&draw| ladder.path(draw, 1)).collect();
        let [x0, eps] = toy.pairs(step);
        let x = Noised::new(x0, eps, paths.iter().map(|path| path[0]).collect()).x;
        let [model, target, teacher] =
            [&state.model, &state.average, teacher].map(|network| toy.process.denoiser(network));
        let chord = Chord::of_teacher((&teacher, Solver::Heun), x, &paths, &COND);
        SQUARED.losses((&model, &target), &chord, &COND)
    })
}

/// Without a teacher, from 8 intervals to 128; the target is the student itself.
pub fn consistency_trained(toy: &Toy) -> Result<Network> {
    let curriculum = Curriculum::Doubling { first: 8, last: 128 };
    let steps = 2 * toy.steps;
    toy.train(("consistency, trained", steps), Network::new(2, &toy.device), |state, step| {
        let grid = toy.grid(curriculum.intervals(step, steps)).expect("a uniform grid");
        let ladder = Ladder::new(grid).expect("noise falls");
        let paths = toy.draws("consistency", step).into_iter().map(|draw| ladder.path(draw, 1));
        let (from, to) = paths.map(|path| (path[0], path[1])).unzip();
        let [x0, eps] = toy.pairs(step);
        let chord = Chord::of_data(&Noised::new(x0, eps, from), to);
        let itself = state.model.valid();
        let [model, target] = [&state.model, &itself].map(|network| toy.process.denoiser(network));
        SQUARED.losses((&model, &target), &chord, &COND)
    })
}

/// Average velocities: of data, or of a teacher.
///
/// Errors count by their squares. The paper's weight is for images, where every error is about as long as every other; in the
/// plane it asks for the most likely velocity, and not for the mean.
pub fn mean_flow(toy: &Toy, teacher: Option<&Network>) -> Result<Network> {
    let method = MeanFlow { metric: Adaptive { power: 0.0, c: 1.0 }, ..MeanFlow::default() };
    let uniform = LevelDistribution::Uniform;
    let start = || Network::new(2, &toy.device);
    let (name, steps) = match teacher {
        Some(_) => ("mean flow, distilled", toy.steps),
        None => ("mean flow, trained", 2 * toy.steps),
    };
    toy.train((name, steps), teacher.cloned().unwrap_or_else(start), |state, step| {
        let draws = ["one", "other", "instant"].map(|purpose| toy.draws(purpose, step));
        let pair = |i: usize| {
            two_levels(&uniform, &*toy.process.schedule, [0, 1, 2].map(|k: usize| draws[k][i]), 0.5)
        };
        let (at, to): (Vec<Level>, Vec<Level>) = (0..BATCH).map(pair).map(|[at, to]| (at, to)).unzip();
        let [x0, eps] = toy.pairs(step);
        let noised = Noised::new(x0, eps, at);
        let span = match teacher {
            Some(teacher) => Span::of_teacher(&toy.process.denoiser(teacher), &noised, &to, &COND),
            None => Span::of_data(&noised, &to),
        };
        method.losses((&state.model, &state.model.valid()), &span, &COND)
    })
}

/// A generator of four steps, so of two and of one: what it draws from any of its levels is to be data. After five updates of the
/// fake denoiser and the critic comes one of the generator.
///
/// Drawings are noised normally, and `score` is a teacher of that: the gradient is one of distributions for normal noise only.
///
/// The fake denoiser and the critic are told which level a drawing is from, which the paper's are not: who knows only all drawings
/// together can only say that these are wrong, and is content when what is too much from one level is missing from another.
pub fn matched(toy: &Toy, teacher: &Network, score: &Network, of_critic: f64) -> Result<Network> {
    const EVERY: u64 = 6;
    let levels = toy.grid(4)?;
    let mut generator = toy.state(teacher.clone());
    let mut fake = toy.state(score.clone());
    let mut critic = toy.state(Network::new(1, &toy.device));
    let (steps, adversarial) = (EVERY * toy.steps, Adversarial::Softplus);
    for step in 0..steps {
        // After how many of its steps.
        let done = (toy.draws("hop", step)[0] * 4.0) as usize;
        let from = levels[done];
        let [data, start] = toy.pairs(step);
        let before = (start.clone().inner(), Source::new(toy.seed, "hops", step));
        let state = toy.run(&generator.model.valid(), &Lcm, (&levels, done), before)?;
        let state = start.zeros_like() + state;
        let drawn = toy.process.denoiser(&generator.model).denoise(state, &[from], &COND).x0;
        let at = toy.levels("matching", step);
        if step % EVERY == EVERY - 1 {
            let noised = Noised::new(drawn, toy.normal(step), at);
            let [fake, critic] = [fake.model.valid(), critic.model.valid()];
            let [fake, critic] = [&fake, &critic].map(|network| Told { network, from });
            let told = critic.logits(noised.x.clone(), &noised.at, &COND);
            let denoisers = (&toy.process.denoiser(score), &toy.process.denoiser(&fake));
            let losses = matching(&noised, denoisers, &COND) + adversarial.generator(told) * of_critic;
            toy.step(&mut generator, losses, (step, steps))?;
        } else {
            let noised = Noised::new(drawn.detach(), toy.normal(step), at.clone());
            let told = Told { network: &fake.model, from };
            let losses = Objective::default().losses(toy.process.denoiser(&told), &noised, &COND);
            toy.step(&mut fake, losses, (step, steps))?;
            let real = Noised::new(data, toy.normal(steps + step), at);
            let told = Told { network: &critic.model, from };
            let [of_drawn, of_data] = [&noised, &real].map(|x| told.logits(x.x.clone(), &x.at, &COND));
            toy.step(&mut critic, adversarial.critic(of_drawn, of_data), (step, steps))?;
        }
    }
    eprintln!("distribution matching: {} steps", toy.steps);
    Ok(generator.average)
}

/// How far two clouds of the moons themselves are apart.
pub fn least(toy: &Toy) -> Result<f64> {
    let cloud = |group| moons(canvas_core::seed_for(toy.seed, "measured"), group, toy.points);
    Ok(canvas_examples::assignment::shortest(&cloud(1), &cloud(0))?.1)
}

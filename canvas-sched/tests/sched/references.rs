//! Schedules and grids against those of diffusers (tools/fixtures_grids.py), both in `f64`.

use crate::close;
use canvas_core::{Level, NoiseSchedule};
use canvas_sched::schedule::{Flow, Vp, betas, mu};
use canvas_sched::{Between, Ends, Final, Over, Round, Rule, Spacing, Timesteps, Told, Transform, by_name};
use serde_json::Value;

fn fixture() -> Value {
    let text = include_str!("../fixtures/grids.json");
    serde_json::from_str(text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[track_caller]
fn same(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (&found, &expected) in found.iter().zip(expected) {
        close(found, expected, tolerance * expected.abs().max(1e-3));
    }
}

#[test]
fn tables_are_those_of_diffusers() {
    let fixture = fixture();
    let scaled = betas::scaled_linear(1000, 8.5e-4, 0.012);
    for (name, betas) in [
        ("linear", betas::linear(1000, 1e-4, 0.02)),
        ("scaled_linear", scaled.clone()),
        ("squaredcos_cap_v2", betas::cosine(1000, 0.999)),
        ("laplace", betas::laplace(1000, 0.999)),
        ("sigmoid", betas::sigmoid(1000, 1e-4, 0.02)),
        ("exp", betas::exponential(1000, 0.999)),
        ("zero_snr", betas::rescale_zero_terminal_snr(&scaled)),
    ] {
        let table = &fixture["tables"][name];
        let vp = Vp::from_betas(&betas);
        let indices: Vec<usize> = numbers(&fixture["indices"]).iter().map(|&i| i as usize).collect();
        let found: Vec<f64> = indices.iter().map(|&i| betas[i]).collect();
        same(&found, &numbers(&table["betas"]), 1e-11);
        let found: Vec<f64> = indices.iter().map(|&i| vp.training_step(i).alpha.powi(2)).collect();
        same(&found, &numbers(&table["alphas_cumprod"]), 1e-11);
    }
}

#[test]
fn zero_terminal_snr_is_exactly_that() {
    let fixture = fixture();
    let vp = Vp::scaled_linear(1000).zero_terminal_snr();
    let other = Vp::from_betas(&betas::rescale_zero_terminal_snr(&betas::scaled_linear(1000, 8.5e-4, 0.012)));
    for vp in [&vp, &other] {
        let last = vp.level(1.0);
        assert_eq!((last.alpha, last.sigma, last.time), (0.0, 1.0, 0.999));
        assert_eq!(vp.level_at_ratio(f64::INFINITY), last);
    }
    for i in 0..1000 {
        close(vp.training_step(i).alpha, other.training_step(i).alpha, 1e-12);
    }
    // Between the last two training steps: finite, falling to exactly no signal.
    let alphas: Vec<f64> = (0..=100).map(|i| vp.level(0.999 + f64::from(i) * 1e-5).alpha).collect();
    assert!(alphas.windows(2).all(|pair| pair[0] > pair[1]), "{alphas:?}");
    // Euler, DPM++ and UniPC of diffusers stop at 2^-24.
    let clamped = vp.with_last_alpha_bar(2f64.powi(-24)).unwrap();
    let last = clamped.level(1.0);
    close(last.sigma / last.alpha, 4096.0, 1e-3);
    let expected = numbers(&fixture["tables"]["zero_snr_euler"]["alphas_cumprod"]);
    close(last.alpha.powi(2), *expected.last().unwrap(), 1e-20);
    assert!(Vp::from_alphas_cumprod(&[0.9, 0.9]).is_err() && Vp::from_alphas_cumprod(&[0.0]).is_err());
}

fn steps_of(levels: &[Level]) -> Vec<f64> {
    levels[..levels.len() - 1].iter().map(|level| level.time * 1000.0).collect()
}

#[test]
fn training_steps_are_those_of_diffusers() {
    let (fixture, vp) = (fixture(), Vp::scaled_linear(1000));
    for (name, rule) in [
        ("ddim linspace", Rule::Linspace),
        ("ddim leading", Rule::Leading { offset: 1 }),
        ("ddim trailing", Rule::Trailing),
        ("dpm linspace", Rule::LinspaceOpen),
        ("dpm leading", Rule::LeadingOpen { offset: 1 }),
        ("dpm trailing", Rule::Trailing),
    ] {
        for (count, expected) in fixture["spacings"][name].as_object().unwrap() {
            let levels = Timesteps::training(1000, rule).levels(&vp, count.parse().unwrap()).unwrap();
            same(&steps_of(&levels), &numbers(expected), 1e-9);
        }
    }
    let cosine = Vp::cosine(1000);
    let used = cosine.steps_above(-5.1);
    for (count, expected) in fixture["spacings"]["dpm clipped"].as_object().unwrap() {
        let grid = Timesteps::new(Spacing::Training { rule: Rule::LinspaceOpen, train: 1000, used });
        same(&steps_of(&grid.levels(&cosine, count.parse().unwrap()).unwrap()), &numbers(expected), 1e-9);
    }
}

fn ratios(levels: &[Level]) -> Vec<f64> {
    levels.iter().map(|level| level.sigma / level.alpha).collect()
}

/// Levels and told times of `steps` steps against a grid of diffusers' VP classes.
#[track_caller]
fn same_grid(name: &str, grid: &Timesteps, schedule: &dyn NoiseSchedule, steps: usize) {
    println!("{name}");
    let fixture = &fixture()["vp"][name];
    let levels = grid.levels(schedule, steps).unwrap();
    same(&ratios(&levels), &numbers(&fixture["sigmas"]), 1e-9);
    same(&steps_of(&levels), &numbers(&fixture["timesteps"]), 1e-9);
}

const LOG: Told = Told { train: 1000, between: Between::LogRatio, round: Round::Keep };

fn moved(name: &str, grid: Timesteps) -> Timesteps {
    match name {
        "" => grid,
        "karras" => grid.karras(),
        "exponential" | "lu" => grid.exponential(),
        _ => grid.beta(),
    }
}

#[test]
fn vp_grids_are_those_of_diffusers() {
    let vp = Vp::scaled_linear(1000);
    for name in ["", "karras", "exponential", "beta"] {
        for (spacing, grid) in [
            ("linspace", Timesteps::linspace(1000)),
            ("leading", Timesteps::leading(1000, 1)),
            ("trailing", Timesteps::trailing(1000)),
        ] {
            let told = if name.is_empty() { Told { between: Between::Schedule, ..LOG } } else { LOG };
            let grid = moved(name, grid).told(told);
            same_grid(format!("euler {spacing} {name}").trim(), &grid, &vp, 7);
        }
        let full = Ends::Times { first: 1.0, last: 0.001 };
        let grid = moved(name, Timesteps::training(1000, Rule::LinspaceOpen)).between(full);
        // Karras' steps are rounded; the others are cut off when they become integers.
        let round = if name == "karras" { Round::Nearest } else { Round::Down };
        let told = if name.is_empty() { Told { between: Between::Schedule, ..LOG } } else { LOG };
        let grid = grid.told(Told { round, ..told }).ending(Final::At(0.001));
        same_grid(format!("dpm {name}").trim(), &grid, &vp, 7);
        same_grid(format!("unipc {name}").trim(), &grid, &vp, 7);
    }
    let lu = by_name::grid("linspace-open lu").unwrap().told(Told { round: Round::Nearest, ..LOG });
    same_grid("dpm lu", &lu, &vp, 7);
    let own = Spacing::Sigmas { of: Over::Ratio, sigmas: vec![10.0, 4.0, 1.0, 0.1] };
    same_grid("euler sigmas", &Timesteps::new(own).told(LOG), &vp, 4);
}

#[track_caller]
fn same_flow(name: &str, grid: &Timesteps, flow: Flow, steps: usize) {
    println!("{name}");
    let fixture = &fixture()["flow"][name];
    let levels = grid.levels(&flow, steps).unwrap();
    let sigmas: Vec<f64> = levels.iter().map(|level| level.sigma).collect();
    same(&sigmas, &numbers(&fixture["sigmas"]), 1e-9);
    same(&steps_of(&levels), &numbers(&fixture["timesteps"]), 1e-9);
}

#[test]
fn flow_grids_are_those_of_diffusers() {
    for name in ["", "karras", "exponential", "beta"] {
        // diffusers shifts the default grid twice: its last time is shifted already.
        let twice = Timesteps::new(Spacing::Linspace { first: 1.0, last: 0.003 / 1.002 });
        let grid = moved(name, twice).over(Over::Flow);
        same_flow(format!("shift 3 {name}").trim(), &grid, Flow { shift: 3.0 }, 5);
        let grid = moved(name, Timesteps::uniform().terminal(0.02)).over(Over::Flow);
        same_flow(format!("qwen {name}").trim(), &grid, Flow::exponential(0.834325), 4);
    }
    same_flow("cogview4", &Timesteps::uniform(), Flow::linear(mu::cogview4(4096)), 6);
    let grid = Timesteps::new(Spacing::LinearQuadratic { threshold: 0.025 });
    same_flow("linear quadratic", &grid, Flow::default(), 9);
    // DPM++ on flow sigmas: the same levels, told times cut to whole numbers.
    let fixture = &fixture()["vp"]["dpm flow"];
    let told = Told { train: 1000, between: Between::Schedule, round: Round::Down };
    let grid = Timesteps::new(Spacing::Open { first: 0.999, last: 0.0 }).told(told);
    let levels = grid.levels(&Flow { shift: 3.0 }, 7).unwrap();
    let sigmas: Vec<f64> = levels.iter().map(|level| level.sigma).collect();
    same(&sigmas, &numbers(&fixture["sigmas"]), 1e-9);
    same(&steps_of(&levels), &numbers(&fixture["timesteps"]), 1e-9);
}

/// notes/models.md 2.3 and 2.4.
#[test]
fn shifts_are_the_published_ones() {
    close(mu::flux(4096), 1.15, 1e-12);
    close(mu::flux(1024), 0.63, 1e-12);
    close(mu::flux2(4096, 50), 2.02335, 1e-5);
    close(mu::flux2(4096, 4), 2.29118, 1e-5);
    close(mu::flux2(6400, 4), 0.00016927 * 6400.0 + 0.45666666, 1e-12);
    close(mu::qwen_image(6889), 0.834325, 1e-6);
    close(mu::cogview4(4096), 3.25, 1e-12);
    let flux2 = Timesteps::uniform().levels(&Flow::exponential(mu::flux2(4096, 4)), 4).unwrap();
    for (level, expected) in flux2.iter().zip([1.0, 0.967384, 0.908144, 0.7672, 0.0]) {
        close(level.sigma, expected, 1e-6);
    }
    let double = Timesteps::new(Spacing::Linspace { first: 1.0, last: 0.003 / 1.002 });
    for (level, expected) in double
        .levels(&Flow { shift: 3.0 }, 5)
        .unwrap()
        .iter()
        .zip([1.0, 0.900359, 0.751121, 0.502985, 0.008929])
    {
        close(level.sigma, expected, 1e-6);
    }
}

#[test]
fn comfyui_and_published_lists() {
    let vp = Vp::scaled_linear(1000);
    let steps = |name: &str, count| steps_of(&by_name::grid(name).unwrap().levels(&vp, count).unwrap());
    same(&steps("simple", 3), &[999.0, 666.0, 333.0], 1e-9); // -(1 + int(i 1000 / 3))
    same(&steps("sgm-uniform", 3), &[999.0, 666.0, 333.0], 1e-9);
    same(&steps("ddim-uniform", 4), &[751.0, 501.0, 251.0, 1.0], 1e-9);
    // numpy.rint(scipy.stats.beta.ppf(1 - i / 4, .6, .6) * 999)
    same(&steps("beta", 4), &[999.0, 823.0, 500.0, 176.0], 1e-9);
    let ays = by_name::grid("ays-sd").unwrap();
    let ten = ratios(&ays.levels(&vp, 10).unwrap());
    let listed = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0];
    ten.iter().zip(listed).for_each(|(&found, expected)| close(found, expected, 3e-3));
    // Twice the steps: every other level is the same, those between are geometric means.
    let twenty = ratios(&ays.levels(&vp, 20).unwrap());
    for i in 0..9 {
        close(twenty[2 * i], ten[i], 1e-9);
        close(twenty[2 * i + 1], (ten[i] * ten[i + 1]).sqrt(), 1e-9);
    }
    let kl = Timesteps::linspace(1000).transformed(Transform::KlOptimal);
    let kl = ratios(&kl.levels(&vp, 3).unwrap());
    close(kl[1], (0.5 * (kl[0].atan() + kl[2].atan())).tan(), 1e-12);
}

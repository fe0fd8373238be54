use crate::close;
use canvas_core::{Level, NoiseSchedule};
use canvas_sched::schedule::{Edm, Flow, Vp};
use canvas_sched::{Ends, Final, Grid, Over, Spacing, Timesteps, Transform, by_name, start};

fn indices(grid: Timesteps, steps: usize) -> Vec<f64> {
    let levels = grid.levels(&Vp::scaled_linear(1000), steps).unwrap();
    assert_eq!(levels.len(), steps + 1);
    assert_eq!((levels[steps].alpha, levels[steps].sigma), (1.0, 0.0));
    levels[..steps].iter().map(|level| (level.time * 1e6).round() / 1e3).collect()
}

#[track_caller]
fn sigmas(levels: &[Level], expected: &[f64]) {
    assert_eq!(levels.len(), expected.len());
    levels.iter().zip(expected).for_each(|(level, &sigma)| close(level.sigma, sigma, 1.5e-6));
}

#[test]
fn spacings_are_those_of_diffusers() {
    assert_eq!(indices(Timesteps::leading(1000, 0), 4), [750.0, 500.0, 250.0, 0.0]);
    // The published settings of Stable Diffusion start at 958 with 30 steps and at 981 with 50.
    assert_eq!(indices(Timesteps::leading(1000, 1), 30)[0], 958.0);
    assert_eq!(indices(Timesteps::leading(1000, 1), 50)[0], 981.0);
    assert_eq!(indices(Timesteps::trailing(1000), 4), [999.0, 749.0, 499.0, 249.0]);
    assert_eq!(indices(Timesteps::trailing(1000), 3), [999.0, 666.0, 332.0]);
    assert_eq!(indices(Timesteps::linspace(1000), 4), [999.0, 666.0, 333.0, 0.0]);
    assert_eq!(indices(Timesteps::linspace(1000), 3), [999.0, 499.5, 0.0]);
    assert_eq!(indices(Timesteps::linspace(1000), 1), [999.0]);
    assert_eq!(indices(Timesteps::uniform(), 4), [999.0, 749.0, 499.0, 249.0]);
}

/// notes/models.md 2.3 and 2.4: Flux at 1024 px and 512 px, schnell, and SD3's shift applied once.
#[test]
fn flow_grids_are_the_published_ones() {
    let flux = |mu: f64| Timesteps::uniform().levels(&Flow { shift: mu.exp() }, 4).unwrap();
    sigmas(&flux(1.15), &[1.0, 0.904531, 0.759511, 0.512844, 0.0]);
    sigmas(&flux(0.63), &[1.0, 0.849235, 0.652489, 0.384945, 0.0]);
    sigmas(&Timesteps::uniform().levels(&Flow::default(), 4).unwrap(), &[1.0, 0.75, 0.5, 0.25, 0.0]);
    let sd3 = Timesteps::linspace(1000).levels(&Flow { shift: 3.0 }, 5).unwrap();
    sigmas(&sd3, &[1.0, 0.90012, 0.750375, 0.500999, 0.002994, 0.0]);
}

/// Karras et al., 2022, equation 5; the numbers are the formula's, worked out apart.
#[test]
fn the_edm_grid_is_equation_5() {
    let levels = Timesteps::edm().levels(&Edm::default(), 18).unwrap();
    for (i, level) in levels[..18].iter().enumerate() {
        let (high, low) = (80f64.powf(1.0 / 7.0), 0.002f64.powf(1.0 / 7.0));
        close(level.sigma, (high + i as f64 / 17.0 * (low - high)).powi(7), 1e-9);
    }
    assert_eq!((levels[18].alpha, levels[18].sigma), (1.0, 0.0));
}

#[test]
fn transforms_keep_the_ends_and_fall() {
    for name in ["linear", "scaled-linear", "cosine", "edm"] {
        let schedule = by_name::schedule(name).unwrap();
        let grid = Timesteps::linspace(1000);
        let plain = grid.levels(&schedule, 12).unwrap();
        for moved in [
            grid.clone().karras().levels(&schedule, 12).unwrap(),
            grid.clone().exponential().levels(&schedule, 12).unwrap(),
        ] {
            let ratios: Vec<f64> = moved.iter().map(|level| level.sigma / level.alpha).collect();
            assert!(ratios.windows(2).all(|pair| pair[0] > pair[1]), "{name}: {ratios:?}");
            for end in [0, 11, 12] {
                close(moved[end].sigma, plain[end].sigma, 1e-9 * plain[end].sigma);
                close(moved[end].time, plain[end].time, 1e-9);
            }
        }
        let even = grid.exponential().levels(&schedule, 12).unwrap();
        let lambda: Vec<f64> = even[..12].iter().map(|level| level.half_log_snr()).collect();
        let hops: Vec<f64> = lambda.windows(2).map(|pair| pair[1] - pair[0]).collect();
        hops.iter().for_each(|&hop| close(hop, hops[0], 1e-9));
    }
}

fn refused(grid: &Timesteps, schedule: &dyn NoiseSchedule, steps: usize, words: &str) {
    let message = grid.levels(schedule, steps).unwrap_err().to_string();
    assert!(message.contains(words), "{message}");
}

#[test]
fn wrong_grids_are_refused_with_a_reason() {
    let (flow, vp) = (&Flow::default(), &Vp::linear(1000));
    let uniform = Timesteps::uniform;
    refused(&uniform(), flow, 0, "at least 1 step");
    refused(&uniform().karras(), flow, 4, "karras over sigma/alpha needs a finite one");
    refused(&uniform().beta(), flow, 4, "transform over the flow sigma");
    refused(&Timesteps::edm(), flow, 4, "level 3 of 4 has no noise");
    refused(&Timesteps::edm().karras(), vp, 4, "level 3 of 4 has no noise");
    refused(&Timesteps::trailing(1000), vp, 1001, "1001 steps on a grid of 1000 training steps");
    refused(&Timesteps::leading(1000, 1), vp, 1000, "time 0 must lie in [0, 1], found 1.001");
    refused(&Timesteps::new(Spacing::Times(vec![0.2, 0.7])), vp, 2, "wrong way: level 1 has sigma/alpha");
    refused(
        &Timesteps::new(Spacing::Times(vec![0.2, 0.1])),
        vp,
        3,
        "3 steps were asked of a list that has 2",
    );
    refused(&Timesteps::new(Spacing::Times(vec![f64::NAN])), vp, 1, "time 0 must lie in [0, 1], found NaN");
    let sigmas = |sigmas: &[f64]| Spacing::Sigmas { of: Over::Ratio, sigmas: sigmas.to_vec() };
    refused(
        &Timesteps::new(sigmas(&[900.0, 1.0])),
        vp,
        2,
        "noise level 0 has sigma/alpha = 900, and the schedule",
    );
    refused(
        &uniform().transformed(Transform::Karras { rho: 0.0 }),
        vp,
        4,
        "karras' rho must be finite and greater",
    );
    refused(&uniform().terminal(1.0), flow, 4, "the terminal must be in (0, 1), found 1");
    let backwards = uniform().karras().between(Ends::Times { first: 0.1, last: 0.9 });
    refused(&backwards, vp, 4, "the grid goes the wrong way: level 3");
    // The same over the flow sigma starts at pure noise.
    let levels = uniform().karras().over(Over::Flow).levels(flow, 4).unwrap();
    assert_eq!((levels[0].sigma, levels[3].sigma), (1.0, 0.25));
}

#[test]
fn ends_are_as_asked() {
    let vp = Vp::linear(1000);
    let grid = Timesteps::linspace(1000);
    let end = |last| *grid.clone().ending(last).levels(&vp, 5).unwrap().last().unwrap();
    assert_eq!((end(Final::Clean).alpha, end(Final::Clean).sigma), (1.0, 0.0));
    assert_eq!(end(Final::At(0.001)), vp.training_step(0));
    assert_eq!(end(Final::Repeat), vp.training_step(0));
    assert_eq!(grid.clone().ending(Final::Nothing).levels(&vp, 5).unwrap().len(), 5);
    let own = grid.levels(&vp, 5).unwrap();
    let list: &dyn Grid = &own;
    assert_eq!(list.levels(&vp, 5).unwrap(), own);
    assert!(list.levels(&vp, 6).unwrap_err().to_string().contains("a list that has 5"));
}

#[test]
fn a_strength_picks_the_last_hops() {
    let levels = Timesteps::uniform().levels(&Flow::default(), 50).unwrap();
    for (strength, hops) in [(1.0, 50), (0.8, 40), (0.75, 37), (0.02, 1)] {
        assert_eq!(start(&levels, strength).unwrap(), &levels[50 - hops..]);
    }
    for wrong in [0.0, -0.1, 1.01, f64::NAN, 0.019] {
        assert!(start(&levels, wrong).unwrap_err().to_string().contains("the strength must be"), "{wrong}");
    }
}

use crate::close;
use canvas_core::Level;
use canvas_sched::schedule::{Edm, Flow, Vp};
use canvas_sched::{Timesteps, by_name};

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

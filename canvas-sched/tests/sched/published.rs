//! Scheduler files as published beside their models, with what diffusers 0.42.1 makes of them.

use super::close;
use canvas_core::Level;
use canvas_sched::diffusers::{Ask, Options, Scheduler};

fn read(text: &str) -> Scheduler<4> {
    Scheduler::from_json(text, &Options::default()).unwrap()
}

/// Told times at the first, the second, the middle and the last level, in diffusers' single precision.
#[track_caller]
fn told(scheduler: &Scheduler<4>, levels: &[Level], wanted: [f64; 4]) {
    let steps = levels.len() - 1;
    for (index, wanted) in [0, 1, steps / 2, steps - 1].into_iter().zip(wanted) {
        let told = scheduler.prediction.coefficients(levels[index]).time * scheduler.steps_per_time;
        close(told, wanted, 1e-4);
    }
}

/// `of` the same levels.
#[track_caller]
fn at(levels: &[Level], of: fn(&Level) -> f64, wanted: [f64; 4]) {
    let steps = levels.len() - 1;
    for (index, wanted) in [0, 1, steps / 2, steps - 1].into_iter().zip(wanted) {
        close(of(&levels[index]), wanted, 2e-6 * wanted.max(0.05));
    }
    assert_eq!(levels[steps].sigma, 0.0);
}

fn ratio(level: &Level) -> f64 {
    level.sigma / level.alpha
}

fn sigma(level: &Level) -> f64 {
    level.sigma
}

#[test]
fn stable_diffusion_15() {
    let scheduler = read(
        r#"{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
        "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
        "clip_sample": false}"#,
    );
    let levels = scheduler.levels(50).unwrap();
    // diffusers lists 961 twice, for the second evaluation of the first hop.
    told(&scheduler, &levels, [981.0, 961.0, 481.0, 1.0]);
    close(ratio(&levels[50]), 0.0291671582, 1e-9); // the first training step
}

#[test]
fn stable_diffusion_21() {
    let scheduler = read(
        r#"{"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "num_train_timesteps": 1000, "prediction_type": "v_prediction", "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null}"#,
    );
    told(&scheduler, &scheduler.levels(50).unwrap(), [981.0, 961.0, 481.0, 1.0]);
    let level = Level { time: 0.5, alpha: 0.6, sigma: 0.8 };
    let read = scheduler.prediction.coefficients(level);
    assert_eq!((read.skip, read.out), (0.6, -0.8));
}

#[test]
fn sdxl() {
    let scheduler = read(
        r#"{"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
        "sample_max_value": 1.0, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
        "timestep_spacing": "leading", "trained_betas": null, "use_karras_sigmas": false}"#,
    );
    let levels = scheduler.levels(30).unwrap();
    told(&scheduler, &levels, [958.0, 925.0, 463.0, 1.0]);
    at(&levels, ratio, [11.476850509643555, 9.543585777282715, 1.4315611124038696, 0.04131447896361351]);
    close(scheduler.start_scale(&levels) / levels[0].alpha, 11.520334243774414, 1e-5);
}

#[test]
fn sdxl_turbo() {
    let scheduler = read(
        r#"{"_class_name": "EulerAncestralDiscreteScheduler", "_diffusers_version": "0.24.0.dev0",
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
        "sample_max_value": 1.0, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
        "timestep_spacing": "trailing", "trained_betas": null}"#,
    );
    let levels = scheduler.levels(4).unwrap();
    told(&scheduler, &levels, [999.0, 749.0, 499.0, 249.0]);
    at(&levels, ratio, [14.614646911621094, 4.081730842590332, 1.6128870248794556, 0.6932054162025452]);
    assert_eq!(scheduler.levels(1).unwrap()[0], levels[0]);
}

#[test]
fn lcm_lora() {
    let scheduler = read(
        r#"{"_class_name": "LCMScheduler", "_diffusers_version": "0.22.0.dev0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995, "num_train_timesteps": 1000,
        "original_inference_steps": 50, "prediction_type": "epsilon", "rescale_betas_zero_snr": false,
        "sample_max_value": 1.0, "set_alpha_to_one": true, "steps_offset": 1, "thresholding": false,
        "timestep_scaling": 10.0, "timestep_spacing": "leading", "trained_betas": null}"#,
    );
    told(&scheduler, &scheduler.levels(4).unwrap(), [999.0, 759.0, 499.0, 259.0]);
}

#[test]
fn stable_video_diffusion() {
    let scheduler = read(
        r#"{"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.24.0.dev0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "v_prediction",
        "set_alpha_to_one": false, "sigma_max": 700.0, "sigma_min": 0.002, "skip_prk_steps": true,
        "steps_offset": 1, "timestep_spacing": "leading", "timestep_type": "continuous",
        "trained_betas": null, "use_karras_sigmas": true}"#,
    );
    let levels = scheduler.levels(25).unwrap();
    told(
        &scheduler,
        &levels,
        [1.6377700567245483, 1.575530767440796, 0.6866568922996521, -1.553652048110962],
    );
    at(&levels, ratio, [700.0, 545.729248046875, 15.589967727661133, 0.0020000000949949026]);
}

#[test]
fn stable_diffusion_3() {
    for version in ["0.29.0.dev0", "0.31.0.dev0"] {
        let file = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "VERSION",
            "num_train_timesteps": 1000, "shift": 3.0}"#;
        let scheduler = read(&file.replace("VERSION", version));
        let levels = scheduler.levels(28).unwrap();
        told(&scheduler, &levels, [1000.0, 987.380615234375, 737.0558471679688, 8.928571701049805]);
        at(&levels, sigma, [1.0, 0.9873806238174438, 0.7370558381080627, 0.008928571827709675]);
        assert_eq!(scheduler.mu(4096), None);
    }
}

/// What the pipelines of Flux and Qwen-Image ask for: sigmas from 1 to 1/N.
fn uniform(steps: usize) -> Vec<f64> {
    (0..steps).map(|i| 1.0 - i as f64 / steps as f64).collect()
}

#[test]
fn flux() {
    let scheduler = read(
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.30.0.dev0",
        "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
        "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": true}"#,
    );
    assert_eq!((scheduler.mu(256), scheduler.mu(4096)), (Some(0.5), Some(1.15)));
    let sigmas = uniform(28);
    let ask = Ask { mu: scheduler.mu(4096), sigmas: Some(&sigmas), ..Ask::from(28) };
    let levels = scheduler.levels(ask).unwrap();
    told(&scheduler, &levels, [1000.0, 988.4086303710938, 759.5109252929688, 104.72090148925781]);
    at(&levels, sigma, [1.0, 0.988408625125885, 0.7595109343528748, 0.10472089797258377]);
}

#[test]
fn qwen_image() {
    let scheduler = read(
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.34.0.dev0",
        "base_image_seq_len": 256, "base_shift": 0.5, "invert_sigmas": false, "max_image_seq_len": 8192,
        "max_shift": 0.9, "num_train_timesteps": 1000, "shift": 1.0, "shift_terminal": 0.02,
        "stochastic_sampling": false, "time_shift_type": "exponential", "use_beta_sigmas": false,
        "use_dynamic_shifting": true, "use_exponential_sigmas": false, "use_karras_sigmas": false}"#,
    );
    let sigmas = uniform(50);
    let ask = Ask { mu: scheduler.mu(4096), sigmas: Some(&sigmas), ..Ask::from(50) };
    let levels = scheduler.levels(ask).unwrap();
    told(&scheduler, &levels, [1000.0, 989.700927734375, 660.0855712890625, 19.999980926513672]);
    at(&levels, sigma, [1.0, 0.9897009134292603, 0.6600855588912964, 0.019999980926513672]);
}

#[test]
fn wan() {
    let scheduler = read(
        r#"{"_class_name": "UniPCMultistepScheduler", "_diffusers_version": "0.33.0.dev0", "beta_end": 0.02,
        "beta_schedule": "linear", "beta_start": 0.0001, "disable_corrector": [],
        "dynamic_thresholding_ratio": 0.995, "final_sigmas_type": "zero", "flow_shift": 3.0,
        "lower_order_final": true, "num_train_timesteps": 1000, "predict_x0": true,
        "prediction_type": "flow_prediction", "rescale_betas_zero_snr": false, "sample_max_value": 1.0,
        "solver_order": 2, "solver_p": null, "solver_type": "bh2", "steps_offset": 0, "thresholding": false,
        "timestep_spacing": "linspace", "trained_betas": null, "use_beta_sigmas": false,
        "use_exponential_sigmas": false, "use_flow_sigmas": true, "use_karras_sigmas": false}"#,
    );
    let levels = scheduler.levels(50).unwrap();
    told(&scheduler, &levels, [999.0, 993.0, 750.0, 60.0]);
    at(&levels, sigma, [0.9999989867210388, 0.9932500720024109, 0.7503747940063477, 0.060405388474464417]);
}

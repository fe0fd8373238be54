//! `scheduler_config.json` as it is found in the wild: empty, published, and with mistakes in it.

use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Backbone, Denoiser, Preconditioned, Run, Seeded, Unconditional};
use canvas_sched::diffusers::{Ask, AskError, CLASSES, DiffusersError, Options, Scheduler};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn read(config: &Value) -> Scheduler<2> {
    Scheduler::from_json(&config.to_string(), &Options::default()).unwrap()
}

/// The message of a configuration that is refused.
#[track_caller]
fn refused(text: &str) -> String {
    Scheduler::<2>::from_json(text, &Options::default()).expect_err(text).to_string()
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message:?}"));
}

struct Net;

impl Backbone<2> for Net {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        ((x * 1.3).sin() + time.reshape([-1, 1]).cos()) * 0.5
    }
}

#[test]
fn every_class_runs_with_its_defaults() {
    for &class in CLASSES {
        let scheduler = read(&json!({ "_class_name": class }));
        let levels = scheduler.levels(20).unwrap_or_else(|error| panic!("{class}: {error}"));
        assert_eq!(levels.len(), 21, "{class}");
        let network = Preconditioned { backbone: &Net, prediction: &*scheduler.prediction };
        let unit = TensorData::new(vec![-1.5f64, 0.1, 0.7, 2.0], [2, 2]);
        let x = Tensor::<2>::from_data(unit, (&Device::flex(), DType::F64)) * scheduler.start_scale(&levels);
        let mut noise = Seeded::new(0, [0, 1]);
        let run = Run::new(&scheduler.sampler, &scheduler.schedule, &levels, &mut noise)
            .unwrap_or_else(|error| panic!("{class}: {error}"));
        let x = run.sample(|x, level| network.denoise(x, &[level], &Unconditional(2)), x);
        assert!(x.to_data().iter::<f64>().all(f64::is_finite), "{class}: {x}");
    }
}

#[test]
fn a_grid_is_handed_out_where_it_is_one() {
    for &class in CLASSES {
        let scheduler = read(&json!({ "_class_name": class }));
        match scheduler.timesteps(20).unwrap() {
            Some((schedule, timesteps)) => {
                assert_eq!(
                    timesteps.levels(&schedule, 20).unwrap(),
                    scheduler.levels(20).unwrap(),
                    "{class}"
                );
            }
            None => assert!(class.contains("Inverse"), "{class}"),
        }
    }
    let odd = read(&json!({"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}));
    assert!(odd.timesteps(20).unwrap().is_none());
}

#[test]
fn a_typo_names_the_field_and_lists_the_known_ones() {
    let message = refused(r#"{"_class_name": "DDIMScheduler", "beta_strat": 0.1}"#);
    says(&message, &["DDIMScheduler has no field beta_strat; it has ", "beta_start, ", "timestep_spacing"]);
    assert!(!message.contains("use_karras_sigmas"), "{message}");
}

#[test]
fn a_wrong_value_names_field_expected_and_found() {
    for (class, field, value, expected, found) in [
        ("DDIMScheduler", "beta_schedule", json!("cosine"), "one of linear, scaled_linear,", "\"cosine\""),
        ("DDIMScheduler", "num_train_timesteps", json!(0), "an integer within [1,", "found 0"),
        ("DDIMScheduler", "num_train_timesteps", json!("1000"), "an integer within [1,", "\"1000\""),
        ("DDIMScheduler", "beta_end", json!(true), "a number within [", "found true"),
        ("DDIMScheduler", "beta_end", json!(2), "a number within [", "found 2"),
        ("DDIMScheduler", "clip_sample", json!("yes"), "true or false", "\"yes\""),
        ("DDIMScheduler", "trained_betas", json!([0.1, "a"]), "a list of numbers", "[0.1,\"a\"]"),
        ("DDIMScheduler", "trained_betas", json!([0.1, 1.5]), "strictly between 0 and 1", "1.5 at 1"),
        ("PNDMScheduler", "prediction_type", json!("sample"), "one of epsilon, v_prediction", "\"sample\""),
        ("UniPCMultistepScheduler", "solver_order", json!(0), "an integer within [1,", "found 0"),
        ("UniPCMultistepScheduler", "solver_p", json!({}), "null", "found {}"),
        ("EDMEulerScheduler", "sigma_min", json!(100.0), "less than sigma_max (80)", "found 100"),
        ("DPMSolverMultistepScheduler", "algorithm_type", json!("dpmsolver"), "sigma_min", "zero"),
    ] {
        let message = refused(&json!({"_class_name": class, field: value}).to_string());
        let field = if field == "algorithm_type" { "final_sigmas_type" } else { field };
        says(&message, &["the configuration: ", class, &format!("field \"{field}\""), expected, found]);
    }
}

#[test]
fn a_rescaled_table_needs_two_steps() {
    let config =
        json!({"_class_name": "DDIMScheduler", "num_train_timesteps": 1, "rescale_betas_zero_snr": true});
    says(&refused(&config.to_string()), &["rescale_betas_zero_snr", "single training step"]);
}

#[test]
fn two_spacings_of_sigmas_exclude_each_other() {
    let (karras, exponential, beta) = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas");
    for (first, second) in [(karras, exponential), (karras, beta), (exponential, beta)] {
        for class in ["EulerDiscreteScheduler", "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"]
        {
            let config = json!({"_class_name": class, first: true, second: true});
            let message = refused(&config.to_string());
            says(
                &message,
                &[class, &format!("{second:?}"), &format!("expected false beside {first}, found true")],
            );
        }
    }
}

#[test]
fn what_is_no_configuration_is_said_to_be_none() {
    says(&refused("{"), &["the configuration is not a scheduler configuration", "line 1"]);
    says(&refused("[1, 2]"), &["expected an object at the top"]);
    says(&refused("{}"), &["it has no _class_name"]);
    says(&refused(r#"{"_class_name": "EulerDiscreteSheduler"}"#), &["did you mean EulerDiscreteScheduler?"]);
    says(&refused(r#"{"_class_name": "?"}"#), &["\"?\", which is not covered; covered are CMStoch"]);
    let missing = Scheduler::<2>::from_diffusers("no/such/file.json", &Options::default()).unwrap_err();
    assert!(matches!(missing, DiffusersError::Io { .. }));
    says(&missing.to_string(), &["cannot read no/such/file.json: "]);
}

#[test]
fn a_folder_holds_its_configuration() {
    let folder = std::env::temp_dir().join(format!("canvas-scheduler-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("scheduler_config.json"), r#"{"_class_name": "LCMScheduler", "beta": 1}"#)
        .unwrap();
    let message = Scheduler::<2>::from_diffusers(&folder, &Options::default()).unwrap_err().to_string();
    std::fs::remove_dir_all(&folder).unwrap();
    says(&message, &["scheduler_config.json: LCMScheduler has no field beta;"]);
}

#[test]
fn notes_and_infinities_are_read_as_python_writes_them() {
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.42.1", "_note": [1],
        "lambda_min_clipped": -Infinity, "variance_type": null}"#;
    let scheduler = Scheduler::<2>::from_json(text, &Options::default()).unwrap();
    assert_eq!(scheduler.levels(20).unwrap()[0].time, 0.999);
    let clipped = text.replace("-Infinity", "-2.0");
    let scheduler = Scheduler::<2>::from_json(&clipped, &Options::default()).unwrap();
    let first = scheduler.levels(20).unwrap()[0];
    assert!(first.half_log_snr() >= -2.0 && first.time < 0.7, "{first:?}");
    // Inside of a string it is a word.
    let message = refused(r#"{"_class_name": "LCMScheduler", "beta_schedule": "a \"-Infinity"}"#);
    says(&message, &[r#""a \"-Infinity""#]);
}

#[test]
fn what_a_run_cannot_be_asked() {
    let ask = |class: &str, steps: usize| read(&json!({ "_class_name": class })).levels(steps).unwrap_err();
    for &class in CLASSES {
        assert_eq!(ask(class, 0), AskError::NoSteps, "{class}");
    }
    for (class, most) in [
        ("DDIMScheduler", 1000),
        ("EulerAncestralDiscreteScheduler", usize::MAX),
        ("DPMSolverMultistepScheduler", 1000),
        ("LCMScheduler", 50),
        ("TCDScheduler", 50),
        ("CMStochasticIterativeScheduler", 40),
    ] {
        if most == usize::MAX {
            continue; // its linspace is not rounded
        }
        assert_eq!(read(&json!({ "_class_name": class })).levels(most).unwrap().len(), most + 1);
        let message = ask(class, most + 1).to_string();
        says(
            &message,
            &[&format!("{} steps were asked of {class}, which has at most {most}, as many", most + 1)],
        );
    }
    says(&ask("PNDMScheduler", 3).to_string(), &["needs at least 4: skip_prk_steps is off"]);
    let flux = read(&json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true}));
    assert_eq!(flux.levels(4), Err(AskError::NoMu));
    let euler = read(&json!({"_class_name": "EulerDiscreteScheduler"}));
    let list = |sigmas| euler.levels(Ask { sigmas: Some(sigmas), ..Ask::from(0) }).unwrap_err().to_string();
    assert_eq!(list(&[3.0, 4.0, 0.0]), "sigmas: entry 1 is 4, expected less than the entry before");
    assert_eq!(list(&[3.0, -4.0]), "sigmas: entry 1 is -4, expected a finite number, not negative");
    let steps = euler.levels(Ask { timesteps: Some(&[1000.0]), ..Ask::from(0) }).unwrap_err().to_string();
    assert_eq!(steps, "step 0 of the run is training step 1000, and the table has 1000 (from 0)");
    let sigmas = flux.levels(Ask { sigmas: Some(&[1.2]), mu: Some(1.0), ..Ask::from(0) }).unwrap_err();
    assert_eq!(sigmas.to_string(), "sigmas: entry 0 is 1.2, expected a flow sigma, in (0, 1]");
    let heun = read(&json!({"_class_name": "HeunDiscreteScheduler"}));
    let sigmas = heun.levels(Ask { sigmas: Some(&[2.0, 0.0]), ..Ask::from(0) }).unwrap_err();
    assert_eq!(sigmas.to_string(), "HeunDiscreteScheduler cannot be asked for sigmas");
    let offset = json!({"_class_name": "DDIMScheduler", "steps_offset": 1});
    let steps = read(&offset).levels(1000).unwrap_err().to_string();
    assert_eq!(steps, "step 0 of the run is training step 1000, and the table has 1000 (from 0)");
}

/// No field is taken for another class's by mistake, and none of another class's is honoured.
#[test]
fn every_class_reads_its_fields_and_no_others() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/diffusers_fields.json");
    let fields: BTreeMap<String, Vec<String>> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(fields.keys().eq(CLASSES));
    for (class, own) in &fields {
        let message = refused(&json!({"_class_name": class, "zzz": 1}).to_string());
        assert!(
            message.ends_with(&format!("{class} has no field zzz; it has {}", own.join(", "))),
            "{message}"
        );
        for other in fields.values().flatten().filter(|field| !own.contains(field)) {
            read(&json!({"_class_name": class, other: "anything"}));
        }
    }
}

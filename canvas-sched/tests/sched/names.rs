use canvas_sched::by_name::{self, GRIDS, PREDICTIONS, SAMPLERS, SCHEDULES, TRANSFORMS};

#[test]
fn every_listed_name_exists() {
    SAMPLERS.iter().for_each(|name| drop(by_name::sampler::<2>(name).unwrap()));
    PREDICTIONS.iter().for_each(|name| drop(by_name::prediction(name).unwrap()));
    SCHEDULES.iter().for_each(|name| drop(by_name::schedule(name).unwrap()));
    for spacing in GRIDS {
        by_name::grid(spacing).unwrap();
        TRANSFORMS.iter().for_each(|name| drop(by_name::grid(&format!("{spacing} {name}")).unwrap()));
    }
}

#[test]
fn an_unknown_name_lists_what_exists() {
    let error = by_name::sampler::<2>("DPMpp_2m").err().unwrap();
    assert_eq!(error.nearest, Some("dpmpp-2m"));
    let error = by_name::prediction("v").unwrap_err();
    assert_eq!(error.nearest, Some("velocity"));
    let error = by_name::schedule("zzz").err().unwrap().to_string();
    assert!(
        error.starts_with(r#"no schedule is called "zzz"; there are flow, linear, scaled-linear,"#),
        "{error}"
    );
    assert_eq!(by_name::grid("trailling karas").unwrap_err().nearest, Some("trailing"));
    assert_eq!(by_name::grid("trailing karas").unwrap_err().nearest, Some("karras"));
}

/// The promise: a sampler in under 40 lines of code beside its imports.
#[test]
fn a_sampler_stays_under_40_lines() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sampler");
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = |line: &&str| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("//") && !line.starts_with("use ")
        };
        let lines = text.lines().filter(code).count();
        if file.ends_with("mod.rs") {
            continue; // the list of samplers
        }
        assert!(lines < 40, "{}: {lines} lines of code", file.display());
    }
}

//! Any schedule x spacing x transform x steps x settings: no panic, no NaN, monotone, ends as promised.

use canvas_core::{Level, NoiseSchedule};
use canvas_sched::schedule::{Cosine, Edm, Flow, Gvp, Laplace, Shifted, SubVp, Ve, Vp, VpSde};
use canvas_sched::{
    Ays, Between, Ends, Final, GridSpecError, Over, Round, Rule, Spacing, Timesteps, Told, Transform,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::fmt::{Debug, Formatter};

/// A schedule that says what it is.
struct Named(String, Box<dyn NoiseSchedule>);

impl Debug for Named {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn named(schedule: impl NoiseSchedule + Debug + 'static) -> Named {
    Named(format!("{schedule:?}").chars().take(100).collect(), Box::new(schedule))
}

fn schedules() -> impl Strategy<Value = Named> {
    let table = (1..1500usize).prop_map(|steps| Vp::linear(steps.max(20)));
    prop_oneof![
        (0.01..20.0).prop_map(|shift| named(Flow { shift })),
        table.clone().prop_map(named),
        table.prop_map(|vp| named(vp.zero_terminal_snr())),
        (2..1500usize).prop_map(|steps| named(Vp::cosine(steps))),
        (1e-4..1.0, 1.5..1e4).prop_map(|(least, by)| named(Ve { sigma_min: least, sigma_max: least * by })),
        (1e-4..1.0, 1.5..1e4, 1.0..9.0).prop_map(|(least, by, rho)| named(Edm {
            sigma_min: least,
            sigma_max: least * by,
            rho
        })),
        (0.0..1.0, 2.0..30.0).prop_map(|(beta_min, beta_max)| named(VpSde { beta_min, beta_max })),
        (0.0..1.0, 2.0..30.0).prop_map(|(beta_min, beta_max)| named(SubVp(VpSde { beta_min, beta_max }))),
        Just(Gvp).prop_map(named),
        (1e-4..0.1).prop_map(|offset| named(Cosine { offset })),
        (-3.0..3.0, 0.1..3.0).prop_map(|(location, scale)| named(Laplace { location, scale })),
        (-8.0..4.0).prop_map(|shift| named(Shifted { inner: Gvp, shift })),
    ]
}

fn spacings() -> impl Strategy<Value = Spacing> {
    let rules = prop_oneof![
        Just(Rule::Linspace),
        Just(Rule::LinspaceOpen),
        (0..2usize).prop_map(|offset| Rule::Leading { offset }),
        (0..2usize).prop_map(|offset| Rule::LeadingOpen { offset }),
        Just(Rule::Trailing),
        Just(Rule::Simple),
    ];
    let shape = || 0.05..5.0;
    prop_oneof![
        Just(Spacing::Uniform),
        (0.5..=1.0, 0.0..0.5).prop_map(|(first, last)| Spacing::Linspace { first, last }),
        (0.5..=1.0, 0.0..0.5).prop_map(|(first, last)| Spacing::Open { first, last }),
        (rules, 1..3000usize, 1..3000usize).prop_map(|(rule, train, used)| Spacing::Training {
            rule,
            train,
            used
        }),
        (shape(), shape()).prop_map(|(alpha, beta)| Spacing::Beta { alpha, beta, train: 1000 }),
        (0.001..0.33).prop_map(|threshold| Spacing::LinearQuadratic { threshold }),
        Just(Spacing::Ays(Ays::Sd)),
        Just(Spacing::Ays(Ays::Svd)),
    ]
}

fn transforms() -> impl Strategy<Value = Transform> {
    prop_oneof![
        Just(Transform::None),
        (0.1..20.0).prop_map(|rho| Transform::Karras { rho }),
        Just(Transform::Exponential),
        (0.1..5.0).prop_map(|rho| Transform::Polyexponential { rho }),
        (0.05..5.0, 0.05..5.0).prop_map(|(alpha, beta)| Transform::Beta { alpha, beta }),
        Just(Transform::KlOptimal),
    ]
}

fn grids() -> impl Strategy<Value = Timesteps> {
    let ends = prop_oneof![
        3 => Just(Ends::Spaced),
        1 => Just(Ends::Times { first: 1.0, last: 0.001 }),
        1 => Just(Ends::Between { high: 0.9, low: 0.01 }),
    ];
    let last = prop_oneof![
        2 => Just(Final::Clean),
        1 => Just(Final::At(0.001)),
        1 => Just(Final::Repeat),
        1 => Just(Final::Nothing)
    ];
    let between = prop_oneof![Just(Between::Schedule), Just(Between::LogRatio)];
    let round = prop_oneof![Just(Round::Keep), Just(Round::Nearest), Just(Round::Down)];
    let told = (between, round).prop_map(|(between, round)| Told { train: 100, between, round });
    let told = prop::option::of(told);
    let over = prop_oneof![Just(Over::Ratio), Just(Over::Flow)];
    let terminal = prop::option::weighted(0.2, 0.001..0.5);
    (spacings(), terminal, transforms(), over, ends, told, last).prop_map(
        |(spacing, terminal, transform, over, ends, told, last)| Timesteps {
            spacing,
            terminal,
            transform,
            over,
            ends,
            told,
            last,
        },
    )
}

fn sound(levels: &[Level]) -> Result<(), TestCaseError> {
    for level in levels {
        prop_assert!(
            level.time.is_finite() && level.alpha.is_finite() && level.sigma.is_finite(),
            "{level:?}"
        );
        prop_assert!(
            level.alpha >= 0.0 && level.sigma >= 0.0 && level.alpha + level.sigma > 0.0,
            "{level:?}"
        );
    }
    for pair in levels.windows(2) {
        let (before, after) = (pair[0].sigma / pair[0].alpha, pair[1].sigma / pair[1].alpha);
        prop_assert!(after <= before * (1.0 + 1e-9), "{pair:?}");
    }
    Ok(())
}

/// The same cases every time, so that CI fails for a change only; `PROPTEST_RNG_SEED=7` tries others.
pub fn config(cases: u32) -> ProptestConfig {
    let given = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let random = given.rng_seed == RngSeed::Random;
    ProptestConfig { rng_seed: if random { RngSeed::Fixed(0) } else { given.rng_seed }, ..given }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn grids_are_sound_or_refused(
        schedule in schedules(),
        grid in grids(),
        steps in 1..=2000usize,
        few in 1..20usize,
    ) {
        for steps in [steps, few] {
            match grid.levels(&schedule.1, steps) {
                Ok(levels) => {
                    sound(&levels)?;
                    prop_assert_eq!(levels.len(), steps + usize::from(grid.last != Final::Nothing));
                    prop_assert!(levels[..steps - 1].iter().all(|level| level.sigma > 0.0));
                    if grid.last == Final::Clean {
                        prop_assert_eq!((levels[steps].alpha, levels[steps].sigma), (1.0, 0.0));
                    }
                }
                Err(error) => {
                    let expected = matches!(
                        error,
                        GridSpecError::TooManySteps { .. }
                            | GridSpecError::PureNoise { .. }
                            | GridSpecError::NoNoise { .. }
                            | GridSpecError::BadTime { .. }
                    );
                    prop_assert!(expected, "{error}");
                }
            }
        }
    }

    #[test]
    fn schedules_are_monotone_invertible_and_have_slopes(
        schedule in schedules(),
        t in 0.001..0.999f64,
        by in 1e-3..0.5f64,
    ) {
        let schedule = schedule.1;
        let (level, later) = (schedule.level(t), schedule.level((t + by).min(1.0)));
        sound(&[later, level])?;
        prop_assert!(level.sigma / level.alpha < later.sigma / later.alpha);
        let again = schedule.level_at_ratio(level.sigma / level.alpha);
        prop_assert!((again.alpha - level.alpha).abs() < 1e-9 * level.alpha, "{again:?} {level:?}");
        prop_assert!((again.sigma - level.sigma).abs() < 1e-9 * level.sigma, "{again:?} {level:?}");
        prop_assert!((again.time - level.time).abs() < 1e-7, "{again:?} {level:?}");
        // Differences on both sides: at a corner of a table the slope is one of the two, and where the schedule
        // bends within 1e-7 it lies between them.
        let (slope, h) = (schedule.slope(t), 1e-7);
        let (before, after) = (schedule.level(t - h), schedule.level(t + h));
        for (slope, low, middle, high) in [
            (slope.0, before.alpha, level.alpha, after.alpha),
            (slope.1, before.sigma, level.sigma, after.sigma),
        ] {
            let (left, right) = ((middle - low) / h, (high - middle) / h);
            let slack = 1e-3 * (left.abs() + right.abs()) + 1e-6 * (1.0 + middle / 1e-1);
            let off = (slope - slope.clamp(left.min(right), left.max(right))).abs();
            prop_assert!(off <= slack, "slope {slope}, differences {left} and {right}");
        }
    }
}

use burn::prelude::*;
use canvas_core::{Class, Denoiser, Estimate, Evaluation, Level, per_sample, trace};
use canvas_sched::{
    Apg, Autoguidance, Cfg, CfgPp, CfgZeroStar, Clip, Composed, DynamicThreshold, Pag, Perturbed, Rescale,
    Slg, Space, Tcfg, Worse,
};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `x * label + sigma`, and the batch sizes it was asked for.
#[derive(Default)]
struct Labelled {
    calls: RefCell<Vec<usize>>,
}

impl Denoiser<3> for Labelled {
    type Cond = Class;
    fn denoise(&self, x: Tensor<3>, at: &[Level], cond: &Class) -> Estimate<3> {
        self.calls.borrow_mut().push(x.dims()[0]);
        let labels: Tensor<3> = cond.labels.clone().float().reshape([-1, 1, 1]);
        let sigma = per_sample::<3>(at, &x.device(), |level| level.sigma);
        (x * labels + sigma).into()
    }
}

fn level(sigma: f64) -> Level {
    Level { time: sigma, alpha: 1.0, sigma }
}

fn inputs() -> (Device, Tensor<3>, Class) {
    let device = Device::flex();
    let x = Tensor::from_data([[[0.5, 1.0]], [[-1.0, 0.25]], [[2.0, -3.0]]], &device);
    let cond = Class::new(&[3, 1, 4], &device);
    (device, x, cond)
}

#[track_caller]
fn same(left: Tensor<3>, right: Tensor<3>) {
    left.into_data().assert_approx_eq::<f32>(&right.into_data(), burn::tensor::Tolerance::absolute(1e-5));
}

#[test]
fn scale_1_is_the_plain_denoiser_and_calls_it_once() {
    let (device, x, cond) = inputs();
    let plain = Labelled::default().denoise(x.clone(), &[level(0.5)], &cond).x0;
    let guided = Cfg::new(Labelled::default(), Class::new(&[7], &device), 1.0);
    assert_eq!(guided.denoise(x, &[level(0.5)], &cond).x0.into_data(), plain.into_data());
    assert_eq!(*guided.pair.denoiser.calls.borrow(), [3]);
}

#[test]
fn one_call_equals_two_and_is_linear_in_the_scale() {
    let (device, x, cond) = inputs();
    let plain = Labelled::default();
    let at = [level(0.5), level(0.1), level(2.0)];
    let yes = plain.denoise(x.clone(), &at, &cond).x0;
    for nulls in [vec![7], vec![7, 8, 9]] {
        let null = Class::new(&nulls, &device);
        let spread = canvas_core::Condition::spread(&null, 3);
        let no = plain.denoise(x.clone(), &at, &spread).x0;
        for scale in [0.0, 0.5, 2.0, 7.5] {
            let guided = Cfg::new(Labelled::default(), null.clone(), scale);
            let found = guided.denoise(x.clone(), &at, &cond).x0;
            same(found, no.clone() + (yes.clone() - no.clone()) * scale);
            assert_eq!(*guided.pair.denoiser.calls.borrow(), [6], "one call of twice the batch");
        }
    }
}

#[test]
fn a_shared_level_and_a_single_condition_are_spread() {
    let (device, x, _) = inputs();
    let (yes, no) = (Class::new(&[2], &device), Class::new(&[0], &device));
    let guided = Cfg::new(Labelled::default(), no, 3.0);
    same(guided.denoise(x.clone(), &[level(0.5)], &yes).x0, x * 6.0 + 0.5);
}

#[test]
fn guidance_can_be_limited_to_a_range_per_sample() {
    let (device, x, cond) = inputs();
    let guided = Cfg::new(Labelled::default(), Class::new(&[0], &device), 2.0).within(0.2, 1.0);
    let at = [level(0.5), level(0.1), level(2.0)];
    let scales = Tensor::<3>::from_data([[[6.0]], [[1.0]], [[4.0]]], &device); // only the first is doubled
    let sigmas = Tensor::<3>::from_data([[[0.5]], [[0.1]], [[2.0]]], &device);
    same(guided.denoise(x.clone(), &at, &cond).x0, x.clone() * scales + sigmas);
    guided.denoise(x, &[level(0.1)], &cond);
    assert_eq!(*guided.pair.denoiser.calls.borrow(), [6, 3], "outside of the range one plain call is enough");
}

/// `x * label + sigma` with the label as learned variance and, if asked for, a noise estimate of its own. One
/// block, and one attention map over the last axis.
#[derive(Clone, Default)]
struct Learned {
    own_noise: bool,
}

impl Denoiser<3> for Learned {
    type Cond = Class;
    fn denoise(&self, x: Tensor<3>, at: &[Level], cond: &Class) -> Estimate<3> {
        let labels: Tensor<3> = cond.labels.clone().float().reshape([-1, 1, 1]);
        let sigma = per_sample::<3>(at, &x.device(), |level| level.sigma);
        let [batch, _, width] = x.dims();
        let map = Tensor::<4>::full([batch, 1, width, width], 0.3, &x.device());
        let map = trace::tap(|| "attention.map".into(), map).squeeze_dim::<3>(1);
        let mixed = map.matmul(x.clone().swap_dims(1, 2)).swap_dims(1, 2);
        let x0 = trace::block(|| "block".into(), mixed, |x| x.cos() * labels.clone() + sigma);
        let eps = self.own_noise.then(|| x0.clone() * 0.5 + x.clone());
        Estimate { x0, eps, variance: Some(x * 0.0 + labels) }
    }
}

type Boxed = Box<dyn Denoiser<3, Cond = Class>>;

/// Every method around a denoiser, at full strength, over a range of levels.
fn methods(net: &Learned, range: (f64, f64)) -> Vec<(&'static str, Boxed)> {
    let null = || Class::new(&[7], &Device::flex());
    let (low, high, net) = (range.0, range.1, || net.clone());
    let cfg = |scale| Cfg::new(net(), null(), scale);
    let rescale = Rescale { phi: 0.7, space: Space::Eps };
    let apg = Apg { eta: 0.3, threshold: 1.5, ..Apg::new(net(), null(), 4.0) };
    let weak = Perturbed { denoiser: net(), how: Worse::SkippedBlocks(vec!["block".into()]) };
    vec![
        ("cfg", Box::new(cfg(3.0).within(low, high))),
        ("cfg one by one", Box::new(cfg(3.0).one_by_one().within(low, high))),
        ("cfg rescaled", Box::new(cfg(3.0).rescaled(rescale).within(low, high))),
        ("cfg++", Box::new(CfgPp::new(net(), null(), 0.6).within(low, high))),
        ("apg", Box::new(apg.within(low, high))),
        ("cfg-zero*", Box::new(CfgZeroStar::new(net(), null(), 3.0).within(low, high))),
        ("tcfg", Box::new(Tcfg::new(net(), null(), 3.0).within(low, high))),
        ("autoguidance", Box::new(Autoguidance::new(net(), weak, 2.0).within(low, high))),
        ("composed", Box::new(Composed::new(net(), null(), 2.0).and(null(), -0.5).within(low, high))),
        ("pag", Box::new(Pag::new(cfg(2.0).within(low, high), &["attention.map"], 2.0).within(low, high))),
        ("slg", Box::new(Slg::new(cfg(1.0).rescaled(rescale), &["block"], 2.0).within(low, high))),
    ]
}

fn equal(name: &str, a: &Estimate<3>, b: &Estimate<3>) {
    let close = |kind: &str, a: &Tensor<3>, b: &Tensor<3>| {
        let off = (a.clone() - b.clone()).abs().max().into_scalar::<f32>();
        assert!(off < 2e-5, "{name}, {kind}: off by {off:e}");
    };
    close("x0", &a.x0, &b.x0);
    assert_eq!(a.eps.is_some(), b.eps.is_some(), "{name}");
    a.eps.iter().zip(&b.eps).for_each(|(a, b)| close("eps", a, b));
    close("variance", a.variance.as_ref().expect(name), b.variance.as_ref().expect(name));
}

#[test]
fn the_conditional_variance_is_passed_on() {
    let (_, x, cond) = inputs();
    let expected = Learned::default().denoise(x.clone(), &[level(0.5)], &cond).variance.unwrap();
    let mut all = methods(&Learned::default(), (0.0, f64::INFINITY));
    all.push(("clip", Box::new(Clip::new(Learned::default(), 1.0))));
    all.push(("threshold", Box::new(DynamicThreshold::new(Learned::default(), 0.9))));
    let null = Class::new(&[7], &Device::flex());
    let still = CfgZeroStar::new(Learned::default(), null, 3.0).zero_init(&[level(0.5)], 1);
    all.push(("standing still", Box::new(still)));
    for (name, guided) in all {
        let variance = guided.denoise(x.clone(), &[level(0.5)], &cond).variance.expect(name);
        assert_eq!(variance.into_data(), expected.to_data(), "{name}");
    }
}

#[test]
fn a_row_alone_equals_its_row_in_a_batch() {
    let (_, x, cond) = inputs();
    let at = [level(0.2), level(0.5), level(2.0)];
    let net = Learned::default();
    for (name, guided) in methods(&net, (0.2, 1.0)) {
        let together = guided.denoise(x.clone(), &at, &cond);
        for row in 0..3 {
            let alone = |guided: &dyn Denoiser<3, Cond = Class>| {
                let x = x.clone().narrow(0, row, 1);
                guided.denoise(x, &at[row..=row], &canvas_core::Condition::select(&cond, &[row]))
            };
            let rows = |whole: &Tensor<3>| whole.clone().narrow(0, row, 1);
            let (eps, variance) = (together.eps.as_ref().map(rows), together.variance.as_ref().map(rows));
            let mine = Estimate { x0: rows(&together.x0), eps, variance };
            let mut expected = alone(&*guided);
            if name == "cfg++" && row == 2 {
                // Its neighbours have a noise estimate of their own, so it has one too: the implied one.
                assert!(expected.eps.is_none());
                expected.eps = Some(at[row].eps(rows(&x), expected.x0.clone()));
            }
            equal(name, &mine, &expected);
            // Both ends of the range are guided, and beyond it nothing is.
            let plain = alone(&net);
            let off = (plain.x0.clone() - mine.x0.clone()).abs().max().into_scalar::<f32>();
            assert_eq!(off > 1e-3, row < 2, "{name}, row {row}: {off:e}");
            if row == 2 {
                assert_eq!(mine.x0.into_data(), plain.x0.into_data(), "{name}");
            }
        }
    }
}

#[test]
fn a_neighbour_out_of_range_keeps_its_own_noise() {
    let (_, x, cond) = inputs();
    let net = Learned { own_noise: true };
    let at = [level(0.2), level(0.5), level(2.0)];
    let plain = net.denoise(x.clone(), &at, &cond).eps.unwrap();
    for (name, guided) in methods(&net, (0.2, 1.0)) {
        let said = guided.denoise(x.clone(), &at, &cond);
        let eps = said.eps.expect(name);
        assert_eq!(
            eps.clone().narrow(0, 2, 1).into_data(),
            plain.clone().narrow(0, 2, 1).into_data(),
            "{name}"
        );
        if !["cfg++"].contains(&name) {
            let implied = at[1].eps(x.clone().narrow(0, 1, 1), said.x0.narrow(0, 1, 1));
            same(eps.narrow(0, 1, 1), implied);
        }
    }
}

#[test]
fn every_method_has_a_strength_that_is_off() {
    let (device, x, cond) = inputs();
    let net = Learned { own_noise: true };
    let null = || Class::new(&[7], &device);
    let cfg = || Cfg::new(net.clone(), null(), 1.0).rescaled(Rescale::new(0.7));
    let apg = Apg::new(net.clone(), null(), 1.0);
    let all: [(&str, &dyn Denoiser<3, Cond = Class>); 10] = [
        ("cfg", &cfg()),
        ("apg", &apg),
        ("apg with momentum", &apg.run::<3>(-0.5)),
        ("cfg-zero*", &CfgZeroStar::new(net.clone(), null(), 1.0)),
        ("tcfg", &Tcfg::new(net.clone(), null(), 1.0)),
        ("autoguidance", &Autoguidance::new(net.clone(), net.clone(), 1.0)),
        ("composed", &Composed::new(net.clone(), null(), 1.0).and(null(), 0.0)),
        ("pag", &Pag::new(cfg(), &["no such layer"], 0.0)),
        ("slg", &Slg::new(cfg(), &["no such layer"], 0.0)),
        ("clip", &Clip::new(net.clone(), f64::INFINITY)),
    ];
    let at = [level(0.5)];
    let plain = net.denoise(x.clone(), &at, &cond);
    for (name, guided) in all {
        let said = guided.denoise(x.clone(), &at, &cond);
        assert_eq!(said.x0.into_data(), plain.x0.to_data(), "{name}");
        assert_eq!(said.eps.unwrap().into_data(), plain.eps.clone().unwrap().into_data(), "{name}");
        assert_eq!(said.variance.unwrap().into_data(), plain.variance.clone().unwrap().into_data(), "{name}");
    }
}

/// No level makes a NaN: pure noise, clean data, equal halves.
#[test]
fn special_levels_are_finite() {
    let (device, x, _) = inputs();
    let ends = [
        Level { time: 1.0, alpha: 0.0, sigma: 1.0 },
        Level { time: 0.0, alpha: 1.0, sigma: 0.0 },
        Level { time: 0.5, alpha: 0.5, sigma: 0.5 },
    ];
    for labels in [[3, 1, 4], [7, 7, 7], [0, 0, 0]] {
        let cond = Class::new(&labels, &device);
        for (name, guided) in methods(&Learned::default(), (0.0, f64::INFINITY)) {
            for x in [x.clone(), x.zeros_like()] {
                let said = guided.denoise(x, &ends, &cond);
                for part in [Some(said.x0), said.eps].into_iter().flatten() {
                    assert!(part.is_finite().all().into_scalar::<bool>(), "{name} {labels:?}");
                }
            }
        }
    }
    let broken = DynamicThreshold::new(Learned::default(), 1.0).keep_noise();
    let said = broken.denoise(x, &ends, &Class::new(&[3, 1, 4], &device));
    assert!(said.eps.unwrap().is_finite().all().into_scalar::<bool>());
}

/// A deterministic step along CFG++ is `a' x0 + s' eps_null`.
#[test]
fn cfg_pp_renoises_unconditionally() {
    let (device, x, cond) = inputs();
    let null = Class::new(&[7], &device);
    let (from, to) = (level(0.5), level(0.2));
    let net = Learned::default();
    let guided = CfgPp::new(net.clone(), null.clone(), 0.6);
    let estimate = guided.denoise(x.clone(), &[from], &cond);
    let eval = Evaluation { level: from, x: x.clone(), estimate };
    let [yes, no] = [cond, canvas_core::Condition::spread(&null, 3)];
    let [yes, no] = [yes, no].map(|cond| net.denoise(x.clone(), &[from], &cond).x0);
    let x0 = yes * 0.6 + no.clone() * 0.4;
    same(eval.carry(to), x0 * to.alpha + from.eps(x, no) * to.sigma);
}

#[test]
fn an_unknown_layer_is_named_and_the_known_ones_are_listed() {
    let (device, x, cond) = inputs();
    let cfg = || Cfg::new(Learned::default(), Class::new(&[7], &device), 3.0);
    let guided: [(Boxed, &str); 2] = [
        (
            Box::new(Pag::new(cfg(), &["blocks.9.map"], 2.0)),
            "no attention map named \"blocks.9.map\"; it ran: attention.map",
        ),
        (Box::new(Slg::new(cfg(), &["blocks.9"], 2.0)), "no block named \"blocks.9\"; it ran: block"),
    ];
    for (guided, expected) in guided {
        let run = AssertUnwindSafe(|| guided.denoise(x.clone(), &[level(0.5)], &cond).x0);
        let panic = catch_unwind(run).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(expected), "{message}");
    }
    trace::tap(|| unreachable!("a hook was left"), x);
}

#[test]
fn momentum_refuses_another_batch() {
    let (device, x, cond) = inputs();
    let apg = Apg::new(Learned::default(), Class::new(&[7], &device), 3.0);
    let run = apg.run::<3>(-0.5);
    run.denoise(x.clone(), &[level(0.5)], &cond);
    let other = Class::new(&[1], &device);
    let again = AssertUnwindSafe(|| run.denoise(x.narrow(0, 0, 1), &[level(0.5)], &other).x0);
    catch_unwind(again).unwrap_err();
}

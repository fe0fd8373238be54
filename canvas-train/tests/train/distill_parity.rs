//! Values and gradients of each loss on a small network beside PyTorch's (fixture by `tools/fixtures_distill.py`), and the
//! constants of diffusers' schedulers.

use crate::distill::host;
use crate::{Net, close, tensor, wave};
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use canvas_core::{
    Level, NoiseSchedule, Preconditioned, Prediction, TwoTimes, Unconditional, params, weights,
};
use canvas_sched::{predict, schedule};
use canvas_train::distill::{
    Chord, ChordWeight, Consistency, GuidanceScale, MeanFlow, PseudoHuber, Solver, Span, matching,
};
use canvas_train::{Noised, Objective, Weighting};
use std::collections::BTreeMap;
use std::path::Path;

fn fixture() -> BTreeMap<String, Vec<f64>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/distill.safetensors");
    let all = weights::read_tensors(&path).unwrap();
    all.into_iter().map(|(name, data)| (name, data.iter::<f64>().collect())).collect()
}

/// Everything that a case needs.
#[derive(Module, Debug)]
struct Networks {
    student: Net,
    teacher: Net,
    fake: Net,
    average: Average,
}

/// [`Net`] of two times.
#[derive(Module, Debug)]
struct Average {
    net: Net,
    r: Param<Tensor<2>>,
}

impl TwoTimes<2> for Average {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<2>, r: Tensor<1>, t: Tensor<1>, _: &Unconditional) -> Tensor<2> {
        let h = self.net.up.forward(x)
            + self.net.time.forward(t.unsqueeze_dim(1))
            + r.unsqueeze_dim::<2>(1).matmul(self.r.val());
        self.net.down.forward(burn::tensor::activation::silu(h))
    }
}

fn networks() -> Networks {
    let device = Device::flex().autodiff();
    let net = || Net::new(8, &device);
    let r = Param::from_tensor(Tensor::zeros([1, 8], &device));
    params::fill_by_formula(Networks {
        student: net(),
        teacher: net(),
        fake: net(),
        average: Average { net: net(), r },
    })
}

/// Losses, and the gradients of a mean of them, to PyTorch's.
fn equals(case: &str, networks: &Networks, losses: Tensor<1>, tolerance: f64) {
    let all = fixture();
    let found = host(&losses);
    for (found, expected) in found.iter().zip(&all[&format!("{case}/losses")]) {
        close(*found, *expected, tolerance * (expected.abs() + 1e-3));
    }
    let grads = GradientsParams::from_grads(losses.mean().backward(), networks);
    let named = params::named_gradients(networks, &grads);
    let found: BTreeMap<String, Vec<f64>> =
        named.into_iter().map(|grad| (grad.name, grad.data.iter::<f64>().collect())).collect();
    let prefix = format!("{case}/grad/");
    let expected: Vec<_> =
        all.iter().filter_map(|(name, grad)| Some((name.strip_prefix(&prefix)?, grad))).collect();
    assert!(expected.len() >= 5, "{case}: gradients in the fixture");
    let most = expected.iter().flat_map(|(_, grad)| grad.iter()).fold(0.0f64, |most, x| most.max(x.abs()));
    for (name, expected) in expected {
        let found = found.get(name).unwrap_or_else(|| panic!("{case}: no gradient of {name}"));
        assert_eq!(found.len(), expected.len(), "{case}: {name}");
        found.iter().zip(expected).for_each(|(found, expected)| close(*found, *expected, tolerance * most));
    }
    // Nothing else has one: teachers, targets and fakes are constants.
    let strangers: Vec<&String> = found
        .iter()
        .filter(|(name, grad)| {
            !all.contains_key(&format!("{prefix}{name}")) && grad.iter().any(|x| *x != 0.0)
        })
        .map(|(name, _)| name)
        .collect();
    assert!(strangers.is_empty(), "{case}: gradients of {strangers:?}");
}

fn batch(seed: f64, device: &Device) -> Tensor<2> {
    tensor(wave(6, seed, 1.0), [3, 2], device)
}

fn sigma(sigma: f64) -> Level {
    Level { time: 0.0, alpha: 1.0, sigma }
}

fn with<'a, P: Prediction>(backbone: &'a Net, prediction: &'a P) -> Preconditioned<'a, Net, P> {
    Preconditioned { backbone, prediction }
}

#[test]
fn consistency_distillation_is_pytorchs() {
    let (nets, device) = (networks(), Device::flex().autodiff());
    let (teacher_says, student_says) = (predict::Edm::default(), predict::Consistency::default());
    let paths = [[3.0, 1.0], [0.8, 0.3], [0.1, 0.002]].map(|path| path.map(sigma));
    let paths: Vec<&[Level]> = paths.iter().map(|path| &path[..]).collect();
    let noised =
        Noised::new(batch(0.3, &device), batch(1.7, &device), paths.iter().map(|path| path[0]).collect());
    let (teacher, student) = (with(&nets.teacher, &teacher_says), with(&nets.student, &student_says));
    let consistency = Consistency { metric: PseudoHuber { c: 0.03 }, weight: ChordWeight::Length };
    for (case, chord) in [
        (
            "distilled",
            Chord::of_teacher((&teacher, Solver::Heun), noised.x.clone(), &paths, &Unconditional(3)),
        ),
        ("trained", Chord::of_data(&noised, paths.iter().map(|path| path[1]).collect())),
    ] {
        let losses = consistency.losses((&student, &student), &chord, &Unconditional(3));
        equals(case, &nets, losses, 5e-5);
    }
}

#[test]
fn progressive_distillation_is_pytorchs() {
    let (nets, device, flow) = (networks(), Device::flex().autodiff(), schedule::Flow::default());
    let paths = [[1.0, 0.8, 0.6], [0.6, 0.45, 0.3], [0.3, 0.15, 0.0]].map(|path| path.map(|t| flow.level(t)));
    let paths: Vec<&[Level]> = paths.iter().map(|path| &path[..]).collect();
    let noised =
        Noised::new(batch(0.3, &device), batch(1.7, &device), paths.iter().map(|path| path[0]).collect());
    let teacher = with(&nets.teacher, &predict::Flow);
    let chord = Chord::of_teacher((&teacher, Solver::Euler), noised.x, &paths, &Unconditional(3));
    let objective = Objective { weighting: Weighting::TruncatedSnr, ..Objective::default() };
    let losses =
        objective.losses(with(&nets.student, &predict::Velocity), &chord.noised(), &Unconditional(3));
    equals("progressive", &nets, losses, 5e-5);
}

#[test]
fn mean_flow_is_pytorchs_with_its_automatic_derivative() {
    let (nets, device, flow) = (networks(), Device::flex().autodiff(), schedule::Flow::default());
    let at = [0.9, 0.5, 0.7].map(|t| flow.level(t)).to_vec();
    let to = [0.2, 0.5, 0.1].map(|t| flow.level(t));
    let span = Span::of_data(&Noised::new(batch(0.3, &device), batch(1.7, &device), at), &to);
    let losses = MeanFlow::default().losses((&nets.average, &nets.average), &span, &Unconditional(3));
    equals("mean_flow", &nets, losses, 2e-4);
}

#[test]
fn distribution_matching_is_pytorchs() {
    let (nets, device, flow) = (networks(), Device::flex().autodiff(), schedule::Flow::default());
    let generator = with(&nets.student, &predict::Flow);
    let drawn = canvas_core::Denoiser::denoise(
        &generator,
        batch(0.9, &device),
        &[flow.level(1.0)],
        &Unconditional(3),
    )
    .x0;
    let at = [0.3, 0.6, 0.8].map(|t| flow.level(t)).to_vec();
    let noised = Noised::new(drawn, batch(1.7, &device), at);
    let (real, fake) = (with(&nets.teacher, &predict::Flow), with(&nets.fake, &predict::Flow));
    equals("matching", &nets, matching(&noised, (&real, &fake), &Unconditional(3)), 5e-5);
}

/// `get_scalings_for_boundary_condition_discrete` of `LCMScheduler`, `get_scalings_for_boundary_condition` of
/// `CMStochasticIterativeScheduler`, and the embedding of the latent consistency pipeline.
#[test]
fn boundaries_and_embeddings_are_diffusers() {
    let all = fixture();
    let of_lcm = predict::Boundary::new(predict::Sample);
    for row in all["lcm"].chunks(3) {
        // Step 999 of 1000 is told 0.999.
        let level = Level { time: row[0] / 1000.0, alpha: 0.6, sigma: 0.8 };
        let found = of_lcm.coefficients(level);
        close(found.skip, row[1], 1e-7); // the fixture is read in f32
        close(found.out, row[2], 1e-7);
    }
    let of_cm = predict::Consistency { sigma_data: 0.5, least: 0.002 };
    for row in all["cm"].chunks(3) {
        let found = of_cm.coefficients(sigma(row[0]));
        close(found.skip, row[1], 1e-7);
        close(found.out, row[2], 1e-7);
    }
    let scales = GuidanceScale::new(&[1.0, 3.5, 9.0], &Device::flex());
    let found = host(&scales.features(16));
    assert_eq!(found.len(), all["embedding"].len());
    // Angles of up to 8000 in f32, on both sides.
    found.iter().zip(&all["embedding"]).for_each(|(found, expected)| close(*found, *expected, 2e-3));
}

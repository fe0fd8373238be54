use crate::weights::{Small, small};
use burn::nn::LinearConfig;
use burn::nn::conv::Conv2dConfig;
use burn::prelude::*;
use canvas_core::nn::init::zero_linear;
use canvas_core::{params, weights};
use std::collections::{BTreeMap, HashSet};

fn values(module: &Small) -> Vec<(String, Vec<f32>)> {
    params::named(module).into_iter().map(|p| (p.name, p.data.iter::<f32>().collect())).collect()
}

#[test]
fn names_are_paths_in_order() {
    let names: Vec<String> = params::named(&small()).into_iter().map(|param| param.name).collect();
    let expected = [
        "first.weight",
        "first.bias",
        "norms.0.gamma",
        "norms.0.beta",
        "norms.1.gamma",
        "norms.1.beta",
        "zero.weight",
        "zero.bias",
    ];
    assert_eq!(names, expected);
}

#[test]
fn identities_are_the_same_in_two_builds_and_all_different() {
    let ids = |module: &Small| params::named(module).into_iter().map(|p| p.id).collect::<Vec<_>>();
    let (one, two) = (params::realise(small()), params::realise(small()));
    assert_eq!(ids(&one), ids(&two));
    assert_eq!(ids(&one).into_iter().collect::<HashSet<_>>().len(), 8);
    assert_eq!(ids(&one), ids(&one.clone()));
    // Readers that keep numbers as doubles must not round them.
    assert!(ids(&one).iter().all(|id| id.val() < 1 << 53));
}

#[test]
fn a_clone_of_a_realised_module_is_equal() {
    let device = Device::flex();
    let module = params::realise(LinearConfig::new(4, 3).init(&device));
    let copy = module.clone();
    let data = |module| params::named(module).into_iter().map(|p| p.data).collect::<Vec<_>>();
    assert_eq!(data(&module), data(&copy));
    assert_ne!(data(&module), data(&params::realise(LinearConfig::new(4, 3).init(&device))));
}

#[test]
fn realised_parameters_still_learn() {
    let device = Device::flex().autodiff();
    let module = params::realise(LinearConfig::new(2, 1).init(&device));
    let gradients = module.forward(Tensor::<2>::ones([1, 2], &device)).sum().backward();
    assert!(module.weight.val().grad(&gradients).is_some());
    let module = params::fill_by_formula(module);
    let gradients = module.forward(Tensor::<2>::ones([1, 2], &device)).sum().backward();
    assert!(module.weight.val().grad(&gradients).is_some());
}

#[test]
fn the_formula_fills_the_same_everywhere_and_leaves_no_zero_layer() {
    let (one, two) = (params::fill_by_formula(small()), params::fill_by_formula(small()));
    assert_eq!(values(&one), values(&two));
    for (name, values) in values(&one) {
        assert!(values.iter().any(|v| v.abs() > 1e-3), "{name} is zero");
        if name.ends_with("gamma") {
            assert!(values.iter().all(|v| (v - 1.0).abs() <= 0.1), "{name}: {values:?}");
        }
    }
}

#[test]
fn the_formula_takes_the_fan_in_of_matrices_and_kernels() {
    let device = Device::flex();
    let matrix = params::fill_by_formula(zero_linear(4, 9, &device));
    let expected = params::formula("weight", 36, 4, false);
    assert_eq!(matrix.weight.val().into_data().iter::<f32>().collect::<Vec<_>>(), expected);
    let kernel = Conv2dConfig::new([2, 5], [3, 3]).init(&device);
    let kernel = params::fill_by_formula(kernel);
    let expected = params::formula("weight", 90, 18, false);
    assert_eq!(kernel.weight.val().into_data().iter::<f32>().collect::<Vec<_>>(), expected);
}

/// References in other languages are made with these numbers.
#[test]
fn the_formula_is_pinned() {
    assert_eq!(params::formula("first.weight", 3, 4, false), [0.03980432, 0.35153055, 0.49792647]);
    assert_eq!(params::formula("norm.gamma", 2, 16, true), [0.9000481, 0.92555]);
}

#[test]
fn the_first_broken_parameter_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.safetensors");
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut tensors: Vec<(String, TensorData)> =
            params::named(&small()).into_iter().map(|param| (param.name, param.data)).collect();
        tensors[3].1 = TensorData::new(vec![0.0, broken, 0.0], [3]);
        tensors[6].1 = TensorData::new(vec![broken; 6], [3, 2]);
        weights::write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
        let module = weights::load(small(), &path, &[]).unwrap();
        assert_eq!(params::first_non_finite(&module).as_deref(), Some("norms.0.beta"));
    }
    assert_eq!(params::first_non_finite(&small()), None);
}

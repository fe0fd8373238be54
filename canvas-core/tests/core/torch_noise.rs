use crate::host;
use crate::noise::assert_standard_normal;
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Noise, TorchCpu};
use serde::Deserialize;

/// What torch drew, by `tools/fixtures_noise.py`.
#[derive(Deserialize)]
struct Fixture {
    avx2: Vec<Case>,
    default: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    seed: u64,
    calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    dtype: String,
    count: usize,
    checksum: u64,
    picked: [f64; 4],
}

impl Call {
    fn dtype(&self) -> DType {
        match self.dtype.as_str() {
            "float16" => DType::F16,
            "bfloat16" => DType::BF16,
            "float32" => DType::F32,
            "float64" => DType::F64,
            other => panic!("{other}"),
        }
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/noise.json")).unwrap()
}

fn draw(noise: &mut impl Noise<1>, count: usize, dtype: DType) -> TensorData {
    let drawn = noise.normal_like(&Tensor::zeros([count], (&Device::flex(), dtype)));
    assert_eq!(drawn.dtype(), dtype);
    drawn.into_data()
}

fn checksum(data: &TensorData) -> u64 {
    let width = data.as_bytes().len() / data.num_elements();
    let bits = data.as_bytes().chunks(width).map(|raw| {
        let mut word = [0; 8];
        word[..width].copy_from_slice(raw);
        u64::from_le_bytes(word)
    });
    bits.zip(1..).fold(0, |sum: u64, (bits, place)| sum.wrapping_add(bits.wrapping_mul(place)))
}

/// Draws a case again. Numbers that go through the system's libm are near elsewhere, equal with the libm of torch.
fn assert_drawn(case: &Case, mut noise: TorchCpu, scalar: bool) {
    for call in &case.calls {
        let found = draw(&mut noise, call.count, call.dtype());
        let values: Vec<f64> = found.iter::<f64>().collect();
        let system = call.dtype == "float64" || scalar && call.count >= 16;
        let exact = !system || cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"));
        let (n, name) = (call.count, format!("seed {}, {} {}", case.seed, call.count, call.dtype));
        for (place, expected) in [0, n / 3, n / 2, n - 1].into_iter().zip(call.picked) {
            let near = (values[place] - expected).abs() <= 1e-6;
            assert!(
                if exact { values[place] == expected } else { near },
                "{name}: {} {expected}",
                values[place]
            );
        }
        assert!(!exact || checksum(&found) == call.checksum, "{name}: another number differs");
    }
}

#[test]
fn cpu_noise_is_torchs_bit_for_bit() {
    fixture().avx2.iter().for_each(|case| assert_drawn(case, TorchCpu::new(case.seed), false));
}

#[test]
fn scalar_noise_is_that_of_torch_without_avx2() {
    fixture().default.iter().for_each(|case| assert_drawn(case, TorchCpu::new(case.seed).scalar(), true));
}

#[test]
fn the_two_kernels_differ_in_last_bits_only() {
    let fast: Vec<f32> = draw(&mut TorchCpu::new(3), 100_000, DType::F32).iter().collect();
    let scalar: Vec<f32> = draw(&mut TorchCpu::new(3).scalar(), 100_000, DType::F32).iter().collect();
    assert_ne!(fast, scalar);
    assert!(fast.iter().zip(&scalar).all(|(a, b)| (a - b).abs() < 3e-6));
}

#[test]
fn shape_does_not_matter_and_a_copy_continues() {
    let (mut noise, device) = (TorchCpu::new(9), Device::flex());
    let mut copy = noise.clone();
    for shape in [[3, 1], [5, 7], [2, 2]] {
        let drawn: Tensor<2> = noise.normal_like(&Tensor::zeros(shape, &device));
        let flat: Tensor<1> = copy.normal_like(&Tensor::zeros([shape[0] * shape[1]], &device));
        assert_eq!(host(&drawn), host(&flat));
    }
}

#[test]
fn cpu_seeds_have_32_bits() {
    let first = |seed| draw(&mut TorchCpu::new(seed), 20, DType::F32);
    assert_eq!(first(5), first((1 << 32) + 5));
    assert_ne!(first(5), first(6));
}

#[test]
fn cpu_noise_is_standard_normal() {
    for dtype in [DType::F32, DType::F64] {
        let on = |noise: &mut dyn Noise<1>| -> Vec<f32> {
            let x = Tensor::zeros([100_003], (&Device::flex(), dtype));
            noise.normal_like(&x).into_data().iter().collect()
        };
        assert_standard_normal(&on(&mut TorchCpu::new(1)));
        assert_standard_normal(&on(&mut TorchCpu::new(1).scalar()));
    }
    let mut noise = TorchCpu::new(1);
    let small: Vec<f32> =
        (0..10_000).flat_map(|_| host(&noise.normal_like(&crate::waves([7], 0.0)))).collect();
    assert_standard_normal(&small);
}

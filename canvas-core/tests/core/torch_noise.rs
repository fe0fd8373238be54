use crate::host;
use crate::noise::assert_standard_normal;
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Noise, TorchCpu, TorchCuda};
use serde::Deserialize;
use std::f64::consts::TAU;

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
fn cpu_and_cuda_noise_is_standard_normal() {
    for dtype in [DType::F32, DType::F64] {
        let on = |noise: &mut dyn Noise<1>| -> Vec<f32> {
            let x = Tensor::zeros([100_003], (&Device::flex(), dtype));
            noise.normal_like(&x).into_data().iter().collect()
        };
        assert_standard_normal(&on(&mut TorchCpu::new(1)));
        assert_standard_normal(&on(&mut TorchCpu::new(1).scalar()));
        assert_standard_normal(&on(&mut TorchCuda::new(1)));
        assert_standard_normal(&on(&mut TorchCuda::new(1).threads(4096)));
    }
    let mut noise = TorchCpu::new(1);
    let small: Vec<f32> =
        (0..10_000).flat_map(|_| host(&noise.normal_like(&crate::waves([7], 0.0)))).collect();
    assert_standard_normal(&small);
}

#[track_caller]
fn assert_close(found: &TensorData, expected: &[f64], tolerance: f64) {
    assert_eq!(found.num_elements(), expected.len());
    for (found, expected) in found.iter::<f64>().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found}, expected {expected}");
    }
}

/// The docstring of `rng_philox.py` in AUTOMATIC1111's stable-diffusion-webui, which computes in part in `f64`.
#[test]
fn cuda_noise_is_that_of_the_webui() {
    let expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ];
    assert_close(&draw(&mut TorchCuda::new(0), 12, DType::F32), expected.as_flattened(), 1e-6);
}

/// What others printed after `torch.manual_seed(42)`: `torch.randn(2, 5, device="cuda")` in the documentation of
/// flashinfer; and three calls of four in a report about `torch._foreach_sub`, whose first numbers are those of 42 too.
#[test]
fn cuda_noise_is_what_gpus_printed() {
    let ten = [0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530, -0.6494, -0.8175, 0.5280, -1.2753];
    assert_close(&draw(&mut TorchCuda::new(42), 10, DType::F32), &ten, 5.1e-5);
    let calls = [
        ten[..4].try_into().unwrap(),
        [0.1391, -0.1082, -0.7174, 0.7566],
        [-0.5187, 1.2268, 0.6255, -0.9117],
    ];
    let mut noise = TorchCuda::new(42);
    for expected in calls {
        assert_close(&draw(&mut noise, 4, DType::F32), &expected, 5.1e-5);
    }
}

/// Known answers of Philox4x32-10 (Random123's `kat_vectors`): counter and key 0, whose four words `f64` shows.
#[test]
fn the_four_words_are_those_of_philox() {
    let [a, b, c, d] = [0x6627_e8d5_u64, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
    let unit = |low: u64, high: u64| ((low ^ high << 21) as f64 + 0.5) / 2f64.powi(53);
    let (radius, angle) = ((-2.0 * unit(a, b).ln()).sqrt(), TAU * unit(c, d));
    assert_close(&draw(&mut TorchCuda::new(0), 1, DType::F64), &[radius * angle.sin()], 1e-12);
    let pair = |x: u64, y: u64| {
        ((-2.0 * ((x as f64 + 0.5) / 2f64.powi(32)).ln()).sqrt(), TAU * (y as f64 + 0.5) / 2f64.powi(32))
    };
    let ((r, v), (s, w)) = (pair(a, b), pair(c, d));
    let lanes = draw(&mut TorchCuda::new(0).threads(256), 1024, DType::F32)
        .iter::<f64>()
        .step_by(256)
        .collect::<Vec<_>>();
    assert_close(&TensorData::from(&lanes[..]), &[r * v.sin(), r * v.cos(), s * w.sin(), s * w.cos()], 1e-6);
}

/// 256 threads draw four rows of 256, then go on; so does the next call, after whole rounds.
#[test]
fn a_gpu_with_few_threads_goes_round() {
    let wide = |used: usize| {
        let mut noise = TorchCuda::new(7);
        (0..used).for_each(|_| drop(draw(&mut noise, 1, DType::F32)));
        draw(&mut noise, 256, DType::F32).iter::<f32>().collect::<Vec<_>>()
    };
    let mut noise = TorchCuda::new(7).threads(256);
    let drawn: Vec<f32> = draw(&mut noise, 1025, DType::F32).iter().collect();
    assert_eq!(drawn[..256], wide(0));
    assert_eq!(drawn[1024], wide(1)[0]);
    assert_eq!(draw(&mut noise, 256, DType::F32).iter::<f32>().collect::<Vec<_>>(), wide(2));
    // A thread makes two `f64` numbers of a round, four `f32` ones: 512 is one round, not two.
    let mut noise = TorchCuda::new(7).threads(256);
    draw(&mut noise, 512, DType::F64);
    assert_eq!(draw(&mut noise, 256, DType::F32).iter::<f32>().collect::<Vec<_>>(), wide(1));
}

#[test]
fn cuda_seeds_have_64_bits() {
    let first = |seed| draw(&mut TorchCuda::new(seed), 20, DType::F32);
    assert_ne!(first(5), first((1 << 32) + 5));
}

#[test]
#[should_panic(expected = "100 threads are no blocks of 256")]
fn refuses_half_a_block() {
    let _ = TorchCuda::new(0).threads(100);
}

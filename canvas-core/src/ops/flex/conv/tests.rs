//! The convolution against a plain f64 one: random shapes, accuracy, threads, values that are not finite.

use super::{Conv, forward, input_gradient, weight_gradient};

/// A small generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Unit-normal values times `scale`.
    fn normal(&mut self, len: usize, scale: f64) -> Vec<f32> {
        let mut uniform = || ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        (0..len)
            .map(|_| {
                (scale * (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32
            })
            .collect()
    }
}

/// Calls `visit` with the indices of output, input and weight of every product of `conv`.
fn products(conv: &Conv, mut visit: impl FnMut(usize, usize, usize)) {
    let [oh, ow] = conv.output();
    let [kh, kw] = conv.kernel;
    for n in 0..conv.batch {
        for o in 0..conv.to {
            for c in 0..conv.from {
                for (y, x) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                    for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                        let row = (y * conv.stride[0] + i).wrapping_sub(conv.padding[0]);
                        let column = (x * conv.stride[1] + j).wrapping_sub(conv.padding[1]);
                        if row < conv.height && column < conv.width {
                            let out = ((n * conv.to + o) * oh + y) * ow + x;
                            let input = ((n * conv.from + c) * conv.height + row) * conv.width + column;
                            visit(out, input, ((o * conv.from + c) * kh + i) * kw + j);
                        }
                    }
                }
            }
        }
    }
}

/// Input, weight, bias and gradient of the output for `conv`.
struct Values {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    grad: Vec<f32>,
}

impl Values {
    fn new(conv: &Conv, random: &mut Random) -> Self {
        let fan = conv.from * conv.kernel[0] * conv.kernel[1];
        let [oh, ow] = conv.output();
        Self {
            x: random.normal(conv.batch * conv.from * conv.height * conv.width, 1.0),
            weight: random.normal(conv.to * fan, (fan as f64).powf(-0.5)),
            bias: random.normal(conv.to, 1.0),
            grad: random.normal(conv.batch * conv.to * oh * ow, 1.0),
        }
    }

    /// Forward pass, input gradient and weight gradient by the module.
    fn ours(&self, conv: &Conv) -> [Vec<f32>; 3] {
        let [mut out, mut dx, mut dw] = [&self.grad, &self.x, &self.weight].map(|v| vec![f32::NAN; v.len()]);
        forward(conv, &self.x, &self.weight, Some(&self.bias), &mut out);
        input_gradient(conv, &self.weight, &self.grad, &mut dx);
        weight_gradient(conv, &self.x, &self.grad, &mut dw);
        [out, dx, dw]
    }

    /// The same in f64.
    fn reference(&self, conv: &Conv) -> [Vec<f64>; 3] {
        let plane: usize = conv.output().iter().product();
        let mut out: Vec<f64> =
            (0..self.grad.len()).map(|i| f64::from(self.bias[i / plane % conv.to])).collect();
        let (mut dx, mut dw) = (vec![0.0; self.x.len()], vec![0.0; self.weight.len()]);
        products(conv, |o, i, w| {
            let [x, weight, grad] = [self.x[i], self.weight[w], self.grad[o]].map(f64::from);
            out[o] += x * weight;
            dx[i] += weight * grad;
            dw[w] += x * grad;
        });
        [out, dx, dw]
    }
}

/// The largest error of `ours`, relative to the largest magnitude of `reference`.
fn error(ours: &[f32], reference: &[f64]) -> f64 {
    let max = reference.iter().fold(f64::MIN_POSITIVE, |max, v| max.max(v.abs()));
    ours.iter().zip(reference).fold(0.0, |worst: f64, (a, b)| {
        assert!(a.is_finite(), "{a} for {b}");
        worst.max((f64::from(*a) - b).abs() / max)
    })
}

/// A random small convolution; the output may be empty.
fn any(random: &mut Random) -> Conv {
    let kernel = [[1, 1], [3, 3], [3, 3], [5, 5], [3, 1], [2, 3]][random.below(6)];
    let channels = |random: &mut Random| [1, 2, 3, 5, 13, 16, 17, 20, 33][random.below(9)];
    Conv {
        batch: random.below(6),
        from: channels(random),
        to: channels(random),
        height: 1 + random.below(19),
        width: 1 + random.below(19),
        kernel,
        stride: [1 + random.below(2), 1 + random.below(2)],
        padding: [random.below(3), random.below(3)],
    }
}

#[test]
fn random_shapes_agree_with_the_reference() {
    let mut random = Random(7);
    for case in 0..400 {
        let conv = any(&mut random);
        let values = Values::new(&conv, &mut random);
        for (name, (ours, reference)) in
            ["out", "dx", "dw"].iter().zip(values.ours(&conv).iter().zip(values.reference(&conv)))
        {
            let error = error(ours, &reference);
            assert!(error < 3e-6, "case {case} {conv:?}: {name} is off by {error:e}");
        }
    }
}

/// Shapes that are cut in several strips, bands, channel blocks and pieces of the weight, wider strides.
#[test]
fn large_and_wide_shapes_agree_with_the_reference() {
    let mut random = Random(8);
    let conv = |batch, from, to, height, width, kernel: usize, stride: usize, padding: usize| Conv {
        batch,
        from,
        to,
        height,
        width,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [padding; 2],
    };
    for conv in [
        conv(3, 300, 70, 6, 6, 3, 1, 1),
        conv(1, 520, 200, 5, 9, 3, 1, 1),
        conv(1, 16, 8, 30, 300, 3, 1, 1),
        conv(1, 130, 8, 70, 70, 3, 1, 1),
        conv(1, 130, 8, 50, 70, 3, 2, 1),
        conv(2, 300, 10, 9, 7, 1, 1, 0),
        conv(2, 3, 4, 9, 7, 2, 3, 2),
        conv(1, 3, 4, 3, 2, 3, 4, 2),
        conv(1, 2, 3, 4, 5, 1, 1, 2),
        conv(2, 40, 40, 23, 31, 3, 1, 0),
    ] {
        let values = Values::new(&conv, &mut random);
        for (ours, reference) in values.ours(&conv).iter().zip(values.reference(&conv)) {
            let error = error(ours, &reference);
            assert!(error < 3e-6, "{conv:?}: off by {error:e}");
        }
    }
}

/// The errors at 512 channels, printed with `--nocapture`.
#[test]
fn errors_are_small_with_many_channels() {
    let mut random = Random(9);
    // Many channels on one side each: the output sums over the one, the input gradient over the other.
    for (size, stride, kernel, from, to) in [
        (24, 1, 3, 512, 32),
        (24, 1, 3, 32, 512),
        (24, 2, 3, 512, 32),
        (24, 2, 3, 32, 512),
        (16, 1, 1, 512, 64),
    ] {
        let conv = Conv {
            batch: 1,
            from,
            to,
            height: size,
            width: size,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [kernel / 2; 2],
        };
        let values = Values::new(&conv, &mut random);
        let reference = values.reference(&conv);
        let errors: Vec<f64> = values.ours(&conv).iter().zip(&reference).map(|(a, b)| error(a, b)).collect();
        println!(
            "{from} to {to}, {kernel}x{kernel} stride {stride}: out {:.2e}, dx {:.2e}, dw {:.2e}",
            errors[0], errors[1], errors[2]
        );
        assert!(errors.iter().all(|error| *error < 3e-6), "{errors:?}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let mut random = Random(10);
    for (channels, size, stride) in [(40, 33, 1), (300, 9, 1), (40, 33, 2), (3, 40, 1)] {
        let conv = Conv {
            batch: 2,
            from: channels,
            to: channels + 5,
            height: size,
            width: size + 3,
            kernel: [3, 3],
            stride: [stride; 2],
            padding: [1, 1],
        };
        let values = Values::new(&conv, &mut random);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| values.ours(&conv)).map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
        };
        let one = run(1);
        assert!(one == run(2) && one == run(5), "{conv:?}");
        let twice = run(2);
        assert!(one == twice, "{conv:?} again");
    }
}

#[test]
fn values_that_are_not_finite_reach_every_output_they_feed() {
    let mut random = Random(11);
    for case in 0..200 {
        let conv = any(&mut random);
        let mut values = Values::new(&conv, &mut random);
        if values.x.is_empty() || values.grad.is_empty() {
            continue;
        }
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][case % 3];
        let [x, weight, grad] = [&mut values.x, &mut values.weight, &mut values.grad];
        let place = [x, weight, grad].into_iter().nth(random.below(3)).expect("three");
        let index = random.below(place.len());
        place[index] = bad;
        for (ours, reference) in values.ours(&conv).iter().zip(values.reference(&conv)) {
            for (a, b) in ours.iter().zip(&reference) {
                assert!(b.is_finite() || !a.is_finite(), "case {case} {conv:?}: {a} instead of {b}");
            }
        }
    }
}

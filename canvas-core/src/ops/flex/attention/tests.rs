//! Against attention written plainly in f64.

use crate::ops::flex::attention::{Dims, Scores, View, backward, forward};
use crate::ops::flex::math::{exp, tanh};
use crate::ops::flex::simd::dispatch;
use pulp::{Simd, WithSimd};

/// Numbers from a generator, uniform in -1..1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32) / (1 << 23) as f32 - 1.0
    }
    fn fill(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| self.next() * size).collect()
    }
}

/// An owned problem: queries, keys and values are slices of rows with other numbers between them.
struct Case {
    dims: Dims,
    q: (Vec<f32>, [usize; 3]),
    k: (Vec<f32>, [usize; 3]),
    v: (Vec<f32>, [usize; 3]),
    grad: (Vec<f32>, [usize; 3]),
    scale: f32,
    softcap: Option<f32>,
    bias: Option<(Vec<f32>, [usize; 4])>,
    hidden: Option<(Vec<u8>, [usize; 4])>,
}

/// Strides of a tensor that is the same along the axes that are not marked.
fn broadcast(sizes: [usize; 4], marks: [bool; 4]) -> (usize, [usize; 4]) {
    let (mut count, mut strides) = (1, [0; 4]);
    for i in (0..4).rev() {
        if marks[i] {
            strides[i] = count;
            count *= sizes[i];
        }
    }
    (count, strides)
}

impl Case {
    fn new([b, h, kv, n, t, d, v]: [usize; 7], size: f32, seed: u64) -> Self {
        let dims = Dims { batch: b, heads: h, kv_heads: kv, rows: n, keys: t, width: d, depth: v };
        let mut random = Random(seed);
        let mut make = |heads: usize, rows: usize, width: usize, gap: usize, size: f32| {
            let row = heads * width + gap;
            (random.fill(b * rows * row, size), [rows * row, width, row])
        };
        Self {
            dims,
            q: make(h, n, d, 5, size),
            k: make(kv, t, d, 3, size),
            v: make(kv, t, v, 0, 1.0),
            grad: make(h, n, v, 7, 1.0),
            scale: (d as f32).sqrt().recip(),
            softcap: None,
            bias: None,
            hidden: None,
        }
    }
    fn sizes(&self) -> [usize; 4] {
        [self.dims.batch, self.dims.heads, self.dims.rows, self.dims.keys]
    }
    fn with_bias(mut self, marks: [bool; 4]) -> Self {
        let (count, strides) = broadcast(self.sizes(), marks);
        self.bias = Some((Random(9).fill(count, 2.0), strides));
        self
    }
    fn with_hidden(mut self, marks: [bool; 4], hide: impl Fn(usize) -> bool) -> Self {
        let (count, strides) = broadcast(self.sizes(), marks);
        self.hidden = Some(((0..count).map(|i| u8::from(hide(i))).collect(), strides));
        self
    }
    fn scores(&self) -> Scores<'_> {
        Scores {
            scale: self.scale,
            softcap: self.softcap,
            bias: self.bias.as_ref().map(|(data, strides)| (&data[..], *strides)),
            hidden: self.hidden.as_ref().map(|(data, strides)| (&data[..], *strides)),
        }
    }
    /// Output, and gradients of queries, keys and values.
    fn run(&self) -> [Vec<f32>; 4] {
        let Dims { batch: b, heads: h, kv_heads: kv, rows: n, keys: t, width: d, depth } = self.dims;
        // Whatever was there before.
        let full = |count| vec![7.0; count];
        let (mut out, mut stats) = (full(b * n * h * depth), vec![[7.0; 2]; b * h * n]);
        let [q, k, v, grad] =
            [&self.q, &self.k, &self.v, &self.grad].map(|(data, strides)| View { data, strides: *strides });
        forward([q, k, v], self.dims, self.scores(), &mut out, Some(&mut stats));
        let mut again = full(out.len());
        forward([q, k, v], self.dims, self.scores(), &mut again, None);
        assert_eq!(bits(&out), bits(&again));
        let (mut dq, mut dk, mut dv) = (full(b * n * h * d), full(b * t * kv * d), full(b * t * kv * depth));
        let seen = View { data: &out, strides: [n * h * depth, depth, h * depth] };
        backward([q, k, v, seen, grad], &stats, self.dims, self.scores(), [&mut dq, &mut dk, &mut dv]);
        [out, dq, dk, dv]
    }
    /// The same in f64, with maps.
    fn plain(&self) -> [Vec<f64>; 4] {
        let Dims { batch, heads, kv_heads, rows, keys, width, depth } = self.dims;
        let mut out = vec![0.0; batch * rows * heads * depth];
        let mut dq = vec![0.0; batch * rows * heads * width];
        let mut dk = vec![0.0; batch * keys * kv_heads * width];
        let mut dv = vec![0.0; batch * keys * kv_heads * depth];
        let get = |(data, s): &(Vec<f32>, [usize; 3]), [b, h, n]: [usize; 3], i: usize| {
            f64::from(data[b * s[0] + h * s[1] + n * s[2] + i])
        };
        for (b, h, n) in (0..batch * heads * rows).map(|i| (i / rows / heads, i / rows % heads, i % rows)) {
            let head = h / (heads / kv_heads);
            let at = |t: usize, s: &[usize; 4]| b * s[0] + h * s[1] + n * s[2] + t * s[3];
            let (mut map, mut slope) = (vec![0.0; keys], vec![f64::from(self.scale); keys]);
            for t in 0..keys {
                let dot = |i| get(&self.q, [b, h, n], i) * get(&self.k, [b, head, t], i);
                map[t] = (0..width).map(dot).sum::<f64>() * f64::from(self.scale);
                if let Some(cap) = self.softcap.map(f64::from) {
                    let bent = (map[t] / cap).tanh();
                    (map[t], slope[t]) = (cap * bent, slope[t] * (1.0 - bent * bent));
                }
                map[t] += self.bias.as_ref().map_or(0.0, |(x, s)| f64::from(x[at(t, s)]));
                if self.hidden.as_ref().is_some_and(|(x, s)| x[at(t, s)] != 0) {
                    (map[t], slope[t]) = (f64::from(f32::MIN), 0.0);
                }
            }
            let max = map.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            map.iter_mut().for_each(|x| *x = (*x - max).exp());
            let total: f64 = map.iter().sum();
            map.iter_mut().for_each(|x| *x /= total);
            let place = (b * rows + n) * heads + h;
            let mut dmap = vec![0.0; keys];
            for t in 0..keys {
                for i in 0..depth {
                    let grad = get(&self.grad, [b, h, n], i);
                    out[place * depth + i] += map[t] * get(&self.v, [b, head, t], i);
                    dv[((b * keys + t) * kv_heads + head) * depth + i] += map[t] * grad;
                    dmap[t] += grad * get(&self.v, [b, head, t], i);
                }
            }
            let mean: f64 = map.iter().zip(&dmap).map(|(a, b)| a * b).sum();
            for t in 0..keys {
                let by = map[t] * (dmap[t] - mean) * slope[t];
                for i in 0..width {
                    dq[place * width + i] += by * get(&self.k, [b, head, t], i);
                    dk[((b * keys + t) * kv_heads + head) * width + i] += by * get(&self.q, [b, h, n], i);
                }
            }
        }
        [out, dq, dk, dv]
    }
    /// Largest difference relative to the largest magnitude, of each result, or to that of inputs (1).
    fn errors(&self) -> [f64; 4] {
        let (found, expected) = (self.run(), self.plain());
        [0, 1, 2, 3].map(|i| {
            let size = expected[i].iter().fold(1.0, |size: f64, x| size.max(x.abs()));
            let off = found[i].iter().zip(&expected[i]).map(|(a, b)| (f64::from(*a) - b).abs());
            // Not `max`, which would pass over NaN.
            off.fold(0.0, |worst, off| if off <= worst { worst } else { off }) / size
        })
    }
    fn check(&self, what: &str) {
        let errors = self.errors();
        assert!(errors.iter().all(|&off| off < 2e-6), "{what}: {:?} off by {errors:?}", self.dims);
    }
}

/// To compare all of a number, NaN too.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// `B, H, K, N, T, D, V`
const SHAPES: [[usize; 7]; 18] = [
    [1, 1, 1, 1, 1, 1, 1],
    [2, 3, 3, 7, 5, 4, 4],
    [1, 2, 1, 17, 33, 40, 40],
    [2, 3, 1, 50, 77, 40, 40],
    [1, 6, 2, 31, 19, 24, 8],
    [1, 4, 2, 100, 131, 72, 64],
    [2, 2, 2, 256, 256, 64, 64],
    [1, 1, 1, 193, 267, 5, 3],
    [1, 1, 1, 300, 1, 16, 16],
    [1, 1, 1, 1, 300, 16, 16],
    [3, 1, 1, 9, 133, 13, 26],
    [1, 1, 1, 97, 500, 65, 7],
    [1, 2, 2, 8, 12, 8, 8],
    [1, 1, 1, 24, 66, 6, 6],
    [1, 1, 1, 500, 77, 40, 40],
    [1, 1, 1, 64, 200, 512, 512],
    [1, 3, 3, 95, 132, 16, 15],
    [70, 1, 1, 10, 70, 9, 9],
];

const ALL: [bool; 4] = [true; 4];

/// Along which axes a bias or a mask differs.
const MARKS: [[bool; 4]; 5] = [
    ALL,
    [true, false, false, true],
    [false, false, true, true],
    [false, true, true, true],
    [false, false, false, true],
];

#[test]
fn matches_plain_attention() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        Case::new(shape, 1.0, i as u64).check("plain");
    }
}

#[test]
fn biases_masks_and_caps_match() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        for marks in MARKS {
            let seed = 100 + i as u64;
            // Some rows of small shapes are hidden whole.
            let hide = |i: usize| i.wrapping_mul(2654435761) >> 7 & 3 == 0;
            Case::new(shape, 1.0, seed).with_bias(marks).check("bias");
            Case::new(shape, 1.0, seed).with_hidden(marks, hide).check("mask");
            let mut both = Case::new(shape, 3.0, seed).with_bias(marks).with_hidden(marks, hide);
            both.softcap = Some(2.0);
            both.check("all");
        }
    }
}

#[test]
fn large_scores_match() {
    for shape in [[1, 2, 1, 50, 300, 16, 16], [1, 1, 1, 100, 140, 64, 64]] {
        let mut case = Case::new(shape, 1.0, 3);
        case.scale = 80.0 / (shape[5] as f32 / 3.0);
        // Rounding of a score is a relative error of its exponential.
        let errors = case.errors();
        assert!(errors.iter().all(|&off| off < 2e-5), "off by {errors:?}");
    }
    let mut case = Case::new([1, 2, 1, 50, 300, 16, 16], 1.0, 3).with_bias(ALL);
    let bias = case.bias.as_mut().expect("just made");
    bias.0.iter_mut().for_each(|x| *x *= 40.0);
    let errors = case.errors();
    assert!(errors.iter().all(|&off| off < 8e-6), "off by {errors:?}");
}

#[test]
fn a_row_that_sees_nothing_is_the_mean() {
    let rows = 5;
    for keys in [3, 300] {
        let case = Case::new([1, 2, 1, rows, keys, 4, 4], 1.0, 1);
        let case = case.with_hidden(ALL, |i| i / keys % rows == 2);
        case.check("hidden row");
        // By a bias instead, which has gradients.
        let mut case = Case::new([1, 2, 1, rows, keys, 4, 4], 1.0, 1).with_bias(ALL);
        let (bias, _) = case.bias.as_mut().expect("just made");
        bias.iter_mut().enumerate().filter(|(i, _)| i / keys % rows == 2).for_each(|(_, x)| *x = f32::MIN);
        let found = case.run();
        assert!(found.iter().flatten().all(|x| x.is_finite()));
    }
}

#[test]
fn minus_infinity_hides() {
    let keys = 300;
    let mut biased = Case::new([1, 1, 1, 40, keys, 8, 8], 1.0, 1).with_bias([false, false, true, true]);
    // The whole first tile, and more.
    let (bias, _) = biased.bias.as_mut().expect("just made");
    bias.iter_mut().enumerate().for_each(|(i, x)| *x = if i % keys < 200 { f32::NEG_INFINITY } else { 0.0 });
    let masked = Case::new([1, 1, 1, 40, keys, 8, 8], 1.0, 1);
    let masked = masked.with_hidden([false, false, true, true], |i| i % keys < 200);
    for (a, b) in biased.run().iter().zip(masked.run()) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn nan_stays_nan() {
    let nan = |part: usize| {
        let mut case = Case::new([1, 1, 1, 30, 140, 8, 8], 1.0, 1);
        let (data, strides) = match part {
            0 => &mut case.q,
            1 => &mut case.k,
            _ => &mut case.v,
        };
        data[3 * strides[2] + 2] = f32::NAN;
        case.run()
    };
    for (part, rows) in [(0, 3..4), (1, 0..30), (2, 0..30)] {
        let [out, dq, dk, dv] = nan(part);
        assert!(rows.clone().all(|n| out[n * 8..][..8].iter().any(|x| x.is_nan())), "part {part}");
        assert!(rows.clone().all(|n| dq[n * 8..][..8].iter().any(|x| x.is_nan())), "part {part}");
        assert!(dk.iter().any(|x| x.is_nan()), "part {part}");
        assert!(part == 2 || dv.iter().any(|x| x.is_nan()), "part {part}");
    }
    // And no more than it must be.
    let [out, ..] = nan(0);
    assert_eq!(out.iter().filter(|x| x.is_nan()).count(), 8);
}

#[test]
fn empty_sizes_are_fine() {
    for empty in [0, 3, 4] {
        let mut shape = [2, 2, 1, 5, 6, 4, 4];
        shape[empty] = 0;
        let found = Case::new(shape, 1.0, 1).run();
        assert!(found.iter().flatten().all(|&x| x == 0.0), "{shape:?}: {found:?}");
    }
}

#[test]
fn threads_change_nothing() {
    for shape in [[1, 1, 1, 500, 400, 40, 40], [2, 6, 3, 100, 77, 16, 16], [1, 2, 1, 1000, 77, 8, 8]] {
        let case = Case::new(shape, 1.0, 5).with_bias([false, true, true, true]);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.run()).map(|x| bits(&x))
        };
        let one = run(1);
        for threads in [2, 5, 5, 5] {
            assert!(run(threads) == one, "{shape:?} with {threads} threads");
        }
    }
}

/// A function of all numbers of a slice, its length a multiple of 16.
struct Each<'a, F>(&'a mut [f32], F);

/// Which function.
enum Which {
    Exp,
    Tanh,
}

impl WithSimd for Each<'_, Which> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for x in S::as_mut_simd_f32s(self.0).0 {
            *x = match self.1 {
                Which::Exp => exp(simd, *x),
                Which::Tanh => tanh(simd, *x),
            };
        }
    }
}

/// Largest error in units in the last place, and what it is for.
fn worst(x: &[f32], which: Which, f: impl Fn(f64) -> f64) -> (f64, f32) {
    let mut y = x.to_vec();
    dispatch(Each(&mut y, which));
    let ulps = x.iter().zip(&y).map(|(&x, &y)| {
        let exact = f(f64::from(x));
        let ulp = f64::from((exact as f32).abs().next_up()) - f64::from((exact as f32).abs());
        (((f64::from(y) - exact) / ulp).abs(), x)
    });
    ulps.fold((0.0, 0.0), |worst, off| if off.0 <= worst.0 { worst } else { off })
}

#[test]
fn functions_are_accurate() {
    let count = 1 << 22;
    let grid = |from: f64, to: f64| -> Vec<f32> {
        (0..count).map(|i| (from + (to - from) * i as f64 / count as f64) as f32).collect()
    };
    for (from, to) in [(-87.3, 88.72), (-1.0, 1.0), (-0.01, 0.01)] {
        let (off, x) = worst(&grid(from, to), Which::Exp, f64::exp);
        println!("exp on {from}..{to}: {off:.3} ulp at {x}");
        assert!(off < 1.0, "exp({x}) is off by {off}");
    }
    for (from, to) in [(-12.0, 12.0), (-1.0, 1.0), (-0.01, 0.01)] {
        let (off, x) = worst(&grid(from, to), Which::Tanh, f64::tanh);
        println!("tanh on {from}..{to}: {off:.3} ulp at {x}");
        assert!(off < 3.0, "tanh({x}) is off by {off}");
    }
}

#[test]
fn functions_have_limits() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let odd_nan = f32::from_bits(0x7fc0_01ff);
    let x =
        [0.0, -0.0, -87.4, f32::MIN, -inf, 88.73, f32::MAX, inf, nan, -nan, odd_nan, -1e-40, 0., 0., 0., 0.];
    let mut y = x;
    dispatch(Each(&mut y, Which::Exp));
    assert_eq!(y[..8], [1.0, 1.0, 0.0, 0.0, 0.0, inf, inf, inf]);
    assert!(y[8..11].iter().all(|y| y.is_nan()) && y[11] == 1.0);
    let mut y = x;
    dispatch(Each(&mut y, Which::Tanh));
    assert_eq!(y[..8], [0.0, 0.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0]);
    assert!(y[8..11].iter().all(|y| y.is_nan()));
}

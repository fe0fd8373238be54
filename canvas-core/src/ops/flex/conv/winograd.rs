//! Winograd's F(2x4, 3x3): 2 x 4 outputs of a 3x3 kernel from 4 x 6 inputs with 24 multiplications instead of 72.
//!
//! Down the rows the interpolation points are 0, 1, -1; along the columns 0, 1, -1, 1/2, -2, which keep the error
//! near that of the direct sum (the usual 0, 1, -1, 2, -2 lose twice as much, and 4 x 4 outputs eight times).

use crate::ops::flex::tile::WIDE;

/// Products per tile, numbered `row * 6 + column`.
pub const PRODUCTS: usize = 24;
/// Outputs per tile, rows and columns.
pub const OUTPUTS: [usize; 2] = [2, 4];

/// One value for each of [`WIDE`] tiles.
pub type Lanes = [f32; WIDE];

/// The six values of one lane.
#[inline(always)]
fn across(row: &[Lanes; 6], lane: usize) -> [f32; 6] {
    [row[0][lane], row[1][lane], row[2][lane], row[3][lane], row[4][lane], row[5][lane]]
}

/// Input transform of four values down a column.
#[inline(always)]
fn input_down(d: [f32; 4]) -> [f32; 4] {
    [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]]
}

/// Input transform of six values along a row.
#[inline(always)]
fn input_across(d: [f32; 6]) -> [f32; 6] {
    let (odd, even) = (d[3] - d[1], d[4] - d[2]);
    [
        0.5 * (d[0] + d[4]) - d[2] + 0.75 * odd,
        0.5 * (d[4] - d[1]) + 0.25 * d[2] + 1.25 * d[3],
        0.5 * (d[4] + d[1]) + 0.25 * d[3] - 1.25 * d[2],
        odd + 0.5 * even,
        even - 0.5 * odd,
        0.5 * (d[1] + d[5]) - d[3] + 0.75 * even,
    ]
}

/// Writes the six inputs in `line` of each of `len` tiles, four columns apart, to the lanes from `first` of `d`.
#[inline(always)]
pub fn spread(line: &[[f32; 4]], d: &mut [Lanes; 6], first: usize, len: usize) {
    for lane in 0..len {
        let (here, next) = (line[lane], line[lane + 1]);
        for column in 0..4 {
            d[column][first + lane] = here[column];
        }
        d[4][first + lane] = next[0];
        d[5][first + lane] = next[1];
    }
}

/// Transforms 4 x 6 inputs of each tile to the left-hand factors of the products, in place.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Columns and lanes are the inner indices.
pub fn input(d: &mut [[Lanes; 6]; 4]) {
    for column in 0..6 {
        for lane in 0..WIDE {
            let t =
                input_down([d[0][column][lane], d[1][column][lane], d[2][column][lane], d[3][column][lane]]);
            for row in 0..4 {
                d[row][column][lane] = t[row];
            }
        }
    }
    for row in d {
        for lane in 0..WIDE {
            let t = input_across(across(row, lane));
            for column in 0..6 {
                row[column][lane] = t[column];
            }
        }
    }
}

/// Weight transform of three taps down a column.
#[inline(always)]
fn weight_down(g: [f32; 3]) -> [f32; 4] {
    let (ends, middle) = (0.5 * (g[0] + g[2]), 0.5 * g[1]);
    [g[0], ends + middle, ends - middle, g[2]]
}

/// Weight transform of three taps along a row.
#[inline(always)]
fn weight_across(g: [f32; 3]) -> [f32; 6] {
    let (ends, middle) = ((g[0] + g[2]) * (2.0 / 3.0), g[1] * (2.0 / 3.0));
    [
        2.0 * g[0],
        ends + middle,
        middle - ends,
        (g[0] * 4.0 + g[1] * 2.0 + g[2]) * (-8.0 / 15.0),
        (g[0] - g[1] * 2.0 + g[2] * 4.0) * (1.0 / 15.0),
        2.0 * g[2],
    ]
}

/// Transforms the 3 x 3 taps of `N` filters to the right-hand factors of the products.
#[inline(always)]
pub fn weight<const N: usize>(g: &[[[f32; N]; 3]; 3]) -> [[f32; N]; PRODUCTS] {
    let mut down = [[[0.0; N]; 3]; 4];
    let mut out = [[0.0; N]; PRODUCTS];
    for column in 0..3 {
        for n in 0..N {
            let t = weight_down([g[0][column][n], g[1][column][n], g[2][column][n]]);
            for row in 0..4 {
                down[row][column][n] = t[row];
            }
        }
    }
    for (row, down) in down.iter().enumerate() {
        for n in 0..N {
            let t = weight_across([down[0][n], down[1][n], down[2][n]]);
            for column in 0..6 {
                out[row * 6 + column][n] = t[column];
            }
        }
    }
    out
}

/// Output transform of six sums along a row.
#[inline(always)]
fn output_across(m: [f32; 6]) -> [f32; 4] {
    let (sum, difference) = (m[1] + m[2], m[1] - m[2]);
    [
        m[0] + sum + m[3] + m[4],
        difference + 0.5 * m[3] - 2.0 * m[4],
        sum + 0.25 * m[3] + 4.0 * m[4],
        difference + 0.125 * m[3] - 8.0 * m[4] + m[5],
    ]
}

/// Transforms the sums of products `m` (`pitch` apart), plus `bias`, to 2 rows of 4 outputs a tile.
#[inline(always)]
pub fn output(m: &[f32], pitch: usize, bias: f32, out: &mut [[[f32; 4]; WIDE]; 2]) {
    let mut rows = [[[0.0; WIDE]; 6]; 2];
    for column in 0..6 {
        let m = |row: usize| m[(row * 6 + column) * pitch..].first_chunk::<WIDE>().expect("a panel");
        let m = [m(0), m(1), m(2), m(3)];
        for lane in 0..WIDE {
            rows[0][column][lane] = m[0][lane] + m[1][lane] + m[2][lane];
            rows[1][column][lane] = m[1][lane] - m[2][lane] + m[3][lane];
        }
    }
    for (rows, out) in rows.iter().zip(out) {
        for (lane, out) in out.iter_mut().enumerate() {
            let [a, b, c, d] = output_across(across(rows, lane));
            *out = [a + bias, b + bias, c + bias, d + bias];
        }
    }
}

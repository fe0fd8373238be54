//! What is correlated: a layer's sizes, and its weights as they lie in memory.

/// What to correlate: `grid` outputs per channel and image, each a sum over `from` channels and a window of input.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Number of images.
    pub batch: usize,
    /// Channels of the input.
    pub from: usize,
    /// Channels of the output.
    pub to: usize,
    /// Rows and columns of the input.
    pub size: [usize; 2],
    /// Rows and columns of outputs to compute.
    pub grid: [usize; 2],
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Input rows and columns from one output to the next.
    pub step: [usize; 2],
    /// Input row and column where the window of the first output starts.
    pub origin: [isize; 2],
    /// Rows and columns of the memory of an output channel.
    pub plane: [usize; 2],
    /// Row and column there of the first output.
    pub first: [usize; 2],
    /// Rows and columns there from one output to the next.
    pub spread: [usize; 2],
}

/// Weights read through strides, so that a flipped or transposed kernel needs no copy.
#[derive(Debug, Clone)]
pub struct Taps<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Index of the first tap of the first channels.
    pub base: usize,
    /// Distance of two output channels.
    pub out: usize,
    /// Distance of two input channels.
    pub into: usize,
    /// Distance of two rows of taps.
    pub row: isize,
    /// Distance of two taps in a row.
    pub column: isize,
}

impl Taps<'_> {
    /// Whether all taps to an output channel lie one after another, in the order of channels, rows and columns.
    pub fn lie_in_rows(&self, [rows, columns]: [usize; 2]) -> bool {
        self.column == 1 && self.row == columns as isize && self.into == rows * columns
    }

    /// The tap at `row`, `column` from channel `into` to channel `out`.
    #[inline(always)]
    pub fn at(&self, out: usize, into: usize, row: usize, column: usize) -> f32 {
        let channel = self.base + out * self.out + into * self.into;
        self.data[(channel as isize + row as isize * self.row + column as isize * self.column) as usize]
    }

    /// Writes the 3 x 3 taps from channel `into` to channel `out`, which lie together, to lane `lane` of `g`.
    #[inline(always)]
    pub fn square(&self, out: usize, into: usize, lane: usize, g: &mut [[[f32; 8]; 3]; 3]) {
        let flipped = self.column < 0;
        let start = self.base + out * self.out + into * self.into - if flipped { 8 } else { 0 };
        let taps = self.data[start..].first_chunk::<9>().expect("nine taps");
        for (i, g) in g.as_flattened_mut().iter_mut().enumerate() {
            g[lane] = if flipped { taps[8 - i] } else { taps[i] };
        }
    }
}

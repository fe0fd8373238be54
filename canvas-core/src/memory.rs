//! How much memory a network will need, before it has any.
//!
//! Networks count with a [`Peak`] what their layers hold at the worst moment; the numbers are those of the CPU, measured in
//! `benches/RESULTS.md`.

use burn::module::Module;
use std::fmt;

/// Memory that running a network without gradients is estimated to take, in bytes.
///
/// # Example
/// ```
/// use canvas_core::Memory;
/// let memory = Memory { weights: 3 << 30, activations: 512 << 20 };
/// assert_eq!(memory.total(), 3_758_096_384);
/// assert_eq!(memory.to_string(), "3.50 GiB (3.00 GiB of weights, 0.50 GiB of activations)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All parameters.
    pub weights: u64,
    /// Everything else that is alive at the worst moment.
    pub activations: u64,
}

impl Memory {
    /// Of a module, and of so many numbers beside its parameters; `bytes` are those of a number, 4 for f32. Parameters
    /// that were never drawn are not drawn.
    ///
    /// A quarter of the activations, at most 64 MiB, comes on top: what an allocator keeps of small blocks that were
    /// freed, and the work space of matrix products.
    pub fn of(module: &impl Module, numbers: usize, bytes: usize) -> Self {
        let bytes = |numbers: usize| numbers as u64 * bytes as u64;
        let activations = bytes(numbers);
        let kept = (activations / 4).min(64 << 20);
        Self { weights: bytes(module.num_params()), activations: activations + kept }
    }

    /// Weights and activations.
    pub fn total(&self) -> u64 {
        self.weights + self.activations
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        let (total, weights, activations) = (gib(self.total()), gib(self.weights), gib(self.activations));
        write!(f, "{total:.2} GiB ({weights:.2} GiB of weights, {activations:.2} GiB of activations)")
    }
}

/// Lets the allocator keep what is freed instead of giving it back to the system, which hands out every page anew and
/// filled with zeros: a large part of the time of fast operations. A program calls it once, before it makes tensors.
///
/// It is for glibc's allocator, and does nothing where there is another, or where the environment has a
/// `MALLOC_TRIM_THRESHOLD_` of its own. Tensors above 32 MiB are still given back.
pub fn keep_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_TRIM_THRESHOLD_").is_some() {
        return; // what it says would be overruled
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, bytes) in
        [(libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_TRIM_THRESHOLD, i32::MAX), (libc::M_TOP_PAD, 256 << 20)]
    {
        // SAFETY: it takes two numbers by value, and allocations of other threads wait for it.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(option, bytes)
        };
    }
}

/// The most numbers that are alive at once while a network runs: what layers hold, and what the CPU's kernels keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    held: usize,
    packed: usize,
}

impl Peak {
    /// At a moment so many are held.
    pub fn holds(&mut self, numbers: usize) {
        self.held = self.held.max(numbers);
    }

    /// A 3x3 convolution without its weights, while so many numbers wait: its input and output are held.
    pub fn convolution(&mut self, waiting: usize, [from, to]: [usize; 2], pixels: usize) {
        /// Numbers that are packed at most, of the input and of the weights.
        const PACKED: usize = 2 << 20;
        /// Packed numbers for one: a window's for a pixel, and Winograd's products of 2x4 pixels for a weight.
        const FOR_ONE: [usize; 2] = [9, 24];
        self.holds(waiting + (from + to) * pixels);
        let packed = [from * pixels * FOR_ONE[0], from * to * FOR_ONE[1]].map(|packed| packed.min(PACKED));
        self.packed = self.packed.max(packed.iter().sum());
    }

    /// A residual block without its weights, while so many numbers wait: its input, and its first convolution. Norms and
    /// activations hold no more.
    pub fn residual_block(&mut self, waiting: usize, [from, to]: [usize; 2], pixels: usize) {
        self.convolution(waiting + from * pixels, [from, to], pixels);
    }

    /// All of them: the memory for packed numbers stays from one layer to the next.
    pub fn numbers(&self) -> usize {
        self.held + self.packed
    }
}

//! How much memory a network will need, before it has any.
//!
//! Networks count with these functions what their layers hold at the worst moment; the numbers are those of Burn's CPU
//! backend, measured in `benches/RESULTS.md`.

use burn::module::Module;
use std::fmt;
use std::thread::available_parallelism;

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

/// The most numbers alive in a residual block without its weights: its input, and its first 3x3 convolution. Norms and
/// activations hold no more.
pub fn residual_block([from, to]: [usize; 2], pixels: usize) -> usize {
    from * pixels + convolution([from, to], pixels)
}

/// The most numbers alive in a 3x3 convolution without its weights: input and output, a copy of the input and one of
/// the weights in another order, and what the threads gather around the pixels they are at.
pub fn convolution([from, to]: [usize; 2], pixels: usize) -> usize {
    /// Pixels that Burn's CPU backend convolves at once in each thread.
    const TILE: usize = 512;
    let threads = available_parallelism().map_or(1, usize::from);
    (2 * from + to) * pixels + 9 * from * to + 9 * from * pixels.min(TILE * threads)
}

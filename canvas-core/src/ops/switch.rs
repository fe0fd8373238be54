//! What the environment says of kernels, and the switch that turns them off.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};

const UNREAD: u8 = 0;
const ON: u8 = 1;
const OFF: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNREAD);

/// `CANVAS_KERNELS`.
static SAID: LazyLock<Option<String>> = LazyLock::new(|| {
    let said = std::env::var_os("CANVAS_KERNELS")?.to_string_lossy().into_owned();
    assert!(
        ["off", "avx2"].contains(&&*said),
        "CANVAS_KERNELS={said}: it can be off or avx2, or not be there"
    );
    Some(said)
});

/// Turns the kernels on or off for the whole process: off, every operation is its definition.
pub fn use_kernels(on: bool) {
    STATE.store(if on { ON } else { OFF }, Ordering::Relaxed);
}

/// Whether kernels take the place of definitions; from the start they do, unless the environment has `CANVAS_KERNELS=off`.
///
/// # Panics
/// If `CANVAS_KERNELS` is something else than `off` or `avx2`.
pub fn kernels_are_on() -> bool {
    match STATE.load(Ordering::Relaxed) {
        UNREAD => {
            let on = SAID.as_deref() != Some("off");
            use_kernels(on);
            on
        }
        state => state == ON,
    }
}

/// Whether kernels take AVX-512 where the processor has it: unless the environment has `CANVAS_KERNELS=avx2`.
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub(super) fn avx512_is_on() -> bool {
    SAID.as_deref() != Some("avx2")
}

//! The switch that turns kernels off.

use std::sync::atomic::{AtomicU8, Ordering};

const UNREAD: u8 = 0;
const ON: u8 = 1;
const OFF: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNREAD);

/// Turns the kernels on or off for the whole process: off, every operation is its definition.
pub fn use_kernels(on: bool) {
    STATE.store(if on { ON } else { OFF }, Ordering::Relaxed);
}

/// Whether kernels take the place of definitions; from the start they do, unless the environment has `CANVAS_KERNELS=off`.
pub fn kernels_are_on() -> bool {
    match STATE.load(Ordering::Relaxed) {
        UNREAD => {
            let on = std::env::var_os("CANVAS_KERNELS").is_none_or(|value| value != "off");
            use_kernels(on);
            on
        }
        state => state == ON,
    }
}

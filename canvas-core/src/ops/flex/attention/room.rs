//! Memory that is used again: asking the system for it takes as long as the attention of a few hundred tokens.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Numbers that a thread keeps for later, at most: 8 MB.
const KEPT: usize = 2 << 20;

thread_local! {
    /// What is free, and how much that is.
    static FREE: RefCell<(Vec<Vec<f32>>, usize)> = const { RefCell::new((Vec::new(), 0)) };
}

/// Numbers of a cache line, at the start of one of which a room begins: no vector then lies in two.
const LINE: usize = 16;

/// Numbers in memory that goes back to the thread that drops it.
pub struct Room {
    /// Up to [`LINE`] numbers that are not used, and those that are.
    numbers: Vec<f32>,
    /// How many are not.
    skipped: usize,
}

impl Room {
    /// No numbers yet, and room for so many.
    pub fn empty(size: usize) -> Self {
        let used = FREE.with_borrow_mut(|(free, total)| {
            let found = free.pop()?;
            *total -= found.capacity();
            Some(found)
        });
        let mut numbers = used.unwrap_or_default();
        numbers.clear();
        numbers.reserve(size + LINE);
        let skipped = numbers.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        numbers.resize(skipped, 0.0);
        Self { numbers, skipped }
    }

    /// Zeros.
    pub fn zeros(size: usize) -> Self {
        Self::filled(size, 0.0)
    }

    /// The same number everywhere.
    pub fn filled(size: usize, x: f32) -> Self {
        let mut room = Self::empty(size);
        room.fill_up(size, x);
        room
    }

    /// Appends numbers.
    pub fn append(&mut self, x: &[f32]) {
        self.numbers.extend_from_slice(x);
    }

    /// Appends a number until there are so many.
    pub fn fill_up(&mut self, size: usize, x: f32) {
        self.numbers.resize(self.skipped + size, x);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.numbers);
        // A thread that ends keeps nothing.
        let _ = FREE.try_with(|free| {
            let (free, total) = &mut *free.borrow_mut();
            if *total + room.capacity() <= KEPT {
                *total += room.capacity();
                free.push(room);
            }
        });
    }
}

impl Deref for Room {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.numbers[self.skipped..]
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.skipped..]
    }
}

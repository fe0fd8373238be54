//! Things that are made slowly and wanted again soon.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The values used last, as many as weigh no more than a limit; threads that want the same one wait for the first to make it.
pub(super) struct Recent<V> {
    limit: u64,
    /// Used last at the back.
    slots: Mutex<VecDeque<(usize, Arc<Slot<V>>)>>,
}

struct Slot<V> {
    value: Mutex<Option<Arc<V>>>,
    weight: AtomicU64,
}

impl<V> Recent<V> {
    pub fn new(limit: u64) -> Self {
        Self { limit, slots: Mutex::default() }
    }

    /// The value of a key, made if it is not there; with it comes its weight. A failure is not kept.
    pub fn get<E>(&self, key: usize, make: impl FnOnce() -> Result<(V, u64), E>) -> Result<Arc<V>, E> {
        let slot = self.slot(key);
        let mut held = slot.value.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*held {
            return Ok(value.clone());
        }
        let (value, weight) = make()?;
        let value = Arc::new(value);
        *held = Some(value.clone());
        slot.weight.store(weight, Ordering::Relaxed);
        drop(held);
        self.trim();
        Ok(value)
    }

    fn slot(&self, key: usize) -> Arc<Slot<V>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let held = slots.iter().position(|(held, _)| *held == key).and_then(|place| slots.remove(place));
        let fresh = || (key, Arc::new(Slot { value: Mutex::default(), weight: AtomicU64::new(0) }));
        let slot = held.unwrap_or_else(fresh);
        slots.push_back(slot.clone());
        slot.1
    }

    /// Forgets the oldest; whoever holds one still has it.
    fn trim(&self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let weight = |(_, slot): &(usize, Arc<Slot<V>>)| slot.weight.load(Ordering::Relaxed);
        let mut total = slots.iter().map(weight).fold(0, u64::saturating_add);
        while total > self.limit && slots.len() > 1 {
            total = total.saturating_sub(slots.pop_front().as_ref().map_or(0, weight));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;
    use std::convert::Infallible;

    #[test]
    fn what_was_used_last_is_kept_as_far_as_it_fits() {
        let (recent, made) = (Recent::new(10), std::cell::RefCell::new(Vec::new()));
        let get = |key: usize, weight: u64| {
            let make = || {
                made.borrow_mut().push(key);
                Ok::<_, Infallible>((key * 100, weight))
            };
            let Ok(value) = recent.get(key, make);
            *value
        };
        assert_eq!([get(1, 4), get(2, 4), get(1, 4), get(3, 4), get(1, 4)], [100, 200, 100, 300, 100]);
        assert_eq!(*made.borrow(), [1, 2, 3], "2 went, it was used longest ago");
        get(2, 4);
        get(3, 4);
        assert_eq!(*made.borrow(), [1, 2, 3, 2, 3]);
        get(9, 50);
        get(9, 50);
        assert_eq!(
            made.borrow().last(),
            Some(&9),
            "one that is heavier than all may hold is kept until the next"
        );
        assert_eq!(made.borrow().len(), 6);
    }
}

//! Which parameter a LoRA's name of a layer means.

use super::super::Rules;
use super::super::layout::{Slot, slots};
use super::key::Place;
use burn::module::Module;
use std::collections::{BTreeMap, BTreeSet};

/// Every name under which a LoRA may know the module's layers.
pub(super) struct Names {
    pub slots: Vec<Slot>,
    /// With dots and with underscores.
    by_name: BTreeMap<String, BTreeSet<usize>>,
}

impl Names {
    /// All names by all schemes. Where all of a scheme's keys begin with the same segments, they count without them
    /// as well: `text_model.` of CLIP, `model.diffusion_model.` of a single file.
    pub fn new<M: Module>(module: &M, schemes: &[&Rules]) -> Self {
        let slots = slots(module);
        let mut by_name = BTreeMap::<String, BTreeSet<usize>>::new();
        for rules in schemes {
            let keys: Vec<String> = slots.iter().map(|slot| rules.published(&slot.name)).collect();
            let shared = shared_start(&keys);
            for (at, key) in keys.iter().enumerate() {
                let Some(layer) = key.strip_suffix(".weight") else { continue };
                for name in [layer, &layer[shared.min(layer.len())..]] {
                    by_name.entry(name.to_owned()).or_default().insert(at);
                    by_name.entry(name.replace('.', "_")).or_default().insert(at);
                }
            }
        }
        Self { slots, by_name }
    }

    /// The one parameter that is meant; none, or several where the schemes contradict each other.
    pub fn find(&self, place: &Place) -> Vec<&Slot> {
        let found: BTreeSet<usize> =
            place.names.iter().filter_map(|name| self.by_name.get(name)).flatten().copied().collect();
        found.into_iter().map(|at| &self.slots[at]).collect()
    }

    /// The name that is most like a layer's, written in the same way.
    pub fn nearest(&self, place: &Place) -> Option<String> {
        let name = place.names.first()?;
        let alike = self.by_name.keys().filter(|other| other.contains('.') == name.contains('.'));
        let scored = alike.map(|other| (strsim::jaro_winkler(name, other), other));
        let (score, best) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (score > 0.7).then(|| best.clone())
    }
}

/// Bytes of the segments, dots included, that all keys begin with.
fn shared_start(keys: &[String]) -> usize {
    let Some(first) = keys.first() else { return 0 };
    let ends = first.match_indices('.').map(|(dot, _)| dot + 1);
    let shared = |end: &usize| keys.iter().all(|key| key.starts_with(&first[..*end]));
    ends.take_while(shared).last().unwrap_or(0)
}

//! `*.index.json`: which shard holds which key.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// The index, as it is written.
#[derive(serde::Deserialize)]
pub(super) struct Index {
    metadata: Option<IndexMetadata>,
    weight_map: Pairs,
}

#[derive(serde::Deserialize)]
struct IndexMetadata {
    /// Some writers make it a float.
    total_size: Option<f64>,
}

impl Index {
    /// Bytes of all tensors, where the index says it.
    pub fn total_size(&self) -> Option<f64> {
        self.metadata.as_ref().and_then(|metadata| metadata.total_size)
    }

    /// The shard a key should be in.
    pub fn place(&self, key: &str) -> Option<&str> {
        self.weight_map.0.iter().find(|(other, _)| other == key).map(|(_, shard)| shard.as_str())
    }

    /// Which keys each shard should hold.
    pub fn shards(&self) -> Result<BTreeMap<&str, BTreeSet<&str>>, String> {
        let (mut shards, mut seen) = (BTreeMap::<&str, BTreeSet<&str>>::new(), BTreeMap::new());
        for (key, shard) in &self.weight_map.0 {
            if let Some(other) = seen.insert(key, shard) {
                return Err(format!("{key}: listed twice, in {other} and {shard}"));
            }
            if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
                return Err(format!("{key}: expected the name of a file beside the index, found {shard:?}"));
            }
            shards.entry(shard).or_default().insert(key);
        }
        if shards.is_empty() { Err("weight_map is empty".to_owned()) } else { Ok(shards) }
    }
}

/// A JSON object whose keys may repeat: a map would keep the last one silently.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from key to shard")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

use burn::module::{Module, Param};
use burn::prelude::*;
use burn::tensor::{DType, bf16, f16};
use canvas_data::{Cache, CacheError, Damage, Key, ModelHash, Tensors};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The hash of a made-up model.
pub fn model(home: &Path, name: &str) -> ModelHash {
    let path = home.join(format!("{name}.safetensors"));
    fs::write(&path, name).unwrap();
    ModelHash::of_file(&path).unwrap()
}

/// What is cached of item `i`: two tensors whose sizes and values depend on it.
pub fn result(i: u64) -> Tensors {
    let wave = |count: u64| (0..count).map(|j| ((i * 31 + j) as f32 * 0.37).sin());
    let latent: Vec<f16> = wave(16 + i % 7).map(f16::from_f32).collect();
    let text: Vec<f32> = wave(6).collect();
    Tensors::from([
        ("latent".to_owned(), TensorData::new(latent.clone(), [latent.len()])),
        ("text".to_owned(), TensorData::new(text, [2, 3])),
    ])
}

pub fn key(cache: &Cache, i: u64) -> Key {
    cache.key("as it is", &i.to_le_bytes())
}

pub fn put(cache: &Cache, items: std::ops::Range<u64>) -> Result<(), CacheError> {
    let results: Vec<_> = items.map(|i| (key(cache, i), result(i))).collect();
    cache.put(&results)
}

/// Items of a range that are there, each exactly as it was; others are not there.
pub fn present(cache: &Cache, items: std::ops::Range<u64>) -> Vec<u64> {
    let there = |&i: &u64| match cache.get(&key(cache, i)).unwrap() {
        Some(found) => {
            assert_eq!(found, result(i), "item {i}");
            true
        }
        None => false,
    };
    items.filter(there).collect()
}

#[test]
fn tensors_come_back_as_they_were() {
    let home = tempfile::tempdir().unwrap();
    let hash = model(home.path(), "vae");
    let stored = Tensors::from([
        ("bf16".to_owned(), TensorData::new(vec![bf16::from_f32(1.5), bf16::NAN], [2])),
        ("bool".to_owned(), TensorData::from([true, false, true])),
        ("empty".to_owned(), TensorData::new(Vec::<f32>::new(), [0, 4])),
        ("f16".to_owned(), TensorData::new(vec![f16::from_f32(-0.1); 6], [1, 2, 3])),
        ("f32".to_owned(), TensorData::new(vec![f32::MIN_POSITIVE, -0.0, 1e30], [3])),
        ("f64".to_owned(), TensorData::from([std::f64::consts::PI])),
        ("ids".to_owned(), TensorData::from([i64::MIN, 7])),
        ("mask".to_owned(), TensorData::new(vec![1u8, 0, 1], [3, 1])),
    ]);
    let keys = {
        let cache = Cache::open(home.path(), &hash).unwrap();
        let keys = [cache.key("f16", b"one"), cache.key("f16", b"two")];
        cache.put(&[(keys[0], stored.clone()), (keys[1], Tensors::new())]).unwrap();
        keys
    };
    let cache = Cache::open(home.path(), &hash).unwrap();
    let found = cache.get(&keys[0]).unwrap().unwrap();
    for (name, data) in &stored {
        // Bytes: NaN is not equal to itself.
        let same = found[name].as_bytes() == data.as_bytes() && found[name].shape() == data.shape();
        assert!(same && found[name].dtype() == data.dtype(), "{name}");
    }
    assert_eq!(found.len(), stored.len());
    assert_eq!(found["f32"].as_slice::<f32>().unwrap(), [f32::MIN_POSITIVE, -0.0, 1e30]);
    assert_eq!(cache.get(&keys[1]).unwrap(), Some(Tensors::new()));
    assert_eq!((cache.len(), cache.damage()), (2, Damage::default()));
    assert_eq!(cache.bytes(), fs::metadata(cache.path()).unwrap().len());
}

/// Each part of what a key is of counts, and none runs into the next.
#[test]
fn keys_differ_by_model_preparation_and_content() {
    let home = tempfile::tempdir().unwrap();
    let caches = ["a", "b"].map(|name| Cache::open(home.path(), &model(home.path(), name)).unwrap());
    let keys = [
        caches[0].key("crop", b"image"),
        caches[1].key("crop", b"image"),
        caches[0].key("crop, flipped", b"image"),
        caches[0].key("crop", b"imagf"),
        caches[0].key("cropi", b"mage"),
    ];
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    assert_eq!(keys[0], caches[0].key("crop", b"image"));
}

#[derive(Module, Debug)]
struct Net {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

#[test]
fn a_model_is_told_by_its_files_or_its_parameters() {
    let home = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| {
        model(home.path(), name);
        home.path().join(format!("{name}.safetensors"))
    });
    let expected = blake3::hash(b"a").to_string();
    assert_eq!(ModelHash::of_file(&paths[0]).unwrap().to_string(), expected);
    let both = ModelHash::of_files(&paths).unwrap();
    assert_ne!(both, ModelHash::of_files(&paths[..1]).unwrap());
    assert_ne!(both, ModelHash::of_files(&[&paths[1], &paths[0]]).unwrap());
    let missing = ModelHash::of_file(&home.path().join("none.pt")).unwrap_err().to_string();
    assert!(missing.contains("none.pt: "), "{missing}");

    let net = |value: f32, rows: usize| Net {
        weight: Param::from_tensor(Tensor::full([rows, 6 / rows], value, &Device::flex())),
        bias: Param::from_tensor(Tensor::zeros([2], &Device::flex())),
    };
    let hash = |value, rows| ModelHash::of_module(&net(value, rows));
    assert_eq!(hash(0.5, 2), hash(0.5, 2));
    assert_ne!(hash(0.5, 2), hash(0.25, 2));
    assert_ne!(hash(0.5, 2), hash(0.5, 3), "same bytes, another shape");
}

#[test]
fn only_what_is_missing_is_computed_in_one_call() {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::open(home.path(), &model(home.path(), "vae")).unwrap();
    put(&cache, 0..3).unwrap();
    let items = [5, 1, 4, 5, 0];
    let keys = items.map(|i| key(&cache, i));
    let mut asked = Vec::new();
    let found = cache.get_or_insert_with(&keys, |missing| {
        asked.push(missing.to_vec());
        Ok::<_, CacheError>(missing.iter().map(|&place| result(items[place])).collect())
    });
    assert_eq!(found.unwrap(), items.map(result));
    assert_eq!(asked, [vec![0, 2]], "item 5 once");
    assert_eq!(present(&cache, 0..9), [0, 1, 2, 4, 5]);
    let again = cache.get_or_insert_with(&keys, |_| -> Result<_, CacheError> { panic!("all are there") });
    assert_eq!(again.unwrap(), items.map(result));
}

#[test]
fn a_failed_computation_leaves_nothing() {
    #[derive(Debug)]
    enum Error {
        Cache,
        Device(&'static str),
    }
    impl From<CacheError> for Error {
        fn from(_: CacheError) -> Self {
            Self::Cache
        }
    }
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::open(home.path(), &model(home.path(), "vae")).unwrap();
    let error = cache.get_or_insert_with(&[key(&cache, 1)], |_| Err(Error::Device("out of memory")));
    assert!(matches!(error, Err(Error::Device("out of memory"))), "{error:?}");
    let read_only = Cache::open_read_only(home.path(), &model(home.path(), "vae")).unwrap();
    let error = read_only.get_or_insert_with(&[key(&cache, 1)], |_| Ok(vec![result(1)]));
    assert!(matches!(error, Err(Error::Cache)), "{error:?}");
    assert!(cache.is_empty());
    let few = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cache
            .get_or_insert_with(&[key(&cache, 1), key(&cache, 2)], |_| Ok::<_, CacheError>(vec![result(1)]))
            .ok()
    }));
    assert_eq!(*few.unwrap_err().downcast::<String>().unwrap(), "1 results were computed for 2 missing keys");
}

#[test]
fn a_type_that_is_not_stored_is_named() {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::open(home.path(), &model(home.path(), "vae")).unwrap();
    let odd = TensorData::from_bytes_vec(vec![0; 4], [1], DType::Flex32);
    let error = cache.put(&[(key(&cache, 0), Tensors::from([("odd".to_owned(), odd)]))]).unwrap_err();
    assert_eq!(error.to_string(), "tensor odd: values of type Flex32 are not stored");
    assert!(cache.is_empty());
}

#[test]
fn another_models_cache_is_listed_and_removed_but_never_read() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("latents");
    let hashes = ["one", "two", "three"].map(|name| model(home.path(), name));
    for hash in &hashes[1..] {
        let cache = Cache::open(&folder, hash).unwrap();
        cache.put(&[(cache.key("crop", b"image"), result(1))]).unwrap();
    }
    fs::write(folder.join("notes.txt"), "not a cache").unwrap();
    fs::write(folder.join("short.cache"), "not one either").unwrap();
    let cache = Cache::open(&folder, &hashes[0]).unwrap();
    assert_eq!(cache.get(&cache.key("crop", b"image")).unwrap(), None);
    let others = cache.others().unwrap();
    let sizes: u64 = others.iter().map(|other| fs::metadata(&other.path).unwrap().len()).sum();
    assert_eq!(others.iter().map(|other| other.bytes).sum::<u64>(), sizes);
    let mut expected =
        hashes[1..].iter().map(|hash| folder.join(format!("{hash}.cache"))).collect::<Vec<_>>();
    expected.sort();
    assert_eq!(others.into_iter().map(|other| other.path).collect::<Vec<_>>(), expected);

    // A file under another model's name is refused, not read.
    fs::copy(&expected[0], folder.join(format!("{}.cache", model(home.path(), "four")))).unwrap();
    let error = Cache::open(&folder, &model(home.path(), "four")).unwrap_err().to_string();
    assert!(error.ends_with(".cache: is the cache of another model, or its beginning is damaged"), "{error}");

    let busy = Cache::open(&folder, &hashes[1]).unwrap();
    let error = cache.remove_others().unwrap_err();
    assert!(matches!(&error, CacheError::InUse { path } if path == busy.path()), "{error}");
    drop(busy);
    assert!(cache.remove_others().unwrap() > 0);
    assert!(cache.others().unwrap().is_empty());
    assert!(
        cache.path().exists() && folder.join("notes.txt").exists() && folder.join("short.cache").exists()
    );
}

#[test]
fn one_writes_and_others_read_meanwhile() {
    let home = tempfile::tempdir().unwrap();
    let hash = model(home.path(), "vae");
    let missing = Cache::open_read_only(home.path(), &hash).unwrap_err().to_string();
    assert!(missing.contains(&format!("{hash}.cache: ")), "{missing}");
    let cache = Cache::open(home.path(), &hash).unwrap();
    put(&cache, 0..2).unwrap();
    let error = Cache::open(home.path(), &hash).unwrap_err();
    assert!(matches!(error, CacheError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("open for writing elsewhere"), "{error}");

    let reader = Cache::open_read_only(home.path(), &hash).unwrap();
    assert_eq!(present(&reader, 0..9), [0, 1]);
    put(&cache, 2..5).unwrap();
    assert_eq!(present(&reader, 0..9), [0, 1], "as it was opened");
    reader.refresh().unwrap();
    assert_eq!(present(&reader, 0..9), [0, 1, 2, 3, 4]);
    assert!(matches!(put(&reader, 7..8), Err(CacheError::ReadOnly { .. })));
    drop(cache);
    assert_eq!(Cache::open(home.path(), &hash).unwrap().len(), 5);
}

#[test]
fn threads_share_a_cache() {
    let home = tempfile::tempdir().unwrap();
    let hash = model(home.path(), "vae");
    let cache = Cache::open(home.path(), &hash).unwrap();
    let computed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (cache, computed) = (&cache, &computed);
            scope.spawn(move || {
                for start in (0..60).step_by(6) {
                    // Overlapping ranges, in different orders.
                    let items: Vec<u64> = (0..10).map(|i| (start + i + thread * 17) % 60).collect();
                    let keys: Vec<Key> = items.iter().map(|&i| key(cache, i)).collect();
                    let found = cache.get_or_insert_with(&keys, |missing| {
                        computed.fetch_add(missing.len(), SeqCst);
                        Ok::<_, CacheError>(missing.iter().map(|&place| result(items[place])).collect())
                    });
                    assert_eq!(found.unwrap(), items.iter().map(|&i| result(i)).collect::<Vec<_>>());
                }
            });
        }
    });
    assert_eq!(cache.len(), 60);
    assert!((60..=240).contains(&computed.load(SeqCst)));
    drop(cache);
    assert_eq!(present(&Cache::open(home.path(), &hash).unwrap(), 0..70).len(), 60);
}

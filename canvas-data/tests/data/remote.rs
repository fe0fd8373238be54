use crate::make::{all, files, has_fault, refusal, samples};
use canvas_data::{Options, Shards, Source, reason};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;

fn paths(names: &[&str]) -> Vec<Path> {
    names.iter().map(|name| Path::from(*name)).collect()
}

/// In memory: two shards, and one that is cut.
fn store() -> Arc<InMemory> {
    let (store, cut) = (Arc::new(InMemory::new()), samples(3)[..9 * 512 + 7].to_vec());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (name, bytes) in [("set/0.tar", samples(3)), ("set/1.tar", samples(2)), ("set/2.tar", cut)] {
        runtime.block_on(store.put(&Path::from(name), bytes.into())).unwrap();
    }
    store
}

#[test]
fn shards_of_an_object_store_are_those_of_a_disk() {
    let root = tempfile::tempdir().unwrap();
    files(root.path(), &[("0.tar", &samples(3)), ("1.tar", &samples(2))]);
    let local = Shards::open(root.path(), &Options::default()).unwrap();
    let on_disk = Arc::new(LocalFileSystem::new_with_prefix(root.path()).unwrap());
    let stores: [(Arc<dyn ObjectStore>, _); 2] =
        [(store(), paths(&["set/0.tar", "set/1.tar"])), (on_disk, paths(&["0.tar", "1.tar"]))];
    for (store, paths) in stores {
        for read_ahead in [1, 700, 1 << 20] {
            let options = Options { read_ahead, ..Options::default() };
            let remote = Shards::remote(store.clone(), paths.clone(), &options).unwrap();
            let content = |source: &dyn Source| {
                all(source)
                    .into_iter()
                    .map(|read| read.map(|record| (record.image, record.captions)))
                    .collect::<Vec<_>>()
            };
            assert_eq!(content(&remote), content(&local));
            assert_eq!(remote.blocks(), local.blocks());
            assert!(remote.faults().is_empty());
        }
    }
}

#[test]
fn what_a_store_lacks_is_named() {
    let source =
        Shards::remote(store(), paths(&["set/0.tar", "set/2.tar", "set/9.tar"]), &Options::default())
            .unwrap();
    assert_eq!([source.key(0), source.key(4)], ["set/0.tar:s0", "set/2.tar:s1"]);
    has_fault(source.faults(), "set/2.tar", reason::TRUNCATED, "s2.png");
    has_fault(source.faults(), "set/9.tar", reason::MISSING, "not found");
    assert_eq!(source.faults().len(), 2);
    assert!(
        refusal(Shards::remote(store(), paths(&["x.tar"]), &Options::default()))
            .contains("1 faults: x.tar: missing")
    );
}

#[test]
fn threads_wait_for_a_store_together() {
    let source = Shards::remote(store(), paths(&["set/0.tar", "set/1.tar"]), &Options::default()).unwrap();
    let alone = all(&source);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(all(&source), alone)));
        }
    });
}

#[test]
fn an_async_program_waits_in_threads_for_that() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = store();
    let read = runtime.spawn_blocking(move || {
        let source = Shards::remote(store, paths(&["set/1.tar"]), &Options::default()).unwrap();
        all(&source).into_iter().filter(Result::is_ok).count()
    });
    assert_eq!(runtime.block_on(read).unwrap(), 2);
}

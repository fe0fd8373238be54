//! PyTorch's own files (`tools/fixtures_weights.py`): read as data, or refused with the name of what they ask for.

use crate::tiny::{assert_answers, bits, fixtures, load, rules, tiny};
use burn::nn::LinearLayout;
use canvas_core::weights::{Source, load_published};
use std::fs;
use std::io::{Read, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

fn folder() -> PathBuf {
    fixtures().join("torch")
}

fn refusal(path: &Path) -> String {
    let shown = Source::open(path, None).unwrap_err().to_string();
    shown.replace(&format!("{}: not a readable PyTorch file: ", path.display()), "")
}

#[test]
fn they_load_bit_for_bit_as_safetensors_do() {
    let (expected, _) = load(&fixtures().join("whole"), None, &rules()).unwrap();
    for path in [folder(), folder().join("sharded"), folder().join("around.ckpt")] {
        let (module, report) = load(&path, None, &rules()).unwrap();
        assert_eq!(bits(&module), bits(&expected), "{}", path.display());
        assert_eq!((report.ignored.len(), report.one_way.len()), (2, 0));
    }
    let source = Source::open(&folder().join("around.ckpt"), None).unwrap();
    let (module, _) = load_published(tiny(LinearLayout::Col), &source, &rules()).unwrap();
    assert_answers(&module, "f32");
}

#[test]
fn every_type_of_number_is_known_and_dictionaries_are_joined_by_a_dot() {
    let source = Source::open(&folder().join("kinds.pt"), None).unwrap();
    let values = |key: &str| source.read(key).unwrap().iter::<f32>().collect::<Vec<f32>>();
    for (name, kind) in [
        ("float16", "F16"),
        ("bfloat16", "BF16"),
        ("float32", "F32"),
        ("float64", "F64"),
        ("int64", "I64"),
        ("int32", "I32"),
        ("int16", "I16"),
        ("int8", "I8"),
        ("uint8", "U8"),
        ("bool", "BOOL"),
    ] {
        let key = format!("kinds.{name}");
        assert_eq!(source.kind(&key).as_deref(), Some(kind));
        if kind.contains('F') {
            assert_eq!(values(&key), [0.5, -2.0, 3.0]);
        }
    }
    assert_eq!(values("parameter"), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!((values("scalar"), source.shape("scalar")), (vec![7.0], Some(&[][..])));
    assert_eq!(source.keys().count(), 12, "what is no tensor is left out");
}

#[test]
fn safetensors_come_first_in_a_directory() {
    let here = TempDir::new().unwrap();
    let copy = |from: PathBuf, to: &str| assert!(fs::copy(from, here.path().join(to)).unwrap() > 0);
    copy(folder().join("diffusion_pytorch_model.bin"), "pytorch_model.bin");
    copy(folder().join("diffusion_pytorch_model.bin"), "pytorch_model.fp16.bin");
    let found = |variant| Source::open(here.path(), variant).unwrap().path().to_owned();
    assert!(found(None).ends_with("pytorch_model.bin"));
    assert!(found(Some("fp16")).ends_with("pytorch_model.fp16.bin"));
    copy(fixtures().join("whole/diffusion_pytorch_model.safetensors"), "model.safetensors");
    assert!(found(None).ends_with("model.safetensors"));
}

#[test]
fn missing_and_truncated_shards_are_named() {
    let here = TempDir::new().unwrap();
    for entry in fs::read_dir(folder().join("sharded")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), here.path().join(entry.file_name())).unwrap();
    }
    let shard = "diffusion_pytorch_model-00002-of-00002.bin";
    let whole = fs::read(here.path().join(shard)).unwrap();
    fs::write(here.path().join(shard), &whole[..whole.len() - 1]).unwrap();
    let shown = Source::open(here.path(), None).unwrap_err().to_string();
    assert!(shown.contains(&format!("{shard}: not a readable PyTorch file: ")), "{shown}");
    assert!(shown.ends_with("it may be truncated"), "{shown}");
    fs::remove_file(here.path().join(shard)).unwrap();
    let shown = Source::open(here.path(), None).unwrap_err().to_string();
    let index = "diffusion_pytorch_model.bin.index.json: not a usable index of shards: ";
    assert!(shown.contains(&format!("{index}shard {shard} does not exist")), "{shown}");
}

#[test]
fn a_file_that_asks_for_code_is_refused_by_the_name_of_what_it_asks() {
    let marker = Path::new("/tmp/canvas-was-here");
    fs::remove_file(marker).ok();
    let shown = refusal(&folder().join("evil.bin"));
    assert!(shown == "it asks to call posix.system" || shown == "it asks to call nt.system", "{shown}");
    assert!(!marker.exists());
    let shown = refusal(&folder().join("module.pt"));
    assert_eq!(shown, "it asks to make a torch.nn.modules.linear.Linear");
}

#[test]
fn other_formats_say_what_to_do() {
    let advice = "load it with torch and save it again, or as safetensors";
    let shown = refusal(&folder().join("legacy.pth"));
    assert_eq!(shown, format!("it is in the format that PyTorch had before 1.6: {advice}"));
    assert_eq!(refusal(&folder().join("list.pt")), "expected a dictionary of tensors, found a list");
    let here = TempDir::new().unwrap();
    let path = here.path().join("w.bin");
    fs::copy(fixtures().join("answers.safetensors"), &path).unwrap();
    assert_eq!(refusal(&path), format!("expected a zip archive, found another format: {advice}"));
    fs::write(&path, "").unwrap();
    assert_eq!(refusal(&path), "it has less than two bytes");
}

/// The file with an entry changed, and what it is refused with.
fn edited(from: &[u8], to: &[u8]) -> String {
    let here = TempDir::new().unwrap();
    let path = here.path().join("w.pt");
    let mut whole = ZipArchive::new(fs::File::open(folder().join("kinds.pt")).unwrap()).unwrap();
    let mut copy = ZipWriter::new(fs::File::create(&path).unwrap());
    let mut found = false;
    for index in 0..whole.len() {
        let mut entry = whole.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
            bytes = [&bytes[..at], to, &bytes[at + from.len()..]].concat();
            found = true;
        }
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        copy.start_file(entry.name().unwrap(), stored).unwrap();
        copy.write_all(&bytes).unwrap();
    }
    copy.finish().unwrap();
    assert!(found, "nothing to change");
    refusal(&path)
}

/// Bytes of the pickle changed: another count, shape, step, type or key is named; nothing is read from elsewhere.
#[test]
fn tensors_that_do_not_fit_their_storage_are_named() {
    // The first tensor: 3 values of f16 from place 0 with step 1.
    let view = b"K\x03tq\x09QK\x00K\x03\x85q\x0aK\x01\x85";
    let shown = edited(view, b"K\x03tq\x09QK\x01K\x03\x85q\x0aK\x01\x85");
    assert!(shown.contains("kinds.float16: shape [3] with steps [1] from 1 in 3 values"), "{shown}");
    let shown = edited(view, b"K\x03tq\x09QK\x00K\x03\x85q\x0aK\x02\x85");
    assert!(shown.contains("kinds.float16: shape [3] with steps [2] from 0 in 3 values"), "{shown}");
    let shown = edited(view, b"K\x03tq\x09QK\x00K\x04\x85q\x0aK\x00\x85");
    assert!(shown.contains("kinds.float16: shape [4] with steps [0] from 0 in 3 values"), "{shown}");
    let shown = edited(view, b"K\x04tq\x09QK\x00K\x03\x85q\x0aK\x01\x85");
    assert!(shown.contains("kinds.float16: expected 4 values of F16, found 6 bytes"), "{shown}");
    let shown = edited(b"torch\nHalfStorage", b"torch\nHolfStorage");
    assert!(shown.contains("kinds.float16: a type that is not known: HolfStorage"), "{shown}");
    let shown = edited(b"torch._utils\n_rebuild_tensor_v2", b"torch._utils\n_rebuild_tensor_v9");
    assert!(shown.contains("it asks to call torch._utils._rebuild_tensor_v9"), "{shown}");
    let shown = edited(b"little", b"middle");
    assert!(shown.contains("expected little-endian values, found \"middle\""), "{shown}");
}

#[test]
fn truncated_and_damaged_files_never_panic() {
    let here = TempDir::new().unwrap();
    let path = here.path().join("w.pt");
    let whole = fs::read(folder().join("kinds.pt")).unwrap();
    let read = || {
        if let Ok(source) = Source::open(&path, None) {
            source.keys().for_each(|key| drop(source.read(key)));
        }
    };
    for length in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(Source::open(&path, None).is_err(), "{length} bytes");
    }
    for place in (0..whole.len()).step_by(3) {
        for byte in [0, b'R', 0xff] {
            let mut damaged = whole.clone();
            damaged[place] = byte;
            fs::write(&path, &damaged).unwrap();
            assert!(catch_unwind(read).is_ok(), "byte {place} as {byte}");
        }
    }
}

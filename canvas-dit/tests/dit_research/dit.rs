use super::*;
use canvas_core::macs;
use canvas_core::weights::{Source, read_tensors, save_published, write_tensors};
use canvas_dit::{Dit, DitConfig};
use canvas_testkit::chirped;

/// A published configuration, with every field that diffusers writes.
const CONFIG: &str = r#"{
    "_class_name": "DiTTransformer2DModel", "_diffusers_version": "0.42.1", "num_attention_heads": 2,
    "attention_head_dim": 8, "in_channels": 3, "out_channels": 6, "num_layers": 2, "dropout": 0.0,
    "norm_num_groups": 32, "attention_bias": true, "sample_size": 6, "patch_size": 2,
    "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 5, "upcast_attention": false,
    "norm_type": "ada_norm_zero", "norm_elementwise_affine": false, "norm_eps": 1e-05
}"#;

fn diffusers() -> DitConfig {
    DitConfig::from_diffusers(CONFIG).unwrap()
}

/// diffusers as it is: its epsilon and its frequencies, where the fixtures of `dit.rs` have the paper's.
#[test]
fn a_network_from_diffusers_answers_as_there() {
    let device = Device::flex().autodiff();
    let net = chirped(diffusers().init(&device));
    let x = pattern([2, 3, 6, 6], 1.0, &device).require_grad();
    let answer = net.forward_with_variance(x.clone(), times(&device), &labels(&device));
    let (mut found, all) = answers(&net, answer);
    found.insert("grad.input.x".into(), x.grad(&all).unwrap().into_data());
    compare(&fixture("dit_diffusers.safetensors"), &found, TOLERANCE);
}

#[test]
fn every_field_is_honoured_or_refused() {
    let read = |from: &str, to: &str| {
        assert!(CONFIG.contains(from), "{from}");
        DitConfig::from_diffusers(&CONFIG.replace(from, to))
    };
    let says = |from, to| read(from, to).unwrap_err().to_string();
    let expected = [
        (r#""dropout": 0.0"#, r#""dropout": 0.1"#, "dropout: expected 0, found 0.1"),
        (
            r#""gelu-approximate""#,
            r#""geglu""#,
            r#"activation_fn: expected "gelu-approximate", found "geglu""#,
        ),
        (
            r#""ada_norm_zero""#,
            r#""layer_norm""#,
            r#"norm_type: expected "ada_norm_zero", found "layer_norm""#,
        ),
        (
            r#""attention_bias": true"#,
            r#""attention_bias": false"#,
            "attention_bias: expected true, found false",
        ),
        (
            r#""out_channels": 6"#,
            r#""out_channels": 4"#,
            "out_channels: expected in_channels, or twice as many for a learned variance, found 4",
        ),
        (r#""num_layers""#, r#""layers""#, "unknown fields layers"),
        (r#""patch_size": 2"#, r#""patch_size": 4"#, "patch (4) must divide height (6)"),
    ];
    for (from, to, expected) in expected {
        assert_eq!(says(from, to), format!("the text: {expected}"));
    }
    assert!(!read(r#""out_channels": 6"#, r#""out_channels": null"#).unwrap().learn_variance);
    // The authors' weights were published as an older class, with fields of its other uses.
    let old = r#""_class_name": "Transformer2DModel", "cross_attention_dim": null, "num_vector_embeds": null,
        "only_cross_attention": false, "use_linear_projection": false"#;
    let config = read(r#""_class_name": "DiTTransformer2DModel""#, old).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", diffusers()));
    let other = says(r#""DiTTransformer2DModel""#, r#""PixArtTransformer2DModel""#);
    assert!(other.starts_with(r#"the text: _class_name: expected "DiTTransformer2DModel""#), "{other}");
    let defaults = DitConfig::from_diffusers("{}").unwrap();
    assert_eq!((defaults.width, defaults.depth, defaults.heads, defaults.mlp_norm_eps), (1152, 28, 16, 1e-5));
    survives_json(&defaults);
}

fn is_copy(name: &str) -> bool {
    name.starts_with("transformer_blocks.1.norm1.emb.")
}

#[test]
fn names_are_those_of_diffusers_but_for_the_copies() {
    let mut expected = names("dit_diffusers");
    let count = expected.len();
    expected.retain(|name, _| !is_copy(name));
    assert_eq!(count - expected.len(), 5);
    let found = weights::published_shapes(&diffusers().init(&Device::flex()), &diffusers().published());
    assert_eq!(found, expected);
    let sizes = DitConfig::new([4, 6], 16, 2, 2).with_channels(3).with_classes(5).with_time_scale(1.0);
    has_the_names_of("sit", &sizes.init(&Device::flex()), &sizes.original());
}

/// Files hold an embedder for each block: they must be one.
#[test]
fn copies_of_the_embedder_must_be_copies() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let net = chirped(diffusers().init(&device));
    let file = folder.path().join("diffusion_pytorch_model.safetensors");
    save_published(&net, &file, &diffusers().published()).unwrap();
    let load = || diffusers().load_diffusers(&Source::open(&file, None).unwrap(), &device);
    let says = || load().err().unwrap().to_string();
    let missing = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.weight";
    assert!(says().contains(missing), "{}", says());

    let mut tensors = read_tensors(&file).unwrap();
    let first: Vec<_> = tensors.iter().filter(|(name, _)| name.contains(".norm1.emb.")).collect();
    let copies: Vec<(String, TensorData)> =
        first.into_iter().map(|(name, data)| (name.replace("blocks.0", "blocks.1"), data.clone())).collect();
    tensors.extend(copies);
    write_tensors(&file, &tensors.clone().into_iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    let (loaded, report) = load().unwrap();
    assert_eq!(report.ignored.len(), 5);
    let x = pattern([2, 3, 6, 6], 1.0, &device);
    let run = |net: &Dit| net.forward_with_variance(x.clone(), times(&device), &labels(&device)).into_data();
    assert_eq!(run(&loaded), run(&net));

    let other = "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight";
    let mut values: Vec<f32> = tensors[other].iter::<f32>().collect();
    values[3] += 1e-3;
    tensors.insert(other.into(), TensorData::new(values, [6, 16]));
    write_tensors(&file, &tensors.clone().into_iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    assert!(
        says().contains(&format!("{other}: expected the values of transformer_blocks.0.norm1.emb")),
        "{}",
        says()
    );
}

/// Products of one latent of 32 by 32, with so many blocks.
fn products(config: &DitConfig, depth: usize) -> u64 {
    let device = Device::flex();
    let net = DitConfig { depth, ..config.clone() }.init(&device);
    let x = Tensor::zeros([1, 4, 32, 32], &device);
    let time = Tensor::from_floats([0.5], &device);
    let run = || net.forward_with_variance(x, time, &Class::new(&[0], &device));
    macs::count(run).1
}

/// "Gflops" of Table 4 and of the authors' code, in billions. All blocks are alike, so that none and one tell of all.
#[test]
fn the_papers_models_compute_what_the_paper_counts() {
    let sizes = [
        (DitConfig::small(32), "6.06"),
        (DitConfig::base(32), "23.01"),
        (DitConfig::large(32), "80.70"),
        (DitConfig::xl(32), "118.62"),
    ];
    for (config, expected) in sizes {
        let [none, one] = [0, 1].map(|depth| products(&config, depth));
        let found = (none + config.depth as u64 * (one - none)) as f64 / 1e9;
        println!("width {}: {found:.4} G", config.width);
        assert_eq!(format!("{found:.2}"), expected);
    }
    let small = DitConfig::small(32);
    let [none, one, two] = [0, 1, 2].map(|depth| products(&small, depth));
    assert_eq!(two - one, one - none);
}

#[test]
fn it_is_a_backbone() {
    let device = Device::flex();
    let (x, cond) = (pattern([2, 3, 6, 6], 1.0, &device), labels(&device));
    let net = chirped(diffusers().init(&device));
    rows_stand_alone(&net, x.clone(), &cond);
    is_told_both(&net, x.clone(), &cond);
    runs_in_half(&net, &x, &cond);
    can_be_remembered(net, &x, &cond, 1); // the time
}

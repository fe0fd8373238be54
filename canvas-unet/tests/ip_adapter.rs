//! IP-Adapters: parity with diffusers (fixtures by `tools/fixtures_ip_adapter.py`), published files, composition.

mod common;

use burn::module::Module;
use burn::prelude::*;
use canvas_core::weights::{Source, WeightsError, load_published, save_published};
use canvas_core::{Backbone, Channels, Concatenated, Condition, Text, params, weights};
use canvas_testkit::chirped;
use canvas_testkit::{distance, panic_text};
use canvas_unet::{
    Adapted, Conditions, ControlNet, ControlNetConfig, Controlled, Hints, ImagePrompted, ImageReader,
    ImageTokens, IpAdapter, IpAdapterConfig, Unet, UnetConfig,
};
use common::{compare, gradients, pattern};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// SDXL's kind of network, as in the fixture.
fn xl() -> UnetConfig {
    UnetConfig::new(4, 12, vec![16, 24, 32], vec![0, 2, 3], vec![2, 3, 4])
        .with_middle_depth(3)
        .with_norm_groups(2)
        .with_linear_projection(true)
        .with_pooled_width(Some(7))
        .with_size_features(Some(8))
}

/// Stable Diffusion's kind.
fn sd() -> UnetConfig {
    UnetConfig::new(4, 12, vec![16, 24, 32], vec![1, 1, 0], vec![2, 3, 4]).with_blocks(1).with_norm_groups(2)
}

const RESAMPLER: ImageReader = ImageReader::Resampler { tokens: 5, width: 24, heads: 2, depth: 4 };

fn pooled(unet: UnetConfig) -> IpAdapterConfig {
    IpAdapterConfig::new(unet, 10)
}

fn plus(unet: UnetConfig) -> IpAdapterConfig {
    IpAdapterConfig::new(unet, 14).with_reader(RESAMPLER)
}

fn each_state(unet: UnetConfig) -> IpAdapterConfig {
    IpAdapterConfig::new(unet, 10).with_reader(ImageReader::EachState)
}

fn filled<M: Module>(module: M) -> M {
    chirped(module)
}

fn text(masked: bool, device: &Device) -> Conditions {
    let mask = [[true; 5], [true, true, true, !masked, !masked]];
    let text = Text {
        tokens: pattern([2, 5, 12], 1.0, device),
        mask: Tensor::from_data(TensorData::from(mask), device),
        pooled: pattern([2, 7], 3.0, device),
    };
    text.into()
}

fn sized(device: &Device) -> Conditions {
    let sizes = [[512.0, 768.0, 3.0, 17.0, 1024.0, 896.0], [640.0, 480.0, 0.0, 64.0, 1000.0, 768.0f32]];
    Conditions { sizes: Some(Tensor::from_floats(sizes, device)), ..text(true, device) }
}

fn noised(device: &Device) -> Tensor<4> {
    pattern([2, 4, 8, 12], 1.0, device) * 3.0
}

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([0.25, 0.75], device)
}

/// Values and gradients of the network, of each adapter and of the image, under the names of the fixture.
fn parity(
    fixture: &str,
    unet: &UnetConfig,
    cond: Conditions,
    adapters: &[(IpAdapterConfig, f64, Tensor<3>)],
) {
    let device = Device::flex().autodiff();
    let unet: Unet = filled(unet.init(&device));
    let nets: Vec<IpAdapter> = adapters.iter().map(|(config, ..)| filled(config.init(&device))).collect();
    let images: Vec<Tensor<3>> = adapters.iter().map(|(.., image)| image.clone().require_grad()).collect();
    let x = noised(&device).require_grad();
    let mut cond = cond;
    cond.text.tokens = cond.text.tokens.require_grad();

    let tokens: Vec<_> = nets.iter().zip(&images).map(|(net, image)| net.tokens(image.clone())).collect();
    let told = unet.told();
    let scaled = nets.iter().zip(adapters).map(|(net, (_, scale, _))| (net, *scale)).collect();
    let prompted = ImagePrompted { backbone: &told, adapters: scaled };
    let output = prompted.forward(x.clone(), times(&device), &(cond.clone(), ImageTokens(tokens.clone())));
    let grads = (output.clone() * pattern(output.dims(), 2.0, &device)).sum().backward();

    let mut found = BTreeMap::new();
    for (i, (net, image)) in nets.iter().zip(&images).enumerate() {
        let own = gradients(net, &grads);
        found.extend(own.into_iter().map(|(name, data)| (format!("{i}.{name}"), data)));
        found.insert(format!("{i}.grad.image"), image.grad(&grads).unwrap().into_data());
    }
    found.insert("output".into(), output.into_data());
    let parts = [("up.1.stages.1.", 0.9), ("down.1.stages.0.", 0.4)];
    let part =
        |net: &IpAdapter| parts.map(|(block, scale)| (net.only(|name| name.starts_with(block)), scale));
    let parts: Vec<(IpAdapter, f64)> = nets.iter().flat_map(part).collect();
    let twice = tokens.iter().flat_map(|tokens| [tokens.clone(), tokens.clone()]).collect();
    let styled =
        ImagePrompted { backbone: &told, adapters: parts.iter().map(|(net, scale)| (net, *scale)).collect() };
    let styled = styled.forward(x.clone(), times(&device), &(cond.clone(), ImageTokens(twice)));
    found.insert("styled".into(), styled.into_data());
    found.insert("grad.x".into(), x.grad(&grads).unwrap().into_data());
    found.insert("grad.tokens".into(), cond.text.tokens.grad(&grads).unwrap().into_data());
    compare(fixture, &found, 1e-5);
}

#[test]
fn two_adapters_on_sdxl_equal_diffusers() {
    let device = Device::flex().autodiff();
    // The first reads two images at once.
    let adapters = [
        (pooled(xl()), 0.7, pattern([2, 2, 10], 5.0, &device)),
        (plus(xl()), 1.3, pattern([2, 7, 14], 6.0, &device)),
    ];
    parity("ip_adapter_sdxl", &xl(), sized(&device), &adapters);
}

#[test]
fn an_adapter_of_all_states_equals_diffusers() {
    let device = Device::flex().autodiff();
    let adapters = [(each_state(sd()), 0.6, pattern([2, 7, 10], 5.0, &device))];
    parity("ip_adapter_sd", &sd(), text(false, &device), &adapters);
}

/// A file of its own, gone when dropped.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("canvas-{name}-{}.safetensors", std::process::id())))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn published_files_are_recognised_and_read_whole() {
    let device = Device::flex();
    let all: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(include_str!("fixtures/ip_adapter_names.json")).unwrap();
    for (case, config) in
        [("pooled", pooled(xl())), ("resampler", plus(xl())), ("each_state", each_state(sd()))]
    {
        let rules = config.published();
        for (key, ours) in &all[case] {
            assert_eq!((&rules.ours(key), &rules.published(ours)), (ours, key), "{case}");
        }
        let file = Temp::new(case);
        let net = filled(config.init(&device));
        save_published(&net, &file.0, &rules).unwrap();
        let source = Source::open(&file.0, None).unwrap();
        assert_eq!(source.keys().collect::<Vec<_>>(), all[case].keys().collect::<Vec<_>>(), "{case}");

        let detected = IpAdapterConfig::detect(&source, &config.unet).unwrap();
        assert_eq!(format!("{detected:?}"), format!("{config:?}"));
        let (back, report) = load_published(detected.init(&device), &source, &rules).unwrap();
        assert!(report.one_way.is_empty(), "{case}: {:?}", report.one_way);
        let values = |net: &IpAdapter| {
            params::named(net).into_iter().map(|param| (param.name, param.data)).collect::<Vec<_>>()
        };
        assert_eq!(values(&back), values(&net), "{case}");
    }
}

#[test]
fn files_of_another_kind_are_refused_by_name() {
    let device = Device::flex();
    let file = Temp::new("ip-other");
    let net = filled(pooled(sd()).init(&device));
    save_published(&net, &file.0, &pooled(sd()).published()).unwrap();
    let source = Source::open(&file.0, None).unwrap();
    let place = file.0.display();
    let message = |unet: UnetConfig| IpAdapterConfig::detect(&source, &unet).unwrap_err().to_string();
    let wide = UnetConfig { channels: vec![16, 32, 32], heads: vec![2, 4, 4], ..sd() };
    assert_eq!(
        message(wide),
        format!(
            "{place}: ip_adapter.3.to_k_ip.weight: expected [32, 12] for \
             down.1.stages.0.transformer.blocks.0.cross, found [24, 12]"
        )
    );
    let more = sd().with_blocks(2);
    assert!(message(more).contains("ip_adapter.3.to_k_ip.weight: expected [16, 12] for"));
    assert!(
        message(UnetConfig { context_width: 24, ..sd() })
            .contains("ip_adapter.1.to_k_ip.weight: expected [16, 24] for"),
    );

    let refused = |keys: &[&str]| {
        let tensor = |key: &&str| ((*key).to_owned(), TensorData::new(vec![0f32; 4], [2, 2]));
        let tensors: Vec<_> = keys.iter().map(tensor).collect();
        weights::write_tensors(&file.0, &tensors, &BTreeMap::new()).unwrap();
        let source = Source::open(&file.0, None).unwrap();
        let error = IpAdapterConfig::detect(&source, &sd()).unwrap_err();
        let WeightsError::Tensor { key, found, .. } = error else { panic!("{error}") };
        format!("{key}: {found}")
    };
    let face = ["image_proj.proj.0.weight", "image_proj.norm.weight"];
    assert_eq!(
        refused(&face),
        "image_proj.proj.0.weight: FaceID, which reads the vector of a face recogniser"
    );
    let lora = "ip_adapter.0.to_k_lora.down.weight";
    assert_eq!(refused(&[face[0], lora]), format!("{lora}: FaceID, which comes with a LoRA for the UNet"));
    let resampler = "image_proj.perceiver_resampler.proj_in.weight";
    assert_eq!(
        refused(&[resampler]),
        format!("{resampler}: FaceID Plus, which reads a face beside CLIP's states")
    );
    assert_eq!(refused(&["down_blocks.0"]), "image_proj: keys such as down_blocks.0");
    assert_eq!(refused(&["image_proj.proj.weight"]), "image_proj.norm.weight: none");
}

/// ControlNets have attentions of the same names, which read the text alone.
#[test]
fn adapters_and_controlnets_go_together() {
    let device = Device::flex();
    let unet: Unet = filled(xl().init(&device));
    let control: ControlNet =
        filled(ControlNetConfig::new(xl()).with_hint_widths(vec![4, 6, 10]).init(&device));
    let adapter = filled(pooled(xl()).init(&device));
    let tokens = ImageTokens(vec![adapter.tokens(pattern([2, 1, 10], 5.0, &device))]);
    let (x, time, cond) = (noised(&device), times(&device), sized(&device));
    let hint = pattern([2, 3, 32, 48], 4.0, &device);

    let controlled = Controlled { unet: &unet, controls: vec![(&control, 0.5)] };
    let both = ImagePrompted { backbone: &controlled, adapters: vec![(&adapter, 0.8)] };
    let hints = Hints(vec![Channels { values: hint.clone() }]);
    let whole = ((cond.clone(), hints), tokens.clone());
    let found = both.forward(x.clone(), time.clone(), &whole);

    let residuals = control.forward(x.clone(), time.clone(), &cond, hint).scaled(0.5);
    let adapted = Adapted { unet: &unet };
    let outside = ImagePrompted { backbone: &adapted, adapters: vec![(&adapter, 0.8)] };
    let expected = outside.forward(x.clone(), time.clone(), &((cond, residuals), tokens));
    assert_eq!(found.to_data(), expected.into_data());
    let without = controlled.forward(x.clone(), time.clone(), &whole.0);
    assert!(distance(found.clone(), without) > 1e-2);

    // As conditions, images come and go with the batch's rows.
    let joined = Condition::cat(&[whole.clone(), whole.select(&[1])]);
    let rows = |x: Tensor<4>| Tensor::cat(vec![x.clone(), x.narrow(0, 1, 1)], 0);
    let three = Tensor::cat(vec![time.clone(), time.narrow(0, 1, 1)], 0);
    let together = both.forward(rows(x.clone()), three, &joined);
    assert!(distance(together, rows(found.clone())) < 1e-5);
    for row in 0..2 {
        let time = times(&device).narrow(0, row, 1);
        let alone = both.forward(x.clone().narrow(0, row, 1), time, &whole.select(&[row]));
        let error = distance(alone, found.clone().narrow(0, row, 1));
        assert!(error < 1e-5, "row {row}: {error:e}");
    }
}

#[test]
fn adapters_add_up_and_reach_an_inpainting_unet() {
    let device = Device::flex();
    let config = sd().with_in_channels(6);
    let unet: Unet = filled(config.init(&device));
    let adapter = filled(each_state(config).init(&device));
    let states = pattern([2, 7, 10], 5.0, &device);
    let tokens = adapter.tokens(states.clone());
    let extra = Channels { values: pattern([2, 2, 8, 12], 4.0, &device) };
    let (x, time, cond) = (noised(&device), times(&device), (text(true, &device), extra));
    let told = unet.told();
    let inpainting = Concatenated { backbone: &told };
    let run = |scales: &[f64]| {
        let adapters = scales.iter().map(|scale| (&adapter, *scale)).collect();
        let images = ImageTokens(vec![tokens.clone(); scales.len()]);
        let prompted = ImagePrompted { backbone: &inpainting, adapters };
        prompted.forward(x.clone(), time.clone(), &(cond.clone(), images))
    };
    assert!(distance(run(&[0.7, -0.4]), run(&[0.3])) < 1e-5);
    assert!(distance(run(&[0.0]), inpainting.forward(x.clone(), time.clone(), &cond)) < 1e-6);
    assert!(distance(run(&[0.3]), run(&[0.0])) > 1e-2);

    let two = ImagePrompted { backbone: &inpainting, adapters: vec![(&adapter, 1.0); 2] };
    let one = ImageTokens(vec![tokens.clone()]);
    let message = panic_text(|| two.forward(x.clone(), time.clone(), &(cond.clone(), one)));
    assert!(message.contains("tokens for 1 IP-Adapters, there are 2"), "{message}");
    let message = panic_text(|| adapter.tokens(pattern([2, 1, 14], 5.0, &device)));
    assert!(message.contains("an image of width 14, the adapter reads 10"), "{message}");
    let message = panic_text(|| adapter.only(|name| name.starts_with("up.9")));
    assert!(message.starts_with("none of the IP-Adapter's attentions is left of [\"down.0."), "{message}");
    let three = ImageTokens(vec![Tensor::cat(vec![tokens.clone(), tokens.narrow(0, 0, 1)], 0)]);
    let one = ImagePrompted { backbone: &inpainting, adapters: vec![(&adapter, 1.0)] };
    let message = panic_text(|| one.forward(x.clone(), time.clone(), &(cond.clone(), three)));
    assert!(message.contains("tokens of 3 images for a batch of 2"), "{message}");
}

#[test]
fn an_adapter_of_another_unet_does_not_pass_for_a_weak_one() {
    let device = Device::flex();
    let unet: Unet = filled(sd().init(&device));
    let message = |config: UnetConfig| {
        let adapter = filled(pooled(config).init(&device));
        let tokens = ImageTokens(vec![adapter.tokens(pattern([2, 1, 10], 5.0, &device))]);
        let prompted = ImagePrompted { backbone: &unet, adapters: vec![(&adapter, 1.0)] };
        panic_text(|| prompted.forward(noised(&device), times(&device), &(text(true, &device).text, tokens)))
    };
    let deeper = message(UnetConfig { depth: vec![1, 2, 0], ..sd() });
    let expected = "the IP-Adapter is for another UNet: this one ran no \
                    [\"down.1.stages.0.transformer.blocks.1.cross\", \"up.1.stages.0.transformer.blocks.1.cross\", \
                    \"up.1.stages.1.transformer.blocks.1.cross\"]";
    assert_eq!(deeper, expected);
    let wider = message(UnetConfig { channels: vec![16, 36, 32], ..sd() });
    let expected = "down.1.stages.0.transformer.blocks.0.cross has width 24, the IP-Adapter's layer 36";
    assert!(wider.contains(expected), "{wider}");
}

#[test]
fn training_begins_with_the_texts_keys_and_values() {
    let device = Device::flex().autodiff();
    let unet: Unet = filled(xl().init(&device));
    let adapter = params::realise(pooled(xl()).init(&device));
    let ids = |net: &IpAdapter| params::named(net).into_iter().map(|param| param.id).collect::<Vec<_>>();
    let before = ids(&adapter);
    let adapter = adapter.from_text(&unet);
    assert_eq!(ids(&adapter), before);
    let of = |named: Vec<params::Named>| -> BTreeMap<String, TensorData> {
        named.into_iter().map(|param| (param.name, param.data)).collect()
    };
    let (text, own) = (of(params::named(&unet)), of(params::named(&adapter)));
    // The second of level 1 on the way down, the first on the way up, the last of the middle.
    for (i, name) in [
        (1, "down.1.stages.0.transformer.blocks.1"),
        (10, "up.0.stages.0.transformer.blocks.0"),
        (27, "middle.first.transformer.blocks.2"),
    ] {
        for part in ["key", "value"] {
            let (own, text) =
                (&own[&format!("layers.{i}.{part}.weight")], &text[&format!("{name}.cross.{part}.weight")]);
            assert_eq!(own, text, "{i} {part}");
        }
    }
    let tokens = ImageTokens(vec![adapter.tokens(pattern([2, 1, 10], 5.0, &device))]);
    let told = unet.told();
    let prompted = ImagePrompted { backbone: &told, adapters: vec![(&adapter, 1.0)] };
    let output = prompted.forward(noised(&device), times(&device), &(sized(&device), tokens));
    let grads = output.square().sum().backward();
    let (weights, norms) = (params::named(&adapter), gradients(&adapter, &grads).remove("norms").unwrap());
    assert_eq!(norms.shape()[0], weights.len());
    assert!(norms.iter::<f32>().all(|norm| norm > 0.0), "{norms:?}");

    let message = panic_text(|| pooled(sd()).init(&device).from_text(&filled::<Unet>(xl().init(&device))));
    assert_eq!(message, "the UNet has no down.0.stages.0.transformer.blocks.0.cross.key.weight");
}

/// Read off the shapes: nothing is allocated.
#[test]
fn published_sizes_have_their_parameter_counts() {
    let device = Device::flex();
    let full = IpAdapterConfig::new(UnetConfig::sd1(), 1280).with_reader(ImageReader::EachState);
    let cases = [
        (IpAdapterConfig::sd1(), 22_319_616),
        (IpAdapterConfig::sd1_plus(), 49_087_488),
        (full, 21_794_304),
        (IpAdapterConfig::sdxl(), 351_285_248),
        (IpAdapterConfig { image_width: 1024, ..IpAdapterConfig::sdxl() }, 349_188_096),
        (IpAdapterConfig::sdxl_plus(), 423_748_864),
    ];
    for (config, expected) in cases {
        assert_eq!(config.init(&device).num_params(), expected, "{:?}", config.reader);
    }
    assert!(
        !IpAdapterConfig::sd1().reader.reads_states() && IpAdapterConfig::sd1_plus().reader.reads_states()
    );
    let error = UnetConfig { depth: vec![0; 3], ..sd() }.with_middle_depth(0);
    let error = pooled(error).validate().unwrap_err().to_string();
    assert_eq!(error, "attentions of the UNet to its text must be at least 1, found 0");
}

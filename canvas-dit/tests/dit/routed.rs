//! Tokens that go around blocks: every network that allows it answers as if they were masked there, and the others say why not.

use burn::prelude::*;
use canvas_core::trace::{self, Hook, Kept, Route, Tapped};
use canvas_core::{Backbone, Class, Text};
use canvas_dit::*;
use canvas_testkit::{chirped, distance, panic_text, pattern};
use std::cell::RefCell;
use std::rc::Rc;

/// Of six patches.
fn kept() -> Kept {
    Kept::new(6, vec![vec![0, 3, 4], vec![1, 2, 5]])
}

fn x(device: &Device) -> Tensor<4> {
    pattern([2, 4, 4, 6], 1.0, device)
}

fn times(device: &Device) -> Tensor<1> {
    Tensor::from_floats([0.25, 0.75], device)
}

/// Five tokens, 12 wide, of which the last two of the second prompt are padding; pooled 10 wide.
fn text(device: &Device) -> Text {
    let mask = [[true; 5], [true, true, true, false, false]];
    Text {
        tokens: pattern([2, 5, 12], 3.0, device),
        mask: Tensor::from_data(TensorData::from(mask), device),
        pooled: pattern([2, 10], 4.0, device),
    }
}

/// What a route is said to do, in another way: all tokens go through all blocks, but those that should go around are seen by none
/// there, and are what they were behind the last.
struct Hidden {
    from: &'static str,
    to: &'static str,
    /// Tokens before the image's in the sequence, and in attention.
    before: [usize; 2],
    came: RefCell<Option<Tensor<3>>>,
}

impl Hidden {
    /// 1 for tokens that go around, of so many in all.
    fn around(before: usize, length: usize, device: &Device) -> Tensor<2> {
        let row = |row: &Vec<usize>| {
            let mut around = vec![0.0f32; length];
            (0..6).filter(|token| !row.contains(token)).for_each(|token| around[before + token] = 1.0);
            around
        };
        let values: Vec<f32> = kept().rows().iter().flat_map(row).collect();
        Tensor::from_data(TensorData::new(values, [2, length]), device)
    }
}

impl Hook for Hidden {
    fn tap(&self, tapped: &mut Tapped<'_>) {
        let name = tapped.name().to_owned();
        if name == format!("{}.input", self.from) {
            self.came.replace(tapped.get());
        }
        let inside = self.came.borrow().is_some();
        if inside && name.ends_with(".map") && !name.ends_with("cross.map") {
            let map = tapped.get::<4>().unwrap();
            let [.., keys] = map.dims();
            let before = if name.ends_with("dual.map") { 0 } else { self.before[1] };
            let stays = Self::around(before, keys, &map.device()).neg() + 1.0;
            let map = map * stays.reshape([2, 1, 1, keys]);
            tapped.set(map.clone() / map.sum_dim(3));
        }
        if inside && name == self.to {
            let (came, gone) = (self.came.take().unwrap(), tapped.get::<3>().unwrap());
            let length = came.dims()[1];
            let around = Self::around(self.before[0], length, &came.device()).reshape([2, length, 1]);
            tapped.set(gone.clone() + (came - gone) * around);
        }
    }
}

#[track_caller]
fn routes<M: Backbone<4>>(model: &M, cond: &M::Cond, route: [&'static str; 2], before: [usize; 2]) {
    let (device, [from, to]) = (Device::flex(), route);
    let run = || model.forward(x(&device), times(&device), cond);
    let route = Route::new(from, to).behind(before[0]);
    let all = Kept::draw(1.0, 6, 0, &[0, 1]);
    assert_eq!(route.through(&all, run).into_data(), run().into_data(), "all kept are the same bits");
    let found = route.through(&kept(), run);
    let expected = trace::with_hook(Rc::new(Hidden { from, to, before, came: RefCell::default() }), run);
    let scale = expected.clone().abs().max().into_scalar::<f32>();
    let (off, change) = (distance(found.clone(), expected) / scale, distance(found, run()) / scale);
    println!("{from} to {to}: off by {off:.1e}, a change of {change:.1e}");
    assert!(off < 1e-5 && change > 1e-3, "{from} to {to}: off by {off:e}, a change of {change:e}");
}

/// The message of a route that a network does not allow.
#[track_caller]
fn refuses<M: Backbone<4>>(model: &M, cond: &M::Cond, route: &Route, says: &str) {
    let device = Device::flex();
    let run = || model.forward(x(&device), times(&device), cond);
    let expected = run().into_data();
    let found = panic_text(|| route.through(&kept(), run));
    assert!(found.contains(says), "{found}");
    assert_eq!(run().into_data(), expected, "no route is left");
}

#[test]
fn networks_of_classes_are_routed() {
    let (device, size) = (Device::flex(), [4, 6]);
    let class = Class::new(&[3, 5], &device);
    let dit = DitConfig::new(size, 16, 3, 2).with_classes(5);
    routes(&chirped(dit.init(&device)), &class, ["blocks.0", "blocks.1"], [0, 0]);
    let sit = SitConfig::new(size, 16, 3, 2).with_classes(5);
    routes(&chirped(sit.init(&device)), &class, ["blocks.1", "blocks.1"], [0, 0]);
    let lightning = LightningDitConfig::new(size, 24, 3, 2).with_patch(2).with_channels(4).with_classes(5);
    routes(&chirped(lightning.init(&device)), &class, ["blocks.0", "blocks.1"], [0, 0]);

    // Before its class tokens come, and behind.
    let jit = JitConfig::new(size, 24, 4, 2, 2).with_bottleneck(8).with_tokens(3).with_patch(2);
    let jit = chirped(jit.with_channels(4).with_classes(5).init(&device));
    routes(&jit, &class, ["blocks.0", "blocks.1"], [0, 0]);
    routes(&jit, &class, ["blocks.2", "blocks.3"], [3, 3]);
    let says = "blocks.2.input is of [2, 6, 24], but 3 tokens went into blocks.1: the route to blocks.2 cannot cross this";
    refuses(&jit, &class, &Route::new("blocks.1", "blocks.2"), says);

    // The encoder; what it gives to the head are modulations of each token.
    let ddt = DdtConfig::new(size, 4, [16, 24], [2, 2], [2, 3]).with_classes(5).with_frequencies(8);
    let ddt = chirped(ddt.with_patch(2).init(&device));
    routes(&ddt, &class, ["blocks.0", "blocks.1"], [0, 0]);
    let says = "what modulates each token by itself needs all tokens, and some are on the route from blocks.2 to blocks.3";
    refuses(&ddt, &class, &Route::new("blocks.2", "blocks.3"), says);

    // A class and a time before the patches; a skip is of as many tokens as what it is joined to.
    let class = Class::new(&[3, 4], &device);
    let u_vit = chirped(UVitConfig::new(size, 16, 4, 2).with_channels(4).with_labels(6).init(&device));
    routes(&u_vit, &class, ["down.1", "up.0"], [2, 2]);
    routes(&u_vit, &class, ["down.0", "up.1"], [2, 2]);
    let says = "a block of U-ViT and what it reads of its counterpart";
    refuses(&u_vit, &class, &Route::new("down.1", "up.1").behind(2), says);
}

#[test]
fn networks_of_texts_are_routed() {
    let (device, two) = (Device::flex(), ["blocks.0", "blocks.1"]);
    let text = text(&device);
    let of_text = TextDitConfig::new([4, 6], 4, 16, 3, 2, 12, 10);
    routes(&chirped(of_text.init(&device)), &text, two, [0, 0]);
    let pixart = PixArtConfig::new(4).with_depth(2).with_heads(2).with_head(12).with_context(12);
    routes(&chirped(pixart.init(&device)), &text.clone().into(), two, [0, 0]);
    let sd3 =
        Sd3Config::new(3, 2).with_head(8).with_channels(4).with_context(12).with_pooled(10).with_table(6);
    let sd3 = sd3.with_base(4).with_qk_norm(true).with_dual(vec![0, 1]);
    routes(&chirped(sd3.init(&device)), &text, two, [0, 0]);
    let aura =
        AuraFlowConfig::new(6).with_joint(2).with_single(2).with_heads(2).with_head(8).with_context(12);
    let aura = chirped(aura.init(&device));
    let registers = 8;
    routes(&aura, &text, two, [0, registers + 5]);
    routes(&aura, &text, ["blocks.2", "blocks.3"], [registers + 5; 2]);
    let prx = PrxConfig::from_diffusers(PRX).unwrap();
    routes(&chirped(prx.init(&device)), &text, two, [0, 5]);
    let lumina = chirped(Lumina2Config::from_diffusers(LUMINA2).unwrap().init(&device));
    routes(&lumina, &text, two, [5, 5]);
    routes(&lumina, &text, ["image_refiner.0", "image_refiner.1"], [0, 0]);
    // Text is filled up to 32 tokens, and so is the image.
    let z_image = chirped(ZImageConfig::from_diffusers(Z_IMAGE).unwrap().init(&device));
    routes(&z_image, &text, two, [32, 32]);
    routes(&z_image, &text, ["image_refiner.0", "image_refiner.1"], [0, 0]);

    let sana =
        SanaConfig::new(2, 2, 4).with_head(8).with_channels(4).with_context(12).with_base(8).with_patch(2);
    let says = "a perceptron that sees neighbours needs all tokens, and some are on the route from blocks.0 to blocks.1";
    refuses(&chirped(sana.init(&device)), &text.into(), &Route::new(two[0], two[1]), says);
}

#[test]
fn networks_of_prompts_are_routed() {
    let (device, [double, single]) = (Device::flex(), [["double.0", "double.1"], ["single.0", "single.1"]]);
    let (text, axes) = (text(&device), [4, 4, 8]);
    let prompt = Prompt::from(text.clone());
    let guided = prompt.clone().with_guidance(3.5);
    let flux = chirped(FluxConfig::new(2, 2, 2, 12, 10).with_axes(axes).with_channels(4).init(&device));
    routes(&flux, &guided, double, [0, 5]);
    routes(&flux, &guided, single, [5, 5]);
    refuses(
        &flux,
        &guided,
        &Route::new(double[1], single[0]),
        "single.0.input is of [2, 8, 32], but 3 tokens",
    );
    // A picture to look at stands behind.
    let edit = guided.with_reference(pattern([2, 4, 2, 4], 5.0, &device));
    routes(&flux, &edit, double, [0, 5]);
    routes(&flux, &edit, single, [5, 5]);
    let chroma = ChromaConfig::new(2, 2, 2, 12).with_axes(axes).with_channels(4);
    let chroma = chirped(chroma.with_features(16).with_hidden(20).with_layers(2).init(&device));
    routes(&chroma, &text, double, [0, 5]);
    routes(&chroma, &text, single, [5, 5]);
    let qwen = QwenImageConfig::new(2, 2, 12).with_axes(axes).with_channels(4);
    let qwen = chirped(qwen.init(&device));
    routes(&qwen, &prompt, ["blocks.0", "blocks.1"], [0, 5]);
}

#[test]
fn a_route_that_is_none_is_named() {
    let device = Device::flex();
    let class = Class::new(&[3, 5], &device);
    let dit = chirped(DitConfig::new([4, 6], 16, 2, 2).with_classes(5).init(&device));
    let says = |route: Route| {
        panic_text(|| route.through(&kept(), || dit.forward(x(&device), times(&device), &class)))
    };
    let missing = "this network ran no block \"blocks.2\"; it ran: blocks.0, blocks.1";
    assert_eq!(says(Route::new("blocks.2", "blocks.3")), missing);
    for to in ["blocks.2", "blocks.0"] {
        let found = says(Route::new("blocks.1", to));
        assert!(found.ends_with(&format!("some are on the route from blocks.1 to {to}")), "{found}");
    }
    let says = says(Route::new("blocks.0", "blocks.0").behind(1));
    assert_eq!(says, "blocks.0 has 6 tokens, the route is for 6 behind 1 others");
}

const LUMINA2: &str = r#"{"_class_name": "Lumina2Transformer2DModel", "in_channels": 4, "hidden_size": 32, "num_layers": 2,
    "num_refiner_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2, "multiple_of": 24, "axes_dim_rope": [4, 2, 2],
    "axes_lens": [6, 3, 4], "cap_feat_dim": 12}"#;
const Z_IMAGE: &str = r#"{"_class_name": "ZImageTransformer2DModel", "in_channels": 4, "dim": 32, "n_layers": 2,
    "n_refiner_layers": 2, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 12, "axes_dims": [8, 4, 4], "axes_lens": [70, 3, 4]}"#;
const PRX: &str = r#"{"_class_name": "PRXTransformer2DModel", "in_channels": 4, "context_in_dim": 12, "hidden_size": 16,
    "mlp_ratio": 2.5, "num_heads": 2, "depth": 2, "axes_dim": [4, 4]}"#;

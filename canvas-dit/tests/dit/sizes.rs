//! Configurations: sizes of the papers, what a fresh network answers, refusals, JSON.

use crate::{dit, dit_config, text, text_config, text_dit, times};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use canvas_core::{Backbone, Class, Text, params};
use canvas_dit::{DitConfig, TextDitConfig};
use canvas_testkit::{distance, panic_text, pattern};

/// The published counts, which include the position table. Read off the shapes: nothing is allocated.
#[test]
fn the_papers_models_have_the_papers_sizes() {
    let device = Device::flex();
    let count = |config: DitConfig| {
        let patches = (config.size[0] / config.patch) * (config.size[1] / config.patch);
        config.init(&device).num_params() + patches * config.width
    };
    assert_eq!(count(DitConfig::small(32)), 32_963_360);
    assert_eq!(count(DitConfig::base(32)), 130_512_416);
    assert_eq!(count(DitConfig::large(32)), 458_102_816);
    assert_eq!(count(DitConfig::xl(32)), 675_129_632);
    // Counted on the torch module of tools/fixtures_dit.py.
    assert_eq!(count(DitConfig::small(32).with_patch(4)), 32_945_024);
    assert_eq!(count(DitConfig::small(32).with_patch(8)), 33_148_160);
    assert_eq!(count(DitConfig::xl(32).with_patch(8)), 675_683_072);
}

/// What adaLN-Zero is for: at the start every block passes its input on, and the output is zero.
#[test]
fn an_untrained_network_answers_zero_through_identity_blocks() {
    let device = Device::flex();
    let x = pattern([2, 3, 4, 10], 1.0, &device);
    let net = dit_config([4, 10]).init(&device);
    let output = net.forward_with_variance(x.clone(), times(&device), &Class::new(&[3, 7], &device));
    assert_eq!(output.dims(), [2, 6, 4, 10]);
    assert_eq!(output.abs().max().into_scalar::<f32>(), 0.0);
    let output = text_config().init(&device).forward(x.clone(), times(&device), &text(&device));
    assert_eq!(output.dims(), [2, 3, 4, 10]);
    assert_eq!(output.abs().max().into_scalar::<f32>(), 0.0);

    // The blocks by themselves: with another last layer, two of them answer as none at all.
    let shown = |depth| {
        let net = TextDitConfig { depth, ..text_config() }.init(&device).map(&mut Ends::default());
        net.forward(x.clone(), times(&device), &text(&device))
    };
    assert!(shown(0).abs().max().into_scalar::<f32>() > 0.1);
    assert_eq!(distance(shown(2), shown(0)), 0.0);
}

/// Fills all but the blocks by the formula.
#[derive(Default)]
struct Ends(Vec<String>);

impl ModuleMapper for Ends {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.0[0] == "blocks" {
            return param;
        }
        let name = self.0.join(".");
        param.map(|old| {
            let dims = old.dims();
            let values = params::formula(&name, dims.iter().product(), 16, false);
            Tensor::from_data(TensorData::new(values, dims), &old.device())
        })
    }
}

#[test]
fn errors_name_both_values() {
    let cases = [
        (DitConfig::new([4, 4], 16, 1, 3), "heads (3) must divide width (16)"),
        (DitConfig::new([4, 4], 16, 1, 0), "heads (0) must divide width (16)"),
        (DitConfig::new([4, 4], 6, 1, 2), "4, of the position table, (4) must divide width (6)"),
        (DitConfig::new([5, 4], 16, 1, 2), "patch (2) must divide height (5)"),
        (DitConfig::new([4, 6], 16, 1, 2).with_patch(4), "patch (4) must divide width of the input (6)"),
    ];
    for (config, expected) in cases {
        assert_eq!(config.validate().unwrap_err().to_string(), expected);
        let text = TextDitConfig::new(config.size, 4, config.width, 1, config.heads, 8, 8);
        assert_eq!(text.with_patch(config.patch).validate().unwrap_err().to_string(), expected);
        assert_eq!(panic_text(|| config.init(&Device::flex())), format!("DitConfig: {expected}"));
    }
    for config in [DitConfig::small(32), DitConfig::base(32), DitConfig::large(64), DitConfig::xl(16)] {
        config.validate().unwrap();
    }
}

/// A turned image has as many patches as the right one, and must not be given its positions.
#[test]
fn inputs_that_do_not_fit_name_their_sizes() {
    let device = Device::flex();
    let (by_class, by_text) = (dit([4, 10], &device), text_dit(&device));
    let cases = [
        ([2, 3, 10, 4], "x is [C, H, S] = [3, 10, 4], the DiT takes [3, 4, 10]"),
        ([2, 4, 4, 10], "x is [C, H, S] = [4, 4, 10], the DiT takes [3, 4, 10]"),
    ];
    for (dims, expected) in cases {
        let x = pattern(dims, 0.0, &device);
        let class = Class::new(&[0, 1], &device);
        let message = panic_text(|| by_class.forward(x.clone(), times(&device), &class));
        assert!(message.contains(expected), "{message}");
        let message = panic_text(|| by_text.forward(x, times(&device), &text(&device)));
        assert!(message.contains(expected), "{message}");
    }
    let x = pattern([3, 3, 4, 10], 0.0, &device);
    let class = Class::new(&[0], &device);
    let message = panic_text(|| by_class.forward(x.clone(), times(&device), &class));
    assert_eq!(message, "2 times and 1 conditions for a batch of 3");
    let message = panic_text(|| by_text.forward(x.clone(), times(&device), &text(&device)));
    assert_eq!(message, "2 times and 2 texts for a batch of 3");
    let wide = Text { tokens: Tensor::ones([2, 5, 13], &device), ..text(&device) };
    let message = panic_text(|| by_text.forward(x.narrow(0, 0, 2), times(&device), &wide));
    assert!(message.contains("[token, pooled] widths are [13, 7], the DiT reads [12, 7]"), "{message}");
}

#[test]
fn configs_survive_json() {
    let config = dit_config([4, 10]).with_learn_variance(false).with_patch(1);
    let back: DitConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{config:?}"));
    let config = text_config().with_mlp_ratio(3).with_activation(canvas_core::nn::Activation::Silu);
    let back: TextDitConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{config:?}"));
}

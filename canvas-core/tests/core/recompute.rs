use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{DropoutConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::activation::silu;
use canvas_core::nn::{Attention, AttentionConfig};
use canvas_core::params::{self, Named};
use canvas_core::recompute::Forward;
use canvas_core::trace::{self, SkippedBlocks};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

const WIDTH: usize = 8;

/// Two streams through blocks that share a vector, an attention and a skip, with layers outside.
#[derive(Module, Debug)]
struct Net {
    embed: Linear,
    time: Linear,
    blocks: Vec<Linear>,
    modulations: Vec<Linear>,
    shared: Attention,
    text: Linear,
    wide: Linear,
    last: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let net = Self {
            embed: linear(3, WIDTH),
            time: linear(1, WIDTH),
            blocks: (0..4).map(|_| linear(WIDTH, WIDTH)).collect(),
            modulations: (0..4).map(|_| linear(WIDTH, WIDTH)).collect(),
            shared: AttentionConfig::new(WIDTH, 2).init(device),
            text: linear(5, WIDTH),
            wide: linear(2 * WIDTH, WIDTH),
            last: linear(WIDTH, 3),
        };
        params::fill_by_formula(net)
    }

    fn block(&self, i: usize, h: Tensor<3>, text: Tensor<3>, c: Tensor<2>) -> (Tensor<3>, Tensor<3>) {
        let scale = self.modulations[i].forward(c).unsqueeze_dim::<3>(1); // [B, 1, W]
        let h = h.clone() + silu(self.blocks[i].forward(h)) * scale;
        let both = Tensor::cat(vec![h.clone(), text.clone()], 1);
        let read = trace::scope(|| "attention".into(), || self.shared.forward(both.clone(), both, None));
        (h + read.clone().narrow(1, 0, 4), text + read.narrow(1, 4, 2))
    }

    /// Losses `[B]`.
    fn losses(&self, device: &Device) -> Tensor<1> {
        let x = crate::waves([2, 4, 3], 0.3).to_device(device);
        let c = silu(self.time.forward(Tensor::from_floats([[0.3], [0.8]], device))); // [B, W]
        let mut h = self.embed.forward(x.clone()); // [B, N, W]
        let mut text = self.text.forward(crate::waves([2, 2, 5], 0.7).to_device(device)); // [B, T, W]
        let mut skips = Vec::new();
        for i in 0..4 {
            let run = |(h, text)| self.block(i, h, text, c.clone());
            (h, text) = trace::block(|| format!("blocks.{i}"), (h, text), run);
            skips.push(h.clone());
        }
        let h = Tensor::cat(vec![h, skips.swap_remove(0)], 2); // [B, N, 2 W]
        let h = trace::unit(|| "wide".into(), || self.wide.forward(h)); // [B, N, W]
        let out = self.last.forward(h * c.unsqueeze_dim::<3>(1)); // read outside of blocks as well
        (out - x).square().reshape([2, 12]).mean_dim(1).reshape([2])
    }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, x| most.max(x.abs()))
}

/// The largest relative error of the gradients with blocks run again, and the number of gradients.
fn compared<M: Module>(model: &M, blocks: usize, losses: impl Fn(&M) -> Tensor<1>) -> (f64, usize) {
    let whole = losses(model);
    let expected = GradientsParams::from_grads(whole.clone().mean().backward(), model);
    let forward = Forward::new(model, losses);
    assert_eq!(forward.losses.to_data(), whole.inner().into_data());
    let found = forward.gradients(blocks);
    assert_eq!(found.len(), expected.len());
    let [found, expected] = [found, expected].map(|all| params::named_gradients(model, &all));
    // Parts of a gradient may cancel: all of them in that of the keys' bias, which is rounding and nothing else.
    let least = 0.1 * largest(expected.iter().flat_map(|each| each.data.iter::<f64>()));
    let error = |(found, expected): (&Named, &Named)| {
        assert_eq!(found.name, expected.name);
        let off = found.data.iter::<f64>().zip(expected.data.iter::<f64>()).map(|(a, b)| a - b);
        largest(off) / largest(expected.data.iter::<f64>()).max(least)
    };
    (largest(found.iter().zip(&expected).map(error)), found.len())
}

#[test]
fn gradients_are_those_of_the_whole_network_however_many_blocks_are_run_again() {
    let device = Device::flex().autodiff();
    for device in [device.clone(), device.gradient_checkpointing()] {
        let net = Net::new(&device);
        for blocks in [1, 2, 3, 5, 100] {
            let (worst, count) = compared(&net, blocks, |net| net.losses(&device));
            println!("{blocks} blocks: {worst:.1e}");
            assert!(worst < 1e-6, "{blocks} blocks: {worst:.1e}");
            // Five layers, four blocks of two, four of attention, each with a bias.
            assert_eq!(count, 2 * (5 + 8 + 4));
        }
    }
}

/// Stops every other parameter from being trained.
#[derive(Default)]
struct Freeze(usize);

impl ModuleMapper for Freeze {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        if self.0.is_multiple_of(2) { param.set_require_grad(false) } else { param }
    }
}

#[test]
fn frozen_parameters_have_no_gradient_and_the_others_have_theirs() {
    let device = Device::flex().autodiff();
    let (worst, count) =
        compared(&Net::new(&device).map(&mut Freeze::default()), 1, |net| net.losses(&device));
    assert!(worst < 1e-6, "{worst:.1e}");
    assert_eq!(count, 17);
    // Nothing below the last layer is trained: no gradient goes to the blocks' parameters.
    let mut net = Net::new(&device);
    let last = net.last.clone();
    net = net.no_grad();
    net.last = last;
    assert_eq!(compared(&net, 1, |net| net.losses(&device)).1, 2);
    // And the other way round: only the first layer is trained.
    let mut net = Net::new(&device);
    let embed = net.embed.clone();
    net = net.no_grad();
    net.embed = embed;
    assert_eq!(compared(&net, 1, |net| net.losses(&device)).1, 2);
}

#[test]
fn hooks_see_and_change_a_network_that_is_run_again() {
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let skipped =
        |net: &Net| trace::with_hook(Rc::new(SkippedBlocks::new(&["blocks.2"])), || net.losses(&device));
    let whole = net.losses(&device);
    assert_ne!(skipped(&net).into_data(), whole.clone().into_data());
    for blocks in [1, 2] {
        let (worst, count) = compared(&net, blocks, skipped);
        assert!(worst < 1e-6, "{blocks} blocks: {worst:.1e}");
        assert_eq!(count, 2 * (5 + 6 + 4));
    }
}

#[test]
fn a_network_without_blocks_is_differentiated_at_once() {
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let losses = |net: &Net| net.last.forward(Tensor::<2>::ones([3, WIDTH], &device)).square().sum();
    assert_eq!(compared(&net, 1, losses), (0.0, 2));
}

/// The text of a panic; what ran is over.
fn panic_text<T>(run: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).err().expect("should panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_owned(),
    }
}

#[test]
fn a_function_that_cannot_be_run_again_is_refused() {
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let x = crate::waves::<2>([2, WIDTH], 0.1).to_device(&device);
    let gradients = |losses: &dyn Fn(&Net) -> Tensor<1>| Forward::new(&net, losses).gradients(1);

    let captured = |_: &Net| trace::block(|| "a".into(), x.clone(), |x| net.blocks[0].forward(x)).sum();
    assert!(
        panic_text(|| gradients(&captured))
            .starts_with("a has a graph: the losses are not those of the model")
    );

    let drop = DropoutConfig::new(0.5).init();
    let random = |net: &Net| {
        let run = |x| drop.forward(net.blocks[0].forward(x));
        trace::block(|| "a".into(), x.clone(), run).square().sum()
    };
    assert!(panic_text(|| gradients(&random)).starts_with("a gives something else when run again: "));

    // A second stream beside the block is lost.
    let beside = |net: &Net| {
        let mut text = x.clone();
        let mut h = x.clone();
        for i in 0..2 {
            let read = &mut text;
            let run = |h: Tensor<2>| {
                *read = net.blocks[i].forward(read.clone());
                h + read.clone()
            };
            h = trace::block(|| format!("blocks.{i}"), h, run);
        }
        h.square().sum()
    };
    assert!(panic_text(|| gradients(&beside)).starts_with("blocks.1 gives something else when run again: "));

    let calls = Cell::new(0);
    let changing = |net: &Net| {
        calls.set(calls.get() + 1);
        let run = |x| net.blocks[0].forward(x);
        trace::block(|| format!("call {}", calls.get()), x.clone(), run).sum()
    };
    let message = "the network has come to \"call 2\" where it had come to \"call 1\" before";
    assert_eq!(panic_text(|| gradients(&changing)), message);
    let shrinking = |net: &Net| {
        calls.set(calls.get() + 1);
        if calls.get() % 2 == 0 {
            return net.blocks[0].forward(x.clone()).sum();
        }
        trace::block(|| "a".into(), x.clone(), |x| net.blocks[0].forward(x)).sum()
    };
    calls.set(0);
    assert!(panic_text(|| gradients(&shrinking)).contains("come to 0 blocks where it had come to 1 before"));

    let plain = |net: &Net| net.losses(&device);
    let none = panic_text(|| Forward::new(&net, plain).gradients(0));
    assert_eq!(none, "gradients are computed some blocks at a time, not 0");
    let nested = panic_text(|| Forward::new(&net, |net| Forward::new(net, plain).losses));
    assert_eq!(nested, "losses that are to be run again cannot be computed within others");
    // None of this is left behind.
    assert!(compared(&net, 1, plain).0 < 1e-6);
}

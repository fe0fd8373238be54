//! How the kernels are differentiated.

use super::simd::zeros;
use super::{
    Kernels, Scores, Turn, attend, conv, dense, forwards, group, groups, like, linear, matrix, numbers,
    pointwise, rows, sizes, turned, width,
};
use crate::nn::Activation;
use crate::ops::{Conv2d, GroupNorm, Norm};
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use std::fmt;
use std::sync::Arc;

type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn activate(x: Tracked<C>, by: Activation) -> Tracked<C> {
        let value = dense(x.primitive().clone());
        let y = like(&value, pointwise::forward(by, numbers(&value)));
        noted::<C, _>([x], y, move |grad, _| {
            [Some(like(&value, pointwise::backward(by, numbers(&value), numbers(&dense(grad)))))]
        })
    }

    fn gate(gate: Tracked<C>, up: Tracked<C>, by: Activation) -> Tracked<C> {
        let [a, b] = [&gate, &up].map(|x| dense(x.primitive().clone()));
        let y = like(&a, pointwise::gated(by, numbers(&a), numbers(&b)));
        noted::<C, _>([gate, up], y, move |grad, _| {
            pointwise::gated_backward(by, numbers(&a), numbers(&b), numbers(&dense(grad)))
                .map(|found| Some(like(&a, found)))
        })
    }

    fn norm(x: Tracked<C>, weight: Tracked<C>, bias: Tracked<C>, norm: Norm) -> Tracked<C> {
        let [value, scale, shift] = [&x, &weight, &bias].map(|x| dense(x.primitive().clone()));
        let (y, stats) = rows::norm(norm, numbers(&value), numbers(&scale), numbers(&shift), width(&value));
        let y = like(&value, y);
        noted::<C, _>([x, weight, bias], y, move |grad, _| {
            let (values, scales) = (numbers(&value), numbers(&scale));
            let [dx, dw, db] =
                rows::norm_backward(norm, values, scales, &stats, numbers(&dense(grad)), width(&value));
            [like(&value, dx), like(&scale, dw), like(&scale, db)].map(Some)
        })
    }

    fn residual(x: Tracked<C>, gate: Tracked<C>, y: Tracked<C>) -> Tracked<C> {
        let [value, factor, branch] = [&x, &gate, &y].map(|x| dense(x.primitive().clone()));
        let out =
            like(&value, rows::residual(numbers(&value), numbers(&factor), numbers(&branch), width(&value)));
        noted::<C, _>([x, gate, y], out, move |grad, _| {
            let (grad, factors, width) = (dense(grad), numbers(&factor), width(&branch));
            let [dgate, dy] = rows::residual_backward(factors, numbers(&branch), numbers(&grad), width);
            let [dgate, dy] = [like(&factor, dgate), like(&branch, dy)];
            [grad, dgate, dy].map(Some)
        })
    }

    fn linear(x: Tracked<C>, weight: Tracked<C>, bias: Tracked<C>) -> Tracked<C> {
        let [value, vector] = [&x, &bias].map(|x| dense(x.primitive().clone()));
        let layer = forwards(weight.primitive().clone());
        let y = Flex::linear(value.clone(), layer.clone(), vector.clone());
        let sizes = [width(&value), width(&layer)];
        noted::<C, _>([x, weight, bias], y, move |grad, asked| {
            let grad = dense(grad);
            let (grads, to) = (numbers(&grad), sizes[1]);
            let dx = asked[0].then(|| like(&value, linear::input_gradient(grads, matrix(&layer))));
            let dw = asked[1].then(|| like(&layer, linear::weight_gradient(numbers(&value), grads, sizes)));
            let db = asked[2].then(|| like(&vector, linear::bias_gradient(grads, to)));
            [dx, dw, db]
        })
    }

    fn conv2d(x: Tracked<C>, weight: Tracked<C>, bias: Tracked<C>, conv: Conv2d) -> Tracked<C> {
        let [value, kernel, vector] = [&x, &weight, &bias].map(|x| dense(x.primitive().clone()));
        let y = Flex::conv2d(value.clone(), kernel.clone(), vector.clone(), conv);
        let sizes = sizes(&value, &kernel, conv);
        noted::<C, _>([x, weight, bias], y, move |grad, asked| {
            let grad = dense(grad);
            let grads = numbers(&grad);
            let dx = asked[0].then(|| {
                let mut dx = zeros(numbers(&value).len());
                conv::input_gradient(&sizes, numbers(&kernel), grads, &mut dx);
                like(&value, dx)
            });
            let dw = asked[1].then(|| {
                let mut dw = zeros(numbers(&kernel).len());
                conv::weight_gradient(&sizes, numbers(&value), grads, &mut dw);
                like(&kernel, dw)
            });
            let [rows, columns] = sizes.output();
            let db = asked[2].then(|| like(&vector, group::channel_sums(grads, sizes.to, rows * columns)));
            [dx, dw, db]
        })
    }

    fn group_norm(x: Tracked<C>, weight: Tracked<C>, bias: Tracked<C>, norm: GroupNorm) -> Tracked<C> {
        let [value, scale, shift] = [&x, &weight, &bias].map(|x| dense(x.primitive().clone()));
        let sizes = groups(&value, norm);
        let (y, stats) =
            group::norm(sizes, norm.activation, numbers(&value), [numbers(&scale), numbers(&shift)]);
        let y = like(&value, y);
        noted::<C, _>([x, weight, bias], y, move |grad, _| {
            let (values, vectors) = (numbers(&value), [numbers(&scale), numbers(&shift)]);
            let [dx, dw, db] =
                group::norm_backward(sizes, norm.activation, values, vectors, &stats, numbers(&dense(grad)));
            [like(&value, dx), like(&scale, dw), like(&scale, db)].map(Some)
        })
    }

    fn attention(query: Tracked<C>, key: Tracked<C>, value: Tracked<C>, scores: Scores) -> Tracked<C> {
        let values = [&query, &key, &value].map(|x| attend::seen(x.primitive().clone()));
        let (out, kept) = attend::forward(&values, &scores, true);
        let (kept, answer) = (kept.expect("asked for"), out.clone());
        noted::<C, _>([query, key, value], out, move |grad, _| {
            attend::backward(&values, &scores, [&answer, &attend::seen(grad)], &kept).map(Some)
        })
    }

    fn rotate(x: Tracked<C>, turn: Turn) -> Tracked<C> {
        let y = turned(x.primitive().clone(), &turn, false);
        noted::<C, _>([x], y, move |grad, _| [Some(turned(grad, &turn, true))])
    }
}

/// Notes that `output` was made of `inputs`, and how the gradients of these follow from its own: of those that are asked
/// for at least.
fn noted<C: CheckpointStrategy, const N: usize>(
    inputs: [Tracked<C>; N],
    output: FlexTensor,
    slope: impl Fn(FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + Sync + 'static,
) -> Tracked<C> {
    match Noted.prepare::<C>(inputs.map(|x| x.node())).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(Slope(Arc::new(slope)), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

#[derive(Debug)]
struct Noted;

/// From the gradient of an output to those of its inputs.
#[derive(Clone)]
struct Slope<const N: usize>(Arc<SlopeOf<N>>);

type SlopeOf<const N: usize> = dyn Fn(FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + Sync;

impl<const N: usize> fmt::Debug for Slope<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slope of {N} inputs")
    }
}

impl<const N: usize> Backward<Flex, N> for Noted {
    type State = Slope<N>;

    fn backward(self, ops: Ops<Slope<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let asked = ops.parents.each_ref().map(Option::is_some);
        let found = (ops.state.0)(grads.consume::<Flex>(&ops.node), asked);
        for (parent, found) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(found)) = (parent, found) {
                grads.register::<Flex>(parent.id, found);
            }
        }
    }
}

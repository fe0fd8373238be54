use crate::{assert_near, host, host64, tensor, waves};
use burn::nn::Linear;
use burn::nn::conv::Conv2dConfig;
use burn::prelude::*;
use canvas_core::nn::{
    Activation, Attention, AttentionConfig, MlpConfig, TimeEmbedConfig, dense, init, modulate, patch,
    position, sinusoidal,
};
use canvas_core::params;

mod layers {
    use super::*;

    #[test]
    fn activations_by_hand() {
        let x = [-2.0, -0.5, 0.0, 0.5, 2.0];
        let table = [
            (Activation::Gelu, [-0.045500264, -0.154268770, 0.0, 0.345731230, 1.954499736]),
            (Activation::GeluTanh, [-0.045402306, -0.154285990, 0.0, 0.345714010, 1.954597694]),
            (Activation::Silu, [-0.238405844, -0.188770334, 0.0, 0.311229666, 1.761594156]),
            (Activation::Relu, [0.0, 0.0, 0.0, 0.5, 2.0]),
            (Activation::ReluSquared, [0.0, 0.0, 0.0, 0.25, 4.0]),
        ];
        for (activation, expected) in table {
            println!("{activation:?}");
            assert_near(&activation.forward(tensor(&x, [5])), &expected, 2e-6);
        }
    }

    #[test]
    fn mlp_is_two_layers_around_the_activation() {
        let config = MlpConfig::new(2, 3).with_activation(Activation::Relu);
        let mlp = params::fill_by_formula(config.init(&Device::flex()));
        let x = waves([1, 4, 2], 0.0);
        let expected = mlp.down.forward(mlp.up.forward(x.clone()).clamp_min(0.0));
        assert_near(&mlp.forward(x), &host64(&expected), 1e-6);
    }

    #[test]
    fn dense_is_the_layer_applied_to_each_token_with_the_same_gradients() {
        let device = Device::flex().autodiff();
        let layer = params::fill_by_formula(init::zero_linear(3, 5, &device));
        let x = Tensor::<3>::from_data(waves([2, 4, 3], 0.0).into_data(), &device).require_grad();
        let run = |y: Tensor<3>| {
            let gradients = y.clone().square().sum().backward();
            let weight = layer.weight.val().grad(&gradients).unwrap();
            (host64(&y), [host64(&x.grad(&gradients).unwrap()), host64(&weight)].concat())
        };
        let (found, plain) = (run(dense(&layer, x.clone())), run(layer.forward(x.clone())));
        assert_near(&tensor(&plain.0.iter().map(|v| *v as f32).collect::<Vec<_>>(), [40]), &found.0, 1e-5);
        assert_near(&tensor(&plain.1.iter().map(|v| *v as f32).collect::<Vec<_>>(), [39]), &found.1, 1e-4);
    }

    #[test]
    fn initial_weights_have_the_spread_their_names_say() {
        let device = Device::flex();
        device.seed(1);
        let std = |layer: &Linear| {
            let values = host64(&layer.weight.val());
            assert!(host(&layer.bias.as_ref().unwrap().val()).iter().all(|bias| *bias == 0.0));
            (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
        };
        // Uniform on +-sqrt(6 / (in + out)) has the variance 2 / (in + out).
        assert!((std(&init::xavier_linear(100, 300, &device)) / (2f64 / 400.0).sqrt() - 1.0).abs() < 0.02);
        assert!((std(&init::normal_linear(0.02, 100, 300, &device)) / 0.02 - 1.0).abs() < 0.02);
        assert_eq!(std(&init::zero_linear(10, 30, &device)), 0.0);
        let rows = host64(&init::normal_embedding(0.5, 100, 300, &device).weight.val());
        let std = (rows.iter().map(|v| v * v).sum::<f64>() / rows.len() as f64).sqrt();
        assert!((std / 0.5 - 1.0).abs() < 0.02, "{std}");
    }
}

mod tables {
    use super::*;

    #[test]
    fn sinusoidal_by_hand() {
        // Width 4, period 10000: frequencies 1 and 1/100; cosines first.
        let expected = |t: f64| [t.cos(), (t / 100.0).cos(), t.sin(), (t / 100.0).sin()];
        let times = [0.0, 1.0, 2.5];
        let table = sinusoidal(tensor(&[0.0, 1.0, 2.5], [3]), 4, 10000.0);
        assert_eq!(table.dims(), [3, 4]);
        assert_near(&table, &times.map(expected).concat(), 1e-6);
        assert_near(&table.slice([0..1, 0..4]), &[1.0, 1.0, 0.0, 0.0], 0.0);
    }

    #[test]
    fn time_embedding_scales_time_first() {
        let device = Device::flex();
        let layer = |scale| {
            let config = TimeEmbedConfig::new(3).with_features(4).with_scale(scale);
            params::fill_by_formula(config.init(&device))
        };
        let (scaled, plain) = (layer(1000.0), layer(1.0));
        let expected = host64(&plain.forward(tensor(&[300.0, 20.0], [2])));
        assert_near(&scaled.forward(tensor(&[0.3, 0.02], [2])), &expected, 1e-4);
    }

    #[test]
    fn sincos_2d_by_hand_with_the_column_first() {
        // 8 channels: two frequencies, 1 and 1/100; the column's sines and cosines, then the row's.
        let place = |p: f64| [p.sin(), (p / 100.0).sin(), p.cos(), (p / 100.0).cos()];
        let cell = |row: f64, column: f64| [place(column), place(row)].concat();
        let expected: Vec<f64> = [(0., 0.), (0., 1.), (0., 2.), (1., 0.), (1., 1.), (1., 2.)]
            .into_iter()
            .flat_map(|(r, c)| cell(r, c))
            .collect();
        let table = position::sincos_2d(2, 3, 8, &Device::flex());
        assert_eq!(table.dims(), [1, 6, 8]);
        assert_near(&table, &expected, 1e-6);
    }

    #[test]
    #[should_panic(expected = "even width, found 5")]
    fn sinusoidal_refuses_an_odd_width() {
        sinusoidal(tensor(&[0.0], [1]), 5, 10000.0);
    }

    #[test]
    #[should_panic(expected = "4 must divide")]
    fn sincos_2d_refuses_other_channels() {
        position::sincos_2d(2, 2, 6, &Device::flex());
    }
}

mod patches {
    use super::*;

    const SHAPE: [usize; 4] = [2, 3, 4, 6];

    /// Place of pixel (image, channel, row, column) in a flat `[B, C, H, W]`.
    fn pixel([_, channels, height, width]: [usize; 4], at: [usize; 4]) -> usize {
        ((at[0] * channels + at[1]) * height + at[2]) * width + at[3]
    }

    /// Calls `f(place among token values, image place, channel, row in token, column in token)` for all.
    fn each(patch: usize, mut f: impl FnMut(usize, usize, [usize; 3])) {
        let [batch, channels, height, width] = SHAPE;
        let (columns, size) = (width / patch, channels * patch * patch);
        let count = (height / patch) * columns;
        for image in 0..batch {
            for token in 0..count {
                for inside in 0..patch * patch * channels {
                    let (c, r, k) = (inside / (patch * patch), inside / patch % patch, inside % patch);
                    let at = [image, c, token / columns * patch + r, token % columns * patch + k];
                    f((image * count + token) * size, pixel(SHAPE, at), [c, r, k]);
                }
            }
        }
    }

    #[test]
    fn split_orders_channel_row_column() {
        let x = waves(SHAPE, 0.0);
        let values = host64(&x);
        let mut expected = vec![f64::NAN; values.len()];
        each(2, |token, place, [c, r, k]| expected[token + (c * 2 + r) * 2 + k] = values[place]);
        let tokens = patch::split(x, 2);
        assert_eq!(tokens.dims(), [2, 6, 12]);
        assert_near(&tokens, &expected, 0.0);
    }

    #[test]
    fn join_orders_row_column_channel() {
        let tokens = waves([2, 6, 12], 0.0);
        let values = host64(&tokens);
        let mut expected = vec![f64::NAN; values.len()];
        each(2, |token, place, [c, r, k]| expected[place] = values[token + (r * 2 + k) * 3 + c]);
        let image = patch::join_channels_last(tokens, 2, 4, 6);
        assert_eq!(image.dims(), SHAPE);
        assert_near(&image, &expected, 0.0);
    }

    #[test]
    fn join_undoes_split_up_to_the_order_inside_a_token() {
        for size in [1, 2] {
            let x = waves(SHAPE, 0.0);
            let [batch, count, _] = patch::split(x.clone(), size).dims();
            let tokens = patch::split(x.clone(), size)
                .reshape([batch, count, 3, size * size])
                .swap_dims(2, 3)
                .reshape([batch, count, 3 * size * size]);
            assert_eq!(host(&patch::join_channels_last(tokens, size, 4, 6)), host(&x));
        }
    }

    #[test]
    fn a_linear_layer_after_split_is_a_convolution() {
        let device = Device::flex();
        let convolution = Conv2dConfig::new([3, 5], [2, 2]).with_stride([2, 2]).init(&device);
        let x = waves(SHAPE, 0.0);
        let (weight, bias) = (convolution.weight.val(), convolution.bias.as_ref().unwrap().val());
        let weight = weight.reshape([5, 12]).swap_dims(0, 1).unsqueeze::<3>();
        let linear = patch::split(x.clone(), 2).matmul(weight) + bias.unsqueeze();
        let expected: Tensor<3> = convolution.forward(x).flatten::<3>(2, 3).swap_dims(1, 2);
        assert_near(&linear, &host64(&expected), 1e-5);
    }

    #[test]
    #[should_panic(expected = "patch (4) must divide height (4) and width (6)")]
    fn split_refuses_a_patch_that_does_not_divide() {
        patch::split(waves(SHAPE, 0.0), 4);
    }

    #[test]
    #[should_panic(expected = "6 tokens for 2 by 2 patches")]
    fn join_refuses_another_count_of_tokens() {
        patch::join_channels_last(waves([2, 6, 12], 0.0), 2, 4, 4);
    }
}

mod modulation {
    use super::*;

    #[test]
    fn norm_has_zero_mean_and_unit_variance() {
        let x = waves([2, 3, 8], 0.0) * 7.0 + 3.0;
        for row in host64(&modulate::norm(x)).chunks(8) {
            let mean = row.iter().sum::<f64>() / 8.0;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 8.0;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
        }
        assert_near(&modulate::norm(tensor(&[5.0; 4], [1, 1, 4])), &[0.0; 4], 1e-5);
    }

    #[test]
    fn apply_shifts_and_scales_each_sample() {
        let x = tensor(&[1.0, 2.0, 3.0, 4.0], [2, 1, 2]);
        let (shift, scale) =
            (tensor(&[10.0, 20.0, 0.0, 0.0], [2, 1, 2]), tensor(&[0.0, 1.0, -1.0, 0.5], [2, 1, 2]));
        assert_near(&modulate::apply(x, shift, scale), &[11.0, 24.0, 0.0, 6.0], 1e-6);
    }

    #[test]
    fn chunks_are_slices_of_the_projection() {
        let layer = params::fill_by_formula(init::zero_linear(2, 6, &Device::flex()));
        let c = waves([3, 2], 0.0);
        let all = layer.forward(Activation::Silu.forward(c.clone()));
        let parts: [Tensor<3>; 3] = modulate::chunks("modulation", &layer, c);
        for (k, part) in parts.iter().enumerate() {
            assert_eq!(part.dims(), [3, 1, 2]);
            assert_near(part, &host64(&all.clone().slice([0..3, 2 * k..2 * k + 2])), 1e-6);
        }
    }

    #[test]
    #[should_panic(expected = "4 modulation vectors from a width of 6")]
    fn chunks_refuse_a_width_that_does_not_divide() {
        let _: [Tensor<3>; 4] =
            modulate::chunks("modulation", &init::zero_linear(2, 6, &Device::flex()), waves([1, 2], 0.0));
    }
}

mod attention {
    use super::*;

    fn layer(context: Option<usize>) -> Attention {
        params::fill_by_formula(AttentionConfig::new(4, 2).with_context(context).init(&Device::flex()))
    }

    fn mask(values: &[bool], shape: [usize; 2]) -> Tensor<2, Bool> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    /// One query's output by loops over heads, keys and channels.
    fn by_hand(
        layer: &Attention,
        x: &Tensor<3>,
        context: &Tensor<3>,
        seen: &dyn Fn(usize, usize) -> bool,
    ) -> Vec<f64> {
        let ([batch, queries, _], keys) = (x.dims(), context.dims()[1]);
        let [q, k, v] = [
            layer.query.forward(x.clone()),
            layer.key.forward(context.clone()),
            layer.value.forward(context.clone()),
        ]
        .map(|t| host64(&t));
        let mut mixed = vec![0.0; batch * queries * 4];
        for b in 0..batch {
            for i in 0..queries {
                for head in 0..2 {
                    let place = |row: usize, c: usize| row * 4 + head * 2 + c;
                    let score = |j: usize| -> f64 {
                        let dot: f64 =
                            (0..2).map(|c| q[place(b * queries + i, c)] * k[place(b * keys + j, c)]).sum();
                        if seen(b, j) { (dot / 2f64.sqrt()).exp() } else { 0.0 }
                    };
                    let total: f64 = (0..keys).map(score).sum();
                    for c in 0..2 {
                        mixed[place(b * queries + i, c)] =
                            (0..keys).map(|j| score(j) / total * v[place(b * keys + j, c)]).sum();
                    }
                }
            }
        }
        let mixed: Vec<f32> = mixed.into_iter().map(|v| v as f32).collect();
        host64(&layer.output.forward(tensor(&mixed, [batch, queries, 4])))
    }

    #[test]
    fn equals_a_naive_loop_with_and_without_a_mask() {
        let (layer, x, context) = (layer(Some(3)), waves([2, 3, 4], 0.0) * 3.0, waves([2, 5, 3], 0.4) * 3.0);
        let plain = layer.forward(x.clone(), context.clone(), None);
        assert_near(&plain, &by_hand(&layer, &x, &context, &|_, _| true), 1e-5);
        let seen = [true, false, true, true, false, false, true, true, false, false];
        let masked = layer.forward(x.clone(), context.clone(), Some(mask(&seen, [2, 5])));
        assert_near(&masked, &by_hand(&layer, &x, &context, &|b, j| seen[b * 5 + j]), 1e-5);
        assert_ne!(host(&plain), host(&masked));
    }

    #[test]
    fn self_attention_equals_a_naive_loop() {
        let (layer, x) = (layer(None), waves([2, 5, 4], 0.0));
        let found = layer.forward(x.clone(), x.clone(), None);
        assert_near(&found, &by_hand(&layer, &x, &x, &|_, _| true), 1e-5);
    }

    #[test]
    fn a_mask_that_hides_nothing_is_no_mask() {
        let (layer, x) = (layer(None), waves([2, 5, 4], 0.0));
        let open = layer.forward(x.clone(), x.clone(), Some(mask(&[true; 10], [2, 5])));
        assert_eq!(host(&open), host(&layer.forward(x.clone(), x, None)));
    }

    #[test]
    fn hidden_tokens_get_no_gradient_even_when_they_are_huge() {
        let device = Device::flex().autodiff();
        let layer = params::fill_by_formula(AttentionConfig::new(4, 2).init(&device));
        let x = Tensor::<3>::from_data(waves([1, 1, 4], 0.0).into_data(), &device);
        let context = Tensor::cat(vec![x.clone(), x.clone() * 1e4], 1).require_grad();
        let hide = Tensor::<2, Bool>::from_data([[true, false]], &device);
        let out = layer.forward(x, context.clone(), Some(hide));
        let gradients = out.sum().backward();
        let gradient: Vec<f32> = context.grad(&gradients).unwrap().into_data().iter::<f32>().collect();
        assert!(gradient[..4].iter().any(|g| g.abs() > 1e-4));
        assert_eq!(gradient[4..], [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "heads (3) must divide width (4)")]
    fn refuses_heads_that_do_not_divide() {
        AttentionConfig::new(4, 3).init(&Device::flex());
    }
}

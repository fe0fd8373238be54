//! LoRA files: what they are refused for, what is reported, what stays as it was. Parity with diffusers is tested where
//! the networks are, in canvas-unet and canvas-text.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use canvas_core::params;
use canvas_core::weights::{Lora, Merging, Part, Report, Rules, WeightsError, write_tensors};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;

#[derive(Module, Debug)]
struct Net {
    to_q: Linear,
    conv_in: Conv2d,
    norm: LayerNorm,
}

fn net(layout: LinearLayout, device: &Device) -> Net {
    params::realise(Net {
        to_q: LinearConfig::new(4, 6).with_layout(layout).init(device),
        conv_in: Conv2dConfig::new([4, 6], [3, 3]).init(device),
        norm: LayerNormConfig::new(6).init(device),
    })
}

fn plain() -> Net {
    net(LinearLayout::Row, &Device::flex())
}

/// A file of ones in these shapes, in a folder that lives as long.
fn file(keys: &[(&str, &[usize])], metadata: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("lora.safetensors");
    let ones = |shape: &[usize]| TensorData::new(vec![1f32; shape.iter().product()], shape.to_vec());
    let tensors: Vec<_> = keys.iter().map(|(key, shape)| ((*key).to_owned(), ones(shape))).collect();
    let metadata: BTreeMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    write_tensors(&path, &tensors, &metadata).unwrap();
    (folder, path)
}

/// Merges a file into the UNet and finishes.
fn merge(net: Net, keys: &[(&str, &[usize])]) -> Result<(Net, Report), WeightsError> {
    let (_folder, path) = file(keys, &[]);
    let lora = Lora::open(&path)?;
    let mut merging = Merging::new(&[(&lora, 1.0)]);
    let net = merging.merge(net, Part::Unet, &[&Rules::new()])?;
    Ok((net, merging.finish()?.remove(0)))
}

/// Why it is refused, without the file's name.
fn refusal(keys: &[(&str, &[usize])]) -> String {
    let shown = merge(plain(), keys).unwrap_err().to_string();
    let (path, rest) = shown.split_once(".safetensors: ").unwrap();
    assert!(path.ends_with("/lora"), "{shown}");
    rest.to_owned()
}

const LINEAR: [(&str, &[usize]); 2] =
    [("unet.to_q.lora_A.weight", &[2, 4]), ("unet.to_q.lora_B.weight", &[6, 2])];

fn bits(net: &Net) -> Vec<Vec<u32>> {
    let values = |data: TensorData| data.iter::<f32>().map(f32::to_bits).collect();
    params::named(net).into_iter().map(|param| values(param.data)).collect()
}

#[test]
fn every_key_is_reported() {
    let mut keys = LINEAR.to_vec();
    keys.extend([("lora_unet_conv_in.lora_down.weight", &[1, 4, 3, 3][..])]);
    keys.extend([("lora_unet_conv_in.lora_up.weight", &[6, 1, 1, 1][..])]);
    keys.extend([("lora_unet_conv_in.alpha", &[][..])]);
    let (_, report) = merge(plain(), &keys).unwrap();
    let mut listed: Vec<String> =
        report.every_key().trim().lines().map(|line| line.trim().to_owned()).collect();
    listed.sort();
    assert_eq!(
        listed,
        [
            "renamed lora_unet_conv_in.alpha to conv_in.weight",
            "renamed lora_unet_conv_in.lora_down.weight to conv_in.weight",
            "renamed lora_unet_conv_in.lora_up.weight to conv_in.weight",
            "renamed unet.to_q.lora_A.weight to to_q.weight",
            "renamed unet.to_q.lora_B.weight to to_q.weight",
        ]
    );
}

#[test]
fn keys_that_no_layer_has_are_refused_with_the_nearest() {
    let error = refusal(&[("unet.to_w.lora_A.weight", &[2, 4]), ("unet.to_w.lora_B.weight", &[6, 2])]);
    assert_eq!(
        error,
        "does not fit this model (0 of 2 parameters fit)\
         \n  unexpected unet.to_w.lora_A.weight [2, 4]; nearest: to_q\
         \n  unexpected unet.to_w.lora_B.weight [6, 2]; nearest: to_q"
    );
    // Without a part, it could be of any, so only the end tells.
    let error = refusal(&[
        ("base_model.model.conv_im.lora_A.weight", &[2, 4]),
        ("base_model.model.conv_im.lora_B.weight", &[6, 2]),
    ]);
    assert!(
        error.contains("unexpected base_model.model.conv_im.lora_A.weight [2, 4]; nearest: conv_in"),
        "{error}"
    );
}

#[test]
fn parts_that_are_not_merged_are_refused_or_left_out_on_purpose() {
    let mut keys = LINEAR.to_vec();
    keys.extend([("lora_te2_q_proj.lora_down.weight", &[2, 4][..])]);
    keys.extend([("lora_te2_q_proj.lora_up.weight", &[6, 2][..])]);
    let error = refusal(&keys);
    assert!(
        error.starts_with("does not fit this model (2 of 4 parameters fit)\n  unexpected lora_te2_q_proj.lora_down.weight (for the text_encoder_2, which was not merged) [2, 4]"),
        "{error}"
    );
    let (_folder, path) = file(&keys, &[]);
    let lora = Lora::open(&path).unwrap();
    assert_eq!(lora.parts().into_iter().collect::<Vec<_>>(), [Part::Unet, Part::TextEncoder2]);
    let mut merging = Merging::new(&[(&lora, 1.0)]);
    merging.leave_out(Part::TextEncoder2, "there is one encoder");
    merging.merge(plain(), Part::Unet, &[&Rules::new()]).unwrap();
    let report = merging.finish().unwrap().remove(0);
    assert_eq!((report.renamed.len(), report.ignored.len()), (2, 2));
    assert_eq!(report.ignored[0].1, "there is one encoder");
}

#[test]
fn shapes_that_do_not_fit_are_refused_by_key() {
    for (down, up, expected) in [
        (&[2, 5][..], &[6, 2][..], "unet.to_q.lora_A.weight: expected shape [2, 4], found [2, 5]"),
        (&[2, 4], &[6, 3], "unet.to_q.lora_B.weight: expected shape [6, 2], found [6, 3]"),
        (&[2, 4, 3, 3], &[6, 2], "unet.to_q.lora_A.weight: expected shape [2, 4], found [2, 4, 3, 3]"),
        (&[0, 4], &[6, 0], "unet.to_q.lora_A.weight: expected shape [1, 4], found [0, 4]"),
    ] {
        let error = refusal(&[(LINEAR[0].0, down), (LINEAR[1].0, up)]);
        assert!(error.contains(expected), "{error}");
    }
    let down: (&str, &[usize]) = ("unet.conv_in.lora_A.weight", &[2, 4, 1, 1]);
    let error = refusal(&[down, ("unet.conv_in.lora_B.weight", &[6, 2, 1, 1])]);
    assert!(
        error.contains("conv_in.lora_A.weight: expected shape [2, 4, 3, 3], found [2, 4, 1, 1]"),
        "{error}"
    );
    let error = refusal(&[("unet.norm.lora_A.weight", &[2, 4]), ("unet.norm.lora_B.weight", &[6, 2])]);
    assert!(error.contains("unet.norm.lora_A.weight") && error.contains("[6]"), "{error}");
    let kron: (&str, &[usize]) = ("lora_unet_to_q.lokr_w1", &[4, 2]);
    let error = refusal(&[kron, ("lora_unet_to_q.lokr_w2", &[2, 2])]);
    assert!(
        error.contains(
            "lora_unet_to_q.lokr_w1 (divisors of these sizes): expected shape [6, 4], found [4, 2]"
        ),
        "{error}"
    );
}

#[test]
fn keys_that_are_not_understood_are_refused_by_name() {
    for (key, expected) in [
        ("lora_unet_to_q.dora_scale", "the magnitude of LyCORIS' DoRA, which is not supported"),
        ("lora_unet_to_q.diff", "a whole difference of weights, which is not supported"),
        ("unet.to_q.lora_B.bias", "a bias, which is not supported"),
        ("unet.to_q.weight", "a name of none of them"),
    ] {
        let error = refusal(&[LINEAR[0], LINEAR[1], (key, &[6])]);
        assert_eq!(error, format!("{key}: expected a tensor of LoRA, LoHa or LoKr, found {expected}"));
    }
    let error = refusal(&[LINEAR[0]]);
    assert_eq!(error, format!("{}: expected the tensor up of the same layer, found it without", LINEAR[0].0));
    let error = refusal(&[("lora_unet_to_q.hada_w1_a", &[6, 2])]);
    assert!(error.contains("expected the tensor hada_w1_b of the same layer"), "{error}");
    let mixed = [LINEAR[0], LINEAR[1], ("unet.to_q.hada_w1_a", &[6, 2][..])];
    assert!(refusal(&mixed).contains("expected hada tensors of the same layer only"));
    let (_folder, path) = file(&LINEAR, &[]);
    std::fs::write(&path, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let error = Lora::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("expected a tensor of LoRA, LoHa or LoKr, found no tensor at all"), "{error}");
    let twice = [LINEAR[0], LINEAR[1], ("unet.to_q.lora.down.weight", &[2, 4][..])];
    assert!(refusal(&twice).contains("found unet.to_q.lora.down.weight as well"));
    let twice = [LINEAR[0], LINEAR[1], ("base_model.model.to_q.lora_A.weight", &[2, 4][..])];
    let twice = [&twice[..], &[("base_model.model.to_q.lora_B.weight", &[6, 2][..])]].concat();
    assert!(refusal(&twice).contains("to_q.weight is changed by"), "{}", refusal(&twice));
}

#[test]
fn names_of_two_layers_are_refused() {
    let (_folder, path) = file(&LINEAR, &[]);
    let lora = Lora::open(&path).unwrap();
    let other = Rules::new().exact("to_q.weight", "conv_in.weight");
    let merged = Merging::new(&[(&lora, 1.0)]).merge(plain(), Part::Unet, &[&Rules::new(), &other]);
    let error = merged.unwrap_err().to_string();
    assert!(error.contains("(the name of to_q.weight and of conv_in.weight)"), "{error}");
}

#[test]
fn settings_that_cannot_be_honoured_are_refused() {
    for (settings, expected) in [
        (r#"{"unet.lora_alpha": "four"}"#, "lora_alpha: expected a number, found \"four\""),
        (r#"{"unet.lora_alpha": 4, "unet.alpha_pattern": {"to_(q|k)": 2}}"#, "found to_(q|k)"),
        ("{", "lora_adapter_metadata: expected an object of settings"),
    ] {
        let (_folder, path) = file(&LINEAR, &[("lora_adapter_metadata", settings)]);
        let error = Lora::open(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut keys = LINEAR.to_vec();
    keys.push(("unet.to_q.alpha", &[]));
    let (_folder, path) = file(&keys, &[("lora_adapter_metadata", r#"{"unet.lora_alpha": 4}"#)]);
    let error = Lora::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("unet.to_q.alpha: expected no alpha, which") && error.ends_with("found one"),
        "{error}"
    );
}

/// `ones [6, 2] ones [2, 4]` times alpha 1 over rank 2 is 1 everywhere.
#[test]
fn both_layouts_of_a_linear_layer_change_alike_and_clones_stay() {
    for layout in [LinearLayout::Row, LinearLayout::Col] {
        let net = net(layout, &Device::flex());
        let before = bits(&net);
        let mut keys = LINEAR.to_vec();
        keys.push(("unet.to_q.alpha", &[]));
        let (merged, _) = merge(net.clone(), &keys).unwrap();
        assert_eq!(bits(&net), before, "a clone is as it was");
        let change = merged.to_q.weight.val() - net.to_q.weight.val();
        crate::assert_near(&change, &[1.0; 24], 1e-6);
        assert_eq!(merged.to_q.weight.id, net.to_q.weight.id);
        let (again, _) = merge(net.clone(), &keys).unwrap();
        assert_eq!(bits(&again), bits(&merged));
        let x = crate::waves([1, 4], 0.3);
        let expected = net.to_q.forward(x.clone()) + x.clone().sum_dim(1);
        crate::assert_near(&merged.to_q.forward(x), &crate::host64(&expected), 1e-6);
    }
}

#[test]
fn parameters_keep_their_type_and_go_on_learning() {
    let net = plain();
    let half = Net { to_q: net.to_q.clone().map(&mut Half), ..net };
    let before: Tensor<2> = half.to_q.weight.val();
    let (merged, _) = merge(half, &LINEAR).unwrap();
    assert_eq!(merged.to_q.weight.val().dtype(), DType::BF16);
    let expected = (before.cast(FloatDType::F32) + 2.0).cast(FloatDType::BF16).cast(FloatDType::F32);
    let found = merged.to_q.weight.val().cast(FloatDType::F32);
    assert_eq!(crate::host(&found), crate::host(&expected), "rounded once");

    let device = Device::flex().autodiff();
    let (merged, _) = merge(self::net(LinearLayout::Row, &device), &LINEAR).unwrap();
    let loss = merged.to_q.forward(Tensor::<2>::ones([1, 4], &device)).sum();
    assert!(merged.to_q.weight.val().grad(&loss.backward()).is_some());
}

struct Half;

impl burn::module::ModuleMapper for Half {
    fn map_float<const D: usize>(
        &mut self,
        param: burn::module::Param<Tensor<D>>,
    ) -> burn::module::Param<Tensor<D>> {
        param.map(|value| value.cast(FloatDType::BF16))
    }
}

#[test]
fn folders_are_opened_by_their_only_file() {
    let (folder, path) = file(&LINEAR, &[]);
    let error = Lora::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("pytorch_lora_weights.safetensors"), "{error}");
    std::fs::rename(path, folder.path().join("pytorch_lora_weights.safetensors")).unwrap();
    assert!(Lora::open(folder.path()).is_ok());
}

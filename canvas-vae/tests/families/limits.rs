//! Inputs that do not fit, and odd sizes that do.

use burn::prelude::*;
use canvas_core::Autoencoder;
use canvas_vae::{AutoencoderDcConfig, AutoencoderKlConfig, AutoencoderKlFlux2Config};
use canvas_vae::{AutoencoderKlQwenImageConfig, AutoencoderRaeConfig, DcLevel, RaeEncoder};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn panic_text<T>(run: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).err().expect("should panic");
    *payload.downcast::<String>().expect("a formatted message")
}

fn small() -> Vec<(&'static str, Box<dyn Autoencoder>, usize)> {
    let device = Device::flex();
    let levels = vec![DcLevel::new(4, 1), DcLevel::new(8, 1), DcLevel::new(8, 1)];
    let dc = AutoencoderDcConfig::new(levels.clone(), levels).with_latent(4);
    let network = AutoencoderKlConfig::new().with_channels(vec![2, 2]).with_layers(1).with_latent(3);
    let flux2 = AutoencoderKlFlux2Config::new().with_network(network.with_groups(1));
    let qwen = AutoencoderKlQwenImageConfig::new().with_width(2).with_multiples(vec![1, 1, 2]).with_layers(1);
    vec![
        ("latent is 4", Box::new(dc.init(&device)), 4),
        ("channels is 12", Box::new(flux2.init(&device)), 12),
        ("latent is 3", Box::new(qwen.with_latent(3).init(&device)), 3),
    ]
}

#[test]
fn shapes_follow_the_image() {
    for (name, model, channels) in small() {
        let images = Tensor::<4>::ones([2, 3, 12, 20], &Device::flex());
        let latents = model.encode(images.clone()).mode();
        assert_eq!(latents.dims(), [2, channels, 3, 5], "{name}");
        assert_eq!(latents.dims()[1..], model.latent_shape(12, 20));
        assert_eq!(model.decode(latents).dims(), images.dims(), "{name}");
    }
}

#[test]
fn wrong_images_and_latents_name_both_numbers() {
    for (field, model, channels) in small() {
        let zeros = |dims: [usize; 4]| Tensor::<4>::zeros(dims, &Device::flex());
        let size = panic_text(|| model.encode(zeros([1, 3, 8, 10])));
        assert_eq!(size, "image width (10) must be a multiple of the autoencoder's downsampling (4)");
        assert_eq!(panic_text(|| model.latent_shape(8, 10)), size);
        let images = panic_text(|| model.encode(zeros([1, 1, 8, 8])));
        assert_eq!(images, "images have 1 channels, but the autoencoder's image_channels is 3");
        let latents = panic_text(|| model.decode(zeros([1, channels + 1, 2, 2])));
        assert_eq!(latents, format!("latents have {} channels, but the autoencoder's {field}", channels + 1));
    }
}

/// Its images are of one size, and so are its latents.
#[test]
fn a_representation_autoencoder_has_one_size() {
    let device = Device::flex();
    let config = AutoencoderRaeConfig::new().with_encoder(RaeEncoder::Mae).with_width(8).with_head(8);
    let config = config.with_layers(0).with_encoder_patch(56).with_input_side(112).with_patch(2);
    let config = config.with_decoder_width(8).with_decoder_heads(2).with_decoder_layers(0);
    let model = config.init(&device);
    let zeros = |dims: [usize; 4]| Tensor::<4>::zeros(dims, &device);
    assert_eq!(model.decode(model.encode(zeros([2, 3, 4, 4])).mode()).dims(), [2, 3, 4, 4]);
    assert_eq!(model.latent_shape(4, 4), [8, 2, 2]);
    let size = panic_text(|| model.encode(zeros([1, 3, 4, 6])));
    assert_eq!(size, "images are 4 by 6, but the autoencoder's are 4 by 4");
    let places = panic_text(|| model.decode(zeros([1, 8, 2, 3])));
    assert_eq!(places, "latents have 2 by 3 places, but the autoencoder's are 2 by 2");
    let channels = panic_text(|| model.decode(zeros([1, 3, 2, 2])));
    assert_eq!(channels, "latents have 3 channels, but the autoencoder's width is 8");
    let colours = panic_text(|| model.encode(zeros([1, 1, 4, 4])));
    assert_eq!(colours, "images have 1 channels, but the autoencoder's image_channels is 3");
}

#[test]
fn sizes_that_do_not_fit_together_name_both() {
    let levels = |widths: &[usize]| widths.iter().map(|&width| DcLevel::new(width, 1)).collect::<Vec<_>>();
    let says = |encoder: Vec<DcLevel>, decoder: Vec<DcLevel>| {
        AutoencoderDcConfig::new(encoder, decoder).with_latent(4).validate().unwrap_err().to_string()
    };
    let lengths = says(levels(&[4, 8]), levels(&[4]));
    assert_eq!(
        lengths,
        "encoder (2 levels) and decoder (1 levels) must have the same number of levels, at least 1"
    );
    let widths = says(levels(&[4, 12]), levels(&[4, 8]));
    assert_eq!(widths, "width of the next (12) must divide four times the width of a level (16)");
    let empty = says(levels(&[4, 8]), vec![DcLevel::new(4, 1), DcLevel::new(8, 0)]);
    assert_eq!(empty, "blocks of a level behind the first must be at least 1, found 0");
    let odd = AutoencoderKlQwenImageConfig::new().with_width(3).with_multiples(vec![2, 1]);
    let odd = odd.validate().unwrap_err().to_string();
    assert_eq!(odd, "width of a level (3) must be even: the decoder halves it as it doubles the size");
}

//! Checks of tensor sizes that name both sides.

/// Height and width of the latents of an image.
///
/// # Panics
/// If a side is zero or no multiple of the downsampling factor.
pub(crate) fn latent_size(height: usize, width: usize, factor: usize) -> [usize; 2] {
    for (name, side) in [("height", height), ("width", width)] {
        assert!(
            side > 0 && side.is_multiple_of(factor),
            "image {name} ({side}) must be a multiple of the autoencoder's downsampling ({factor})"
        );
    }
    [height / factor, width / factor]
}

/// # Panics
/// If the numbers of channels differ.
pub(crate) fn check_channels(what: &str, found: usize, field: &str, expected: usize) {
    assert!(found == expected, "{what} have {found} channels, but the autoencoder's {field} is {expected}");
}

//! The vocabulary every canvas crate shares: levels, predictions, backbones, denoisers, samplers, conditions, randomness, weight files, images, layers.

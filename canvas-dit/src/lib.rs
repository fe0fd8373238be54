//! The transformer family of denoising networks.

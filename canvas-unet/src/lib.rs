//! The UNet family of denoising networks.

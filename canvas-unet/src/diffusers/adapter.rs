//! Configurations of `T2IAdapter`.

use crate::{AdapterKind, T2iAdapterConfig};
use canvas_core::config_file::{ConfigFileError, Fields};
use std::path::Path;

impl T2iAdapterConfig {
    /// Reads a `config.json` of class `T2IAdapter`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "T2IAdapter")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "T2IAdapter")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let kind = match fields.word_or("adapter_type", "full_adapter")? {
            "full_adapter" => AdapterKind::Full,
            "full_adapter_xl" => AdapterKind::FullXl,
            "light_adapter" => AdapterKind::Light,
            _ => {
                let expected = "\"full_adapter\", \"full_adapter_xl\" or \"light_adapter\"";
                return Err(fields.refuse("adapter_type", expected));
            }
        };
        let config = Self::new(kind, fields.numbers("channels", &[320, 640, 1280, 1280])?)
            .with_hint_channels(fields.number("in_channels")?.unwrap_or(3))
            .with_blocks(fields.number("num_res_blocks")?.unwrap_or(2))
            .with_factor(fields.number("downscale_factor")?.unwrap_or(8));
        fields.finish(config, Self::validate)
    }
}

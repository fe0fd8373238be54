//! The autoencoders of DiT's descendants against diffusers (fixtures by `tools/fixtures_autoencoders.py`): values,
//! gradients of every parameter, names, configurations, limits.

mod configs;
mod limits;
mod parity;

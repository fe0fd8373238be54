//! The program `generate`: pictures from published models.
//!
//! The way of a picture, which is also the order in which to read:
//! [`args`] what is asked; [`model`] the networks and their weights, from a folder or
//! a single file; [`adapters`] what is put on them; [`text`] prompts to
//! conditions; [`picture`] pictures to tensors; [`draws`] noise; [`start`] where the run starts; [`scheduler`] levels and steps; [`network`] everything
//! as one backbone; [`run`](mod@run) the run itself; [`save`] what is left.

pub mod adapters;
pub mod args;
pub mod draws;
mod folder;
mod hub;
pub mod loader;
pub mod lora;
pub mod memory;
pub mod model;
pub mod network;
pub mod picture;
pub mod run;
pub mod save;
pub mod scheduler;
pub mod show;
mod single;
pub mod start;
pub mod text;
pub mod transformers;
mod unet_folder;

//! Trains a text-to-image model on emoji.
fn main() {}

//! The programs that train, from the outside.

mod common;
mod emoji;
mod fashion;
mod train;

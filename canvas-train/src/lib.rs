//! Objectives, optimisation steps, averaging, checkpoints and data order.

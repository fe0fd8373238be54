//! Noise schedules, prediction types, timestep grids, samplers and guidance.

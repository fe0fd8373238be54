//! Prediction types that only diffusers' conventions need.

use crate::predict;
use canvas_core::{Coefficients, Level, Prediction};

/// Flow prediction that is told the level's own time: some classes tell whole training steps, or times that do
/// not go with the sigma.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToldFlow {
    /// -1 where the network predicts the way to the data: `invert_sigmas`.
    pub(super) sign: f64,
}

impl Prediction for ToldFlow {
    fn coefficients(&self, level: Level) -> Coefficients {
        let flow = predict::Flow.coefficients(level);
        Coefficients { out: self.sign * flow.out, time: level.time, ..flow }
    }
    fn target(&self, _level: Level) -> (f64, f64) {
        (-self.sign, self.sign)
    }
}

/// EDM's preconditioning with the output's sign turned: what its classes call `v_prediction`.
#[derive(Clone, Copy, Debug)]
pub(super) struct NegatedEdm(pub(super) predict::Edm);

impl Prediction for NegatedEdm {
    fn coefficients(&self, level: Level) -> Coefficients {
        let edm = self.0.coefficients(level);
        Coefficients { out: -edm.out, ..edm }
    }
    fn target(&self, level: Level) -> (f64, f64) {
        let (of_x0, of_eps) = self.0.target(level);
        (-of_x0, -of_eps)
    }
}

//! Weights of full rank, for tests in which those of `fill_by_formula` hide too much.

use burn::module::{ModuleMapper, Param};
use burn::prelude::*;

/// Every parameter by `chirp` of tools/formula.py.
#[derive(Default)]
pub struct Chirp(Vec<String>);

impl ModuleMapper for Chirp {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.0.join(".");
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let phase = (name.bytes().fold(0xcbf2_9ce4_8422_2325, mix) % 1000) as f64;
        param.map(|old| {
            let (dims, count) = (old.dims(), old.dims().iter().product::<usize>());
            let fan_in = if D < 2 { 16 } else { count / dims[usize::from(D == 2)] };
            let (centre, scale) =
                if name.ends_with("gamma") { (1.0, 0.1) } else { (0.0, (2.0 / fan_in as f64).sqrt()) };
            let wave = |i: usize| {
                let i = i as f64;
                (centre + scale * (0.7 * i + 0.013 * i * i + phase).sin()) as f32
            };
            let values: Vec<f32> = (0..count).map(wave).collect();
            let value = Tensor::from_data(TensorData::new(values, dims), &old.device());
            if old.is_require_grad() { value.require_grad() } else { value }
        })
    }
}

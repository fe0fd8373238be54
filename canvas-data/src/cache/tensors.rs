//! Named tensors as bytes.

use super::CacheError;
use burn::tensor::{BoolStore, DType, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;

/// Named tensors on the host: what is cached of one image or text.
pub type Tensors = BTreeMap<String, TensorData>;

const TYPES: [(DType, Dtype); 13] = [
    (DType::F64, Dtype::F64),
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
    (DType::Bool(BoolStore::Native), Dtype::BOOL),
];

/// As safetensors, which keep each tensor's type.
pub(super) fn encode(tensors: &Tensors) -> Result<Vec<u8>, CacheError> {
    let mut views = Vec::new();
    for (name, data) in tensors {
        let dtype = data.dtype();
        let Some((_, stored)) = TYPES.iter().find(|(ours, _)| *ours == dtype) else {
            return Err(CacheError::Type { name: name.clone(), dtype });
        };
        let view = TensorView::new(*stored, data.shape().to_vec(), data.as_bytes());
        views.push((name, view.expect("as many bytes as the shape and the type say")));
    }
    Ok(safetensors::serialize(views, None).expect("named once each"))
}

/// What [`encode`] made, or what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<Tensors, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let tensor = |(name, view): (String, TensorView<'_>)| {
        let Some((dtype, _)) = TYPES.iter().find(|(_, stored)| *stored == view.dtype()) else {
            return Err(format!("tensor {name} has values of type {:?}", view.dtype()));
        };
        Ok((name, TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), *dtype)))
    };
    file.tensors().into_iter().map(tensor).collect()
}

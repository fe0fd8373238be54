//! Named activations, looked at only when something went wrong.
//!
//! Networks name their intermediate results with [`tap`]; it costs nothing until a search is on.

use burn::prelude::*;
use std::cell::RefCell;

thread_local! {
    /// `None`: no search. `Some(None)`: searching. `Some(Some(name))`: found.
    static SEARCH: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Names an activation, and passes it on.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::trace;
/// let found = trace::first_non_finite(|| {
///     let x = trace::tap(|| "input".into(), Tensor::<1>::zeros([3], &Device::flex()));
///     trace::tap(|| "log".into(), x.log());
/// });
/// assert_eq!(found.as_deref(), Some("log"));
/// ```
pub fn tap<const D: usize>(name: impl FnOnce() -> String, x: Tensor<D>) -> Tensor<D> {
    SEARCH.with_borrow_mut(|search| {
        if let Some(found @ None) = search
            && x.clone().into_data().iter::<f32>().any(|value| !value.is_finite())
        {
            *found = Some(name());
        }
    });
    x
}

/// Runs `forward` and names the first tapped activation that holds a NaN or an infinity.
pub fn first_non_finite(forward: impl FnOnce()) -> Option<String> {
    SEARCH.set(Some(None));
    forward();
    SEARCH.take().flatten()
}

use crate::tensor;
use canvas_core::trace;

#[test]
fn the_first_broken_activation_is_named_and_a_search_ends() {
    let x = tensor::<1>(&[1.0, 0.0], [2]);
    let found = trace::first_non_finite(|| {
        trace::tap(|| "fine".into(), x.clone());
        trace::tap(|| "first".into(), x.clone().log());
        trace::tap(|| "second".into(), x.clone().recip());
    });
    assert_eq!(found.as_deref(), Some("first"));
    assert_eq!(trace::first_non_finite(|| drop(trace::tap(|| "fine".into(), x.clone()))), None);
    // No search is on: the name is never asked for.
    trace::tap(|| unreachable!(), x.log());
}

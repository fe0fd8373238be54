use burn::prelude::*;
use canvas_core::Tokens;

#[test]
fn tokens_select_rows_and_keep_their_layout_on_a_device() {
    let tokens =
        Tokens { ids: vec![1, 2, 0, 4, 5, 6], mask: vec![true, true, false, true, true, true], length: 3 };
    assert_eq!(tokens.batch(), 2);
    let picked = tokens.select(&[1, 0, 1]);
    assert_eq!(picked.ids, [4, 5, 6, 1, 2, 0, 4, 5, 6]);
    assert_eq!(picked.mask, [true, true, true, true, true, false, true, true, true]);
    let (ids, mask) = tokens.tensors(&Device::flex());
    assert_eq!((ids.dims(), mask.dims()), ([2, 3], [2, 3]));
    assert_eq!(ids.into_data().iter::<i64>().collect::<Vec<_>>(), [1, 2, 0, 4, 5, 6]);
    assert_eq!(mask.into_data().iter::<bool>().collect::<Vec<_>>(), tokens.mask);
    assert_eq!(tokens.select(&[]).batch(), 0);
}

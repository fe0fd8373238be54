use canvas_train::Order;

fn is_permutation(images: &[usize]) -> bool {
    let mut sorted = images.to_vec();
    sorted.sort_unstable();
    sorted == (0..images.len()).collect::<Vec<_>>()
}

#[test]
fn every_epoch_is_another_permutation() {
    let order = Order::new(7, 50);
    let epochs: Vec<Vec<usize>> = (0..20).map(|epoch| order.batch(epoch * 50, 50)).collect();
    for (i, epoch) in epochs.iter().enumerate() {
        assert!(is_permutation(epoch), "{epoch:?}");
        assert!(!epochs[..i].contains(epoch), "epoch {i} repeats an earlier one");
    }
    assert_ne!(Order::new(8, 50).batch(0, 50), epochs[0], "seeds differ");
}

#[test]
fn places_are_used_evenly() {
    // Each of 5 images comes first in about a fifth of 2000 epochs: 400 +- 4 standard deviations of 18.
    let order = Order::new(1, 5);
    let mut firsts = [0; 5];
    (0..2000).for_each(|epoch| firsts[order.batch(epoch * 5, 1)[0]] += 1);
    assert!(firsts.iter().all(|count| (328..=472).contains(count)), "{firsts:?}");
}

#[test]
fn a_batch_is_a_slice_of_the_order_whatever_its_borders() {
    let order = Order::new(7, 10);
    let whole = order.batch(0, 47);
    for start in 0..40 {
        for count in [0, 1, 3, 10, 25] {
            let end = (start + count).min(47);
            assert_eq!(order.batch(start as u64, end - start), whole[start..end], "{start}..{end}");
        }
    }
    // Far on, and far on again: no state between.
    assert_eq!(order.batch(1_000_000_007, 20)[5..9], order.batch(1_000_000_012, 4));
}

/// A run is resumed by a later build: the order must not change with it.
#[test]
fn the_order_is_a_constant_of_its_seed() {
    assert_eq!(Order::new(7, 10).batch(8, 6), [9, 6, 3, 2, 7, 1]);
}

#[test]
fn one_image_is_an_order_and_none_is_not() {
    assert_eq!(Order::new(3, 1).batch(5, 4), [0; 4]);
    let payload = std::panic::catch_unwind(|| Order::new(3, 0)).unwrap_err();
    assert_eq!(*payload.downcast::<&str>().unwrap(), "an order needs at least one image");
}

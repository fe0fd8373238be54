use canvas_data::{Caption, Draw, draw_caption};

fn captions(weights: &[f64]) -> Vec<Caption> {
    weights.iter().enumerate().map(|(i, &weight)| Caption { weight, ..Caption::new(i.to_string()) }).collect()
}

fn drawn(captions: &[Caption], seed: u64, number: u64) -> Option<usize> {
    draw_caption(captions, Draw { seed, number }).map(|caption| caption.text.parse().unwrap())
}

#[test]
fn captions_are_drawn_as_often_as_they_weigh() {
    let weights = [0.5, 2.0, 3.5, 1.0];
    let captions = captions(&weights);
    let mut counts = [0.0; 4];
    (0..10_000).for_each(|number| counts[drawn(&captions, 3, number).unwrap()] += 1.0);
    let expected = weights.map(|weight| weight / 7.0 * 10_000.0);
    // Chi-square with 3 degrees of freedom: 16.3 is passed once in 1000.
    let chi: f64 = counts.iter().zip(expected).map(|(n, e)| (n - e) * (n - e) / e).sum();
    assert!(chi < 16.3, "{counts:?}, expected {expected:?}: {chi}");
}

#[test]
fn a_draw_is_a_function_of_seed_and_number() {
    let captions = captions(&[1.0; 8]);
    let row = |seed| (0..100).map(|number| drawn(&captions, seed, number)).collect::<Vec<_>>();
    assert_eq!(row(1), row(1));
    assert_ne!(row(1), row(2));
    // Other weights for all change nothing.
    let doubled: Vec<_> = captions.iter().map(|caption| Caption { weight: 2.0, ..caption.clone() }).collect();
    assert_eq!(row(1), (0..100).map(|number| drawn(&doubled, 1, number)).collect::<Vec<_>>());
}

#[test]
fn weights_that_are_none_are_never_drawn() {
    let captions = captions(&[f64::NAN, 0.0, 1.0, -3.0, f64::INFINITY, f64::MIN_POSITIVE]);
    assert!((0..1000).all(|number| drawn(&captions, 0, number) == Some(2)));
    assert_eq!(drawn(&captions[..2], 0, 0), None);
    assert_eq!(drawn(&[], 0, 0), None);
    assert_eq!(drawn(&captions[5..], 0, 0), Some(5));
}

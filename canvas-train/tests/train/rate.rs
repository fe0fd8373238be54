use crate::close;
use canvas_train::{Decay, LearningRate};

const RATE: LearningRate =
    LearningRate { peak: 2e-3, warmup: 100, decay: Decay::Cosine { floor: 0.1, total: 1100 } };

#[test]
fn warms_up_linearly_and_falls_along_a_cosine() {
    assert_eq!(RATE.at(0), 0.0);
    close(RATE.at(25), 0.5e-3, 1e-18);
    close(RATE.at(99), 1.98e-3, 1e-18);
    assert_eq!(RATE.at(100), 2e-3);
    close(RATE.at(350), 2e-3 * (0.1 + 0.9 * (1.0 + 0.5f64.sqrt()) / 2.0), 1e-15);
    close(RATE.at(600), 1.1e-3, 1e-15); // half way between peak and floor
    close(RATE.at(1100), 0.2e-3, 1e-15);
    for images in [1101, 5000, u64::MAX] {
        close(RATE.at(images), 0.2e-3, 1e-15);
    }
}

#[test]
fn never_jumps() {
    let rates: Vec<f64> = (0..1200).map(|images| RATE.at(images)).collect();
    let steepest = rates.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f64::max);
    assert!(steepest <= 2e-3 / 100.0 + 1e-15, "{steepest}");
}

#[test]
fn works_without_warmup_and_with_nothing_else() {
    let none = LearningRate { warmup: 0, ..RATE };
    assert_eq!(none.at(0), 2e-3);
    close(none.at(550), 1.1e-3, 1e-15);
    let only = LearningRate { decay: Decay::Cosine { floor: 0.1, total: 100 }, ..RATE };
    assert_eq!((only.at(50), only.at(100)), (1e-3, 2e-3));
    close(only.at(101), 0.2e-3, 1e-15);
    // Shorter than its warm-up, as a smoke run can be.
    let short = LearningRate { decay: Decay::Cosine { floor: 0.1, total: 10 }, ..RATE };
    assert_eq!((short.at(10), short.at(100)), (0.2e-3, 2e-3));
    assert!((0..=200).all(|images| short.at(images).is_finite()));
}

#[test]
fn other_decays_are_their_formulas() {
    let with = |decay| LearningRate { decay, ..RATE };
    let at = |decay, images| with(decay).at(images) / 2e-3;
    close(at(Decay::None, 1_000_000), 1.0, 1e-15);
    let line = Decay::Linear { floor: 0.2, total: 1100 };
    for (images, left) in [(100, 1.0), (600, 0.6), (1100, 0.2), (9999, 0.2)] {
        close(at(line, images), left, 1e-12);
    }
    let tail = Decay::Tail { tail: 200, total: 1100 };
    for (images, left) in [(100, 1.0), (900, 1.0), (1000, 0.5), (1100, 0.0), (9999, 0.0)] {
        close(at(tail, images), left, 1e-12);
    }
    let root = Decay::InverseRoot { from: 400 };
    for (images, left) in [(100, 1.0), (400, 1.0), (1600, 0.5), (40_000, 0.1)] {
        close(at(root, images), left, 1e-12);
    }
    for decay in [Decay::None, line, tail, root] {
        close(with(decay).at(50), 1e-3, 1e-15); // all warm up
    }
}

//! The shapes of points that tell curves apart where colours do not suffice.

use super::SCALE;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Half the width of a square, in pixels; the other shapes look as large.
const SIZE: f64 = 4.2 * SCALE as f64;

/// Corners of shape `n` around the origin, downwards positive; none is a disc.
fn corners(n: usize) -> Vec<(f64, f64)> {
    let star = |points: usize, inner: f64, turn: f64| {
        let corner = move |i: usize| {
            let (radius, angle) =
                (if i.is_multiple_of(2) { 1.45 } else { inner }, turn + i as f64 / points as f64);
            let angle = std::f64::consts::PI * angle;
            (radius * angle.sin(), -radius * angle.cos())
        };
        Vec::from_iter((0..2 * points).map(corner))
    };
    match n % 6 {
        0 => Vec::new(),
        1 => vec![(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
        2 => vec![(0.0, -1.4), (1.3, 1.0), (-1.3, 1.0)],
        3 => vec![(0.0, -1.5), (1.5, 0.0), (0.0, 1.5), (-1.5, 0.0)],
        4 => vec![(0.0, 1.4), (1.3, -1.0), (-1.3, -1.0)],
        _ => star(5, 0.65, 0.0),
    }
}

/// Draws shape `n` around a pixel, with a white edge that keeps it apart from lines and shapes below.
///
/// # Errors
///
/// If the backend cannot draw.
pub(super) fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    (x, y): (i32, i32),
    n: usize,
    [r, g, b]: [u8; 3],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    for (size, colour) in [(SIZE + 1.3 * f64::from(SCALE), WHITE), (SIZE, RGBColor(r, g, b))] {
        let corners = corners(n);
        if corners.is_empty() {
            area.draw(&Circle::new((x, y), (1.1 * size) as i32, colour.filled()))?;
            continue;
        }
        let place = |&(right, down): &(f64, f64)| {
            (x + (right * size).round() as i32, y + (down * size).round() as i32)
        };
        area.draw(&Polygon::new(corners.iter().map(place).collect::<Vec<_>>(), colour.filled()))?;
    }
    Ok(())
}

//! Which point of one cloud goes to which of another, so that all ways together are shortest: exact optimal transport, and with it the
//! 2-Wasserstein distance of two clouds.
//!
//! Prices of the points of the second cloud are found by an auction: a point that has no partner takes the one that is cheapest with
//! its price, and raises that price until its second choice is as cheap, and by `epsilon` more. In the end every point is content
//! within `epsilon`, so the mean of squares is within `epsilon` of the least. `epsilon` falls from phase to phase, prices stay.
//!
//! Prices never fall. So of a list of the cheapest partners, made once, the two cheapest are the cheapest of all for as long as they
//! cost no more than the dearest did when the list was made; and almost no bid looks at all points. Costs come from coordinates, so
//! memory grows with the points, not with their square.
//!
//! Bertsekas, "The Auction Algorithm: A Distributed Relaxation Method for the Assignment Problem", 1988, with scaling of epsilon; the
//! lists are as in Bertsekas and Eckstein's "third best" rule, of more than three.

use crate::points::Point;
use anyhow::{Result, ensure};

/// What prices prove the mean of squares to be wrong by at most, as a part of it.
pub const PROVEN: f64 = 1e-9;

/// Partners of a list.
const LISTED: usize = 48;
/// How much `epsilon` falls from phase to phase.
const FALL: f64 = 5.0;

/// Of each point of `from`, the place of its partner in `to`, such that the squares of all distances together are least; and their
/// mean, the squared 2-Wasserstein distance of the two clouds.
///
/// The prices prove it: no assignment has a mean lower by more than [`PROVEN`] times it (or, of clouds that lie on each other,
/// 1e-12 times the largest square), which is checked over all pairs.
///
/// # Errors
/// If a coordinate is not finite, or rounding spoils the proof, as where coordinates differ by many orders of magnitude.
///
/// # Panics
/// If there are not as many points in both.
pub fn shortest(from: &[Point], to: &[Point]) -> Result<(Vec<usize>, f64)> {
    assert_eq!(from.len(), to.len(), "points of two clouds");
    ensure!(from.iter().chain(to).flatten().all(|x| x.is_finite()), "points that are not finite");
    if from.is_empty() {
        return Ok((Vec::new(), 0.0));
    }
    let most = extent(from, to);
    let least = (1e-13 * most).max(f64::MIN_POSITIVE);
    let mut auction = Auction::new(from, to);
    let mut epsilon = (0.02 * most).max(least);
    let mean = loop {
        auction.phase(epsilon);
        let mean = auction.mean();
        // Twice as close as is to be proven, so that rounding has room.
        if epsilon <= 0.5 * PROVEN * mean || epsilon <= least {
            break mean;
        }
        epsilon = (epsilon / FALL).max(least);
    };
    let (gap, allowed) = (mean - auction.bound(), (PROVEN * mean).max(1e-12 * most).max(1e-300));
    ensure!(gap <= allowed, "an assignment of mean {mean} that is only proven within {gap}, not {allowed}");
    Ok((auction.of_row, mean))
}

fn square(a: Point, b: Point) -> f64 {
    (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)
}

/// The square of the diagonal of the box around both clouds.
fn extent(from: &[Point], to: &[Point]) -> f64 {
    let side = |axis: usize| {
        let all = || from.iter().chain(to).map(|point| point[axis]);
        all().fold(f64::NEG_INFINITY, f64::max) - all().fold(f64::INFINITY, f64::min)
    };
    side(0).powi(2) + side(1).powi(2)
}

const NONE: usize = usize::MAX;

struct Auction<'a> {
    from: &'a [Point],
    to: &'a [Point],
    prices: Vec<f64>,
    of_row: Vec<usize>,
    of_column: Vec<usize>,
    lists: Vec<List>,
}

/// The cheapest partners of a point when the list was made: places and squares. All others cost at least `limit`.
struct List {
    partners: Vec<(u32, f64)>,
    limit: f64,
}

impl<'a> Auction<'a> {
    fn new(from: &'a [Point], to: &'a [Point]) -> Self {
        let count = from.len();
        let lists = (0..count).map(|_| List { partners: Vec::new(), limit: f64::NEG_INFINITY }).collect();
        Self {
            from,
            to,
            prices: vec![0.0; count],
            of_row: vec![NONE; count],
            of_column: vec![NONE; count],
            lists,
        }
    }

    /// Finds everyone a partner who is within `epsilon` of the cheapest.
    fn phase(&mut self, epsilon: f64) {
        self.of_row.fill(NONE);
        self.of_column.fill(NONE);
        let mut waiting: Vec<usize> = (0..self.from.len()).rev().collect();
        let mut all = Vec::new();
        while let Some(row) = waiting.pop() {
            let (column, first, second) = self.cheapest(row, &mut all);
            // Alone in the world a point pays nothing more.
            let more = if second.is_finite() { second - first } else { 0.0 };
            self.prices[column] += more + epsilon;
            let before = std::mem::replace(&mut self.of_column[column], row);
            if before != NONE {
                self.of_row[before] = NONE;
                waiting.push(before);
            }
            self.of_row[row] = column;
        }
    }

    /// The cheapest partner, its cost with its price, and that of the second.
    fn cheapest(&mut self, row: usize, all: &mut Vec<(f64, u32)>) -> (usize, f64, f64) {
        let (column, first, second) = self.of_list(row);
        if second <= self.lists[row].limit {
            return (column, first, second);
        }
        self.renew(row, all);
        self.of_list(row)
    }

    fn of_list(&self, row: usize) -> (usize, f64, f64) {
        let (mut column, mut first, mut second) = (NONE, f64::INFINITY, f64::INFINITY);
        for &(partner, square) in &self.lists[row].partners {
            let cost = square + self.prices[partner as usize];
            if cost < first {
                (column, first, second) = (partner as usize, cost, first);
            } else if cost < second {
                second = cost;
            }
        }
        (column, first, second)
    }

    /// Looks at all points.
    fn renew(&mut self, row: usize, all: &mut Vec<(f64, u32)>) {
        let here = self.from[row];
        all.clear();
        let costs = self.to.iter().zip(&self.prices).map(|(&there, price)| square(here, there) + price);
        all.extend(costs.zip(0..));
        let list = &mut self.lists[row];
        list.limit = f64::INFINITY;
        if all.len() > LISTED {
            list.limit = all.select_nth_unstable_by(LISTED, |a, b| a.0.total_cmp(&b.0)).1.0;
            all.truncate(LISTED);
        }
        list.partners.clear();
        list.partners.extend(all.iter().map(|&(_, column)| (column, square(here, self.to[column as usize]))));
    }

    /// The mean of squares.
    fn mean(&self) -> f64 {
        let squares = self.of_row.iter().zip(self.from).map(|(&column, &here)| square(here, self.to[column]));
        squares.sum::<f64>() / self.from.len() as f64
    }

    /// What no assignment's mean is below: everyone at the cheapest, less all prices. By weak duality of linear programs, and for any
    /// prices; it asks all pairs, and none of the lists.
    fn bound(&self) -> f64 {
        let cheapest = |&here: &Point| {
            let costs = self.to.iter().zip(&self.prices).map(|(&there, price)| square(here, there) + price);
            costs.fold(f64::INFINITY, f64::min)
        };
        let paid: f64 = self.from.iter().map(cheapest).sum();
        (paid - self.prices.iter().sum::<f64>()) / self.from.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canvas_core::generator;
    use rand::RngExt;

    fn cloud(seed: u64, count: usize) -> Vec<Point> {
        let mut generator = generator(seed, 0, 0);
        (0..count).map(|_| [0, 1].map(|_| generator.random::<f64>())).collect()
    }

    /// Equal clouds are at no distance, moved ones at that of the move, whatever the order.
    #[test]
    fn distances_of_known_clouds() {
        let here = cloud(0, 300);
        let mut there: Vec<Point> = here.iter().map(|[x, y]| [x + 3.0, y - 4.0]).collect();
        there.reverse();
        assert!(shortest(&here, &here).unwrap().1 < 1e-12);
        let (partners, distance) = shortest(&here, &there).unwrap();
        assert!((distance - 25.0).abs() < 1e-7, "{distance}");
        assert!(partners.iter().enumerate().all(|(i, &partner)| partner == 299 - i));
        assert_eq!(shortest(&[[1.0, 2.0]], &[[4.0, 6.0]]).unwrap(), (vec![0], 25.0));
        assert_eq!(shortest(&[], &[]).unwrap(), (vec![], 0.0));
    }

    /// Points on a line keep their order, however many there are: more than a list holds.
    #[test]
    fn on_a_line_order_is_best() {
        let line = |seed| cloud(seed, 500).into_iter().map(|[x, _]| [x * x, 0.0]).collect::<Vec<Point>>();
        let sorted = |mut points: Vec<Point>| {
            points.sort_by(|a, b| a[0].total_cmp(&b[0]));
            points
        };
        let (a, b) = (sorted(line(1)), sorted(line(2)));
        let wanted = a.iter().zip(&b).map(|(&a, &b)| square(a, b)).sum::<f64>() / 500.0;
        let found = shortest(&line(1), &line(2)).unwrap().1;
        assert!((found / wanted - 1.0).abs() < 1e-9, "{found}, {wanted}");
    }

    /// By all 720 ways of pairing six points; also where some lie on each other.
    #[test]
    fn pairs_are_the_best_of_all() {
        fn best(row: usize, used: &mut Vec<usize>, cost: &dyn Fn(usize, usize) -> f64) -> f64 {
            if row == 6 {
                return 0.0;
            }
            let mut least = f64::INFINITY;
            for column in 0..6 {
                if !used.contains(&column) {
                    used.push(column);
                    least = least.min(cost(row, column) + best(row + 1, used, cost));
                    used.pop();
                }
            }
            least
        }
        for seed in 0..20 {
            let (from, mut to) = (cloud(seed, 6), cloud(seed + 100, 6));
            if seed % 2 == 1 {
                (to[1], to[2]) = (to[0], from[0]);
            }
            let least = best(0, &mut Vec::new(), &|i, j| square(from[i], to[j])) / 6.0;
            let (partners, found) = shortest(&from, &to).unwrap();
            assert!((found - least).abs() <= 1e-9 * least, "{found}, {least}");
            let mut once = partners.clone();
            once.sort_unstable();
            assert_eq!(once, Vec::from_iter(0..6), "every point has one partner");
        }
    }

    #[test]
    fn no_numbers_and_all_alike() {
        assert!(shortest(&[[f64::NAN, 0.0]], &[[0.0, 0.0]]).is_err());
        assert_eq!(shortest(&[[1.0, 1.0]; 60], &[[1.0, 1.0]; 60]).unwrap().1, 0.0);
        assert!((shortest(&[[1.0, 1.0]; 60], &[[2.0, 1.0]; 60]).unwrap().1 - 1.0).abs() < 1e-9);
    }
}

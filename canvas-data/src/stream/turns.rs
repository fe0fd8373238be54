//! Whose turn it is: several that take turns in proportion, in closed form.

use super::Permutation;
use super::key::derive;
use super::permutation::below;

/// Turns in proportion to quotas.
///
/// Time is cut into rounds. Before round `r`, lane `b` has had `floor((r q_b + phase_b) / D)` turns: never more than one
/// from its share, however small that is, and no turn is ever lost. A keyed phase keeps lanes of equal quota from having
/// their rare turns all at once. Within a round the turns are shuffled; each lane's own turns stay in order, so all lanes
/// go through what is theirs at the same pace.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    key: u64,
    quotas: Vec<u64>,
    phases: Vec<u64>,
    divisor: u64,
}

/// The turns of one round.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    first: u64,
    /// Lane, and which of the lane's turns it is.
    turns: Vec<(usize, u64)>,
}

impl Round {
    /// The lane of a turn and which of the lane's turns it is, if it is of this round.
    pub(super) fn get(&self, turn: u64) -> Option<(usize, u64)> {
        self.turns.get(usize::try_from(turn.checked_sub(self.first)?).ok()?).copied()
    }
}

impl Turns {
    /// A round is `sum(quotas) / divisor` turns on average.
    pub(super) fn new(key: u64, quotas: Vec<u64>, divisor: u64) -> Self {
        let phases = (0..quotas.len() as u64).map(|lane| below(derive(key, &[0, lane]), divisor)).collect();
        Self { key, quotas, phases, divisor }
    }

    /// Turns of a lane before a round.
    fn of_lane(&self, lane: usize, round: u64) -> u64 {
        let parts = u128::from(round) * u128::from(self.quotas[lane]) + u128::from(self.phases[lane]);
        (parts / u128::from(self.divisor)) as u64
    }

    /// Turns of all before a round.
    pub(super) fn before(&self, round: u64) -> u64 {
        (0..self.quotas.len()).map(|lane| self.of_lane(lane, round)).sum()
    }

    /// The round of a turn.
    ///
    /// With `Q` the quotas' sum and `P` the phases', `(r Q + P) / D - lanes < before(r) <= (r Q + P) / D`: the search has
    /// about `lanes * D / Q` rounds to choose from.
    fn round_of(&self, turn: u64) -> u64 {
        let sum = |values: &[u64]| values.iter().map(|&value| u128::from(value)).sum::<u128>();
        let (quota, phase, divisor) = (sum(&self.quotas), sum(&self.phases), u128::from(self.divisor));
        let (wide, lanes) = (u128::from(turn), self.quotas.len() as u128);
        let mut low = ((wide * divisor).saturating_sub(phase) / quota) as u64;
        let mut high = ((wide + 1 + lanes) * divisor / quota) as u64 + 1;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.before(middle) <= turn { low = middle } else { high = middle }
        }
        low
    }

    /// The round that a turn is of.
    pub(super) fn round(&self, turn: u64) -> Round {
        let round = self.round_of(turn);
        let mut next: Vec<u64> = (0..self.quotas.len()).map(|lane| self.of_lane(lane, round)).collect();
        let first = next.iter().sum();
        let count = |lane: usize| (self.of_lane(lane, round + 1) - next[lane]) as usize;
        let sorted: Vec<usize> =
            (0..next.len()).flat_map(|lane| std::iter::repeat_n(lane, count(lane))).collect();
        let order = Permutation::new(derive(self.key, &[1, round]), sorted.len() as u64);
        let turn = |place: u64| {
            let lane = sorted[order.at(place) as usize];
            next[lane] += 1;
            (lane, next[lane] - 1)
        };
        Round { first, turns: (0..sorted.len() as u64).map(turn).collect() }
    }
}

//! Looking up images of a stream one after another.

use super::lane::Layout;
use super::turns::Round;
use super::{Place, Stream};

/// Looks images of a stream up, and remembers the round and the windows of the last one.
///
/// What it returns does not depend on what it remembers.
#[derive(Clone, Debug)]
pub struct Cursor {
    stream: Stream,
    round: Round,
    layouts: Vec<Option<Layout>>,
}

impl Cursor {
    pub(super) fn new(stream: Stream) -> Self {
        let layouts = vec![None; stream.buckets()];
        Self { stream, round: Round::default(), layouts }
    }

    /// The image at a number of the run.
    pub fn at(&mut self, number: u64) -> Place {
        let inner = &*self.stream.0;
        let group = inner.group as u64;
        let (turn, within) = (number / group, number % group);
        let (lane, own) = match self.round.get(turn) {
            Some(found) => found,
            None => {
                self.round = inner.turns.round(turn);
                self.round.get(turn).expect("a turn is of its round")
            }
        };
        inner.lanes[lane].at(own * group + within, &mut self.layouts[lane])
    }
}

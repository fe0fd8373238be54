//! Tokens that go around some blocks of a network.

use super::kept::{Kept, rows_of, table};
use super::{Hook, Tapped, Undo, with_hook};
use crate::nn::Scores;
use burn::prelude::*;
use burn::tensor::kind::Basic;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

thread_local! {
    /// What is left of the tokens in the block that is running.
    static THERE: RefCell<Option<There>> = const { RefCell::new(None) };
}

/// A way around some blocks, for all tokens but those that are [`Kept`].
///
/// Before the block `from` the others are taken out, behind the block `to` they are put back: as they were (TREAD), or what
/// stands [instead](Self::instead) (masked tokens of MaskDiT). Blocks are known by their [names](crate::trace), and cost what
/// so few tokens cost. Rotary positions, and masks of what may be seen, follow the tokens that are there.
///
/// # What can be routed
/// A network whose blocks take a row of tokens `[B, L, W]`, or such a row beside another (of which the first is routed), and
/// have as many at `from` as at `to`. Others are refused by name: blocks that see neighbours (Sana), that modulate each token by
/// itself (the head of DDT), that get more tokens on the way (JiT's class tokens; from Flux's double blocks to its single
/// ones), or that read a skip from outside of the route (U-ViT, unless it is as long on either side).
///
/// # Example
/// Half of the patches go around the second of three blocks:
/// ```
/// use burn::prelude::*;
/// use canvas_core::trace::{self, Kept, Route};
///
/// fn network(mut x: Tensor<3>) -> Tensor<3> {
///     for i in 0..3 {
///         x = trace::block(|| format!("blocks.{i}"), x, |x| x + 1.0);
///     }
///     x
/// }
/// let x = Tensor::zeros([1, 4, 1], &Device::flex());
/// let kept = Kept::new(4, vec![vec![1, 2]]);
/// let y = Route::new("blocks.1", "blocks.1").through(&kept, || network(x));
/// assert_eq!(y.into_data().to_vec::<f32>().unwrap(), [2.0, 3.0, 3.0, 2.0]);
/// ```
///
/// # Reference
/// Krause et al., "TREAD: Token Routing for Efficient Architecture-agnostic Diffusion Training", 2025,
/// <https://arxiv.org/abs/2501.04765>, which keeps half of the tokens from the third block to the fourth but last.
#[derive(Clone, Debug)]
pub struct Route {
    from: String,
    to: String,
    before: Option<usize>,
    instead: Option<Tensor<3>>,
}

impl Route {
    /// From before one block to behind another, or the same.
    pub fn new(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self { from: from.into(), to: to.into(), before: None, instead: None }
    }

    /// So many tokens stand before those that are chosen of, and always stay, as do those behind: text in front of an image's.
    /// A sequence that holds others has to be told so, if only that there are 0 before.
    #[must_use]
    pub fn behind(self, before: usize) -> Self {
        Self { before: Some(before), ..self }
    }

    /// What is put in the places of those that were taken out, `[1 or B, N, W]`; what stands in others is not read.
    #[must_use]
    pub fn instead(self, tokens: Tensor<3>) -> Self {
        Self { instead: Some(tokens), ..self }
    }

    /// Runs a network whose tokens are routed. If all are kept it is run as it is.
    ///
    /// # Panics
    /// If the network has no such blocks, or cannot be routed so (see [`Route`]), or another number of images or tokens.
    pub fn through<T>(&self, kept: &Kept, network: impl FnOnce() -> T) -> T {
        if kept.is_all() {
            return network();
        }
        let routing = Rc::new(Routing {
            route: self.clone(),
            kept: kept.clone(),
            whole: RefCell::default(),
            done: Cell::new(false),
            met: RefCell::default(),
        });
        let _close = Undo(|| THERE.set(None));
        let answer = with_hook(routing.clone(), network);
        let (from, met) = (&self.from, routing.met.take().join(", "));
        assert!(routing.done.get(), "this network ran no block {from:?}; it ran: {met}");
        answer
    }
}

/// The tokens that are there.
#[derive(Clone)]
struct There {
    /// How many there are without a route.
    whole: usize,
    /// Which of those: `[B, K]`.
    index: Tensor<2, Int>,
    /// Where the others went.
    route: String,
}

/// The hook.
struct Routing {
    route: Route,
    kept: Kept,
    /// All tokens, as they came before the first block.
    whole: RefCell<Option<Tensor<3>>>,
    done: Cell<bool>,
    met: RefCell<Vec<String>>,
}

impl Routing {
    /// Tokens before those that are chosen of, those that stay, tokens behind: of each image, of so many in all.
    fn rows(&self, length: usize) -> Vec<Vec<usize>> {
        let (before, tokens) = (self.before(), self.kept.tokens);
        let row = |kept: &Vec<usize>| {
            let kept = kept.iter().map(|token| before + token);
            (0..before).chain(kept).chain(before + tokens..length).collect()
        };
        self.kept.rows.iter().map(row).collect()
    }

    fn before(&self) -> usize {
        self.route.before.unwrap_or(0)
    }

    fn leave(&self, block: &str, tapped: &mut Tapped<'_>) {
        let dims = tapped.dims().to_vec();
        let Some(all) = tapped.get::<3>() else {
            panic!("{block} is of {dims:?}: a route is for tokens, [B, L, W]");
        };
        let ([batch, length, _], tokens) = (all.dims(), self.kept.tokens);
        assert_eq!(batch, self.kept.rows.len(), "{block}: images, and those that tokens are kept of");
        let fits = self.route.before.map_or(length == tokens, |before| length >= before + tokens);
        let before = self.route.before.map_or(String::new(), |before| format!(" behind {before} others"));
        assert!(fits, "{block} has {length} tokens, the route is for {tokens}{before}");
        let index = table(self.rows(length).into_iter().map(Vec::into_iter), &all.device());
        tapped.resize(rows_of(all.clone().unsqueeze_dim::<4>(1), 2, &index).squeeze_dim::<3>(1));
        let route = format!("from {} to {}", self.route.from, self.route.to);
        let before = THERE.replace(Some(There { whole: length, index, route }));
        assert!(before.is_none(), "{block} lies on another route already");
        self.whole.replace(Some(all));
    }

    fn come_back(&self, block: &str, tapped: &mut Tapped<'_>) {
        let Some(all) = self.whole.take() else { return };
        THERE.set(None);
        let fresh = tapped.get::<3>().unwrap_or_else(|| panic!("{block} does not give tokens, [B, L, W]"));
        let ([batch, length, width], there) = (all.dims(), fresh.dims()[1]);
        let stands = match &self.route.instead {
            None => all,
            Some(tokens) => {
                let tokens = tokens.clone().expand([batch, self.kept.tokens, width]);
                let before = self.before();
                all.slice_assign([0..batch, before..before + self.kept.tokens, 0..width], tokens)
            }
        };
        // Each place of the answer: from the tokens that were there, or behind those from what stands in the others.
        let place = |row: Vec<usize>| {
            let mut places: Vec<usize> = (there..there + length).collect();
            row.into_iter().enumerate().for_each(|(i, token)| places[token] = i);
            places.into_iter()
        };
        let index = table(self.rows(length).into_iter().map(place), &fresh.device());
        let both = Tensor::cat(vec![fresh, stands], 1).unsqueeze_dim::<4>(1);
        tapped.resize(rows_of(both, 2, &index).squeeze_dim::<3>(1));
        self.done.set(true);
    }

    /// # Panics
    /// If other tokens have come to those that are there.
    fn check(&self, name: &str, dims: &[usize]) {
        let Some(there) = THERE.with_borrow(|there| there.as_ref().map(|there| there.index.dims()[1])) else {
            return;
        };
        let fits = dims.len() == 3 && dims[1] == there;
        let (from, to) = (&self.route.from, &self.route.to);
        assert!(
            fits,
            "{name} is of {dims:?}, but {there} tokens went into {from}: the route to {to} cannot cross this"
        );
    }
}

impl Hook for Routing {
    fn tap(&self, tapped: &mut Tapped<'_>) {
        let name = tapped.name().to_owned();
        if let Some(block) = name.strip_suffix(".input") {
            self.met.borrow_mut().push(block.to_owned());
            if self.whole.borrow().is_some() {
                self.check(&name, tapped.dims());
            } else if block == self.route.from {
                self.leave(block, tapped);
            }
        } else if name == self.route.to && self.whole.borrow().is_some() {
            self.check(&name, tapped.dims());
            self.come_back(&name, tapped);
        }
    }

    /// It changes no attention map.
    fn wants(&self, _name: &str) -> bool {
        false
    }
}

/// What belongs to the tokens that are there, of something for all tokens that lies along an axis and is now to have this
/// length; itself where no route is on, or it is of other tokens.
fn follow<K: Basic>(x: Tensor<4, K>, axis: usize, length: usize) -> Tensor<4, K> {
    let found = x.dims()[axis];
    let Some(There { whole, index, .. }) = THERE.with_borrow(Clone::clone) else { return x };
    let [batch, count] = index.dims();
    // Others may stand before them: the text's, where two rows of tokens are read as one.
    if found == length || found < whole || found - whole + count != length {
        return x;
    }
    let others = (found - whole) as i64;
    let index = if others == 0 {
        index
    } else {
        let first = Tensor::<1, Int>::arange(0..others, &index.device()).unsqueeze_dim::<2>(0);
        Tensor::cat(vec![first.repeat_dim(0, batch), index + others], 1)
    };
    rows_of(x, axis, &index)
}

/// Whether tokens are on their way around the block that is running.
pub(crate) fn is_on() -> bool {
    THERE.with_borrow(Option::is_some)
}

/// Rotations `[B or 1, 1, N, D/2]` of the positions that are there, of which there are to be so many.
pub(crate) fn follow_positions(table: &Tensor<4>, length: usize) -> Tensor<4> {
    if is_on() { follow(table.clone(), 2, length) } else { table.clone() }
}

/// What changes the scores of so many queries and keys.
pub(crate) fn follow_scores(scores: &Scores, [queries, keys]: [usize; 2]) -> Cow<'_, Scores> {
    if !is_on() || (scores.seen.is_none() && scores.bias.is_none()) {
        return Cow::Borrowed(scores);
    }
    let seen = scores.seen.clone().map(|seen| of_both(seen.int(), queries, keys).bool());
    let bias = scores.bias.clone().map(|bias| of_both(bias, queries, keys));
    Cow::Owned(Scores { seen, bias, ..scores.clone() })
}

fn of_both<K: Basic>(x: Tensor<4, K>, queries: usize, keys: usize) -> Tensor<4, K> {
    let x = if x.dims()[2] == 1 { x } else { follow(x, 2, queries) };
    if x.dims()[3] == 1 { x } else { follow(x, 3, keys) }
}

/// For modulation, `[B, 1 or N, V]`.
///
/// # Panics
/// If it is of each token by itself, and some go around.
pub(crate) fn check_modulation(found: usize) {
    if found > 1 && is_on() {
        needs_all_tokens("what modulates each token by itself");
    }
}

/// For a layer that takes its tokens by their places: what it is, for the message.
///
/// # Panics
/// If some of the tokens are on their way [around](Route) the block that is running.
pub fn needs_all_tokens(who: &str) {
    let route = THERE.with_borrow(|there| there.as_ref().map(|there| there.route.clone()));
    if let Some(route) = route {
        panic!("{who} needs all tokens, and some are on the route {route}");
    }
}

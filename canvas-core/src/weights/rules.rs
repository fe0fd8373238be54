//! Renaming rules between published keys and ours, applied both ways.

use super::pattern::{Pattern, Reach, rewrite};

/// An ordered list of renaming rules from published keys to ours, and of keys to leave out.
///
/// Keys are split at their dots. A rule names whole segments, `{i}` (any name in braces) standing for a number,
/// which appears on both sides. Loading applies every rule in order, saving every rule backwards in reverse
/// order, so a rule sees what those before it made: write the general ones first and the particular ones on
/// their results. Two rules whose results look alike cannot be told apart on the way back; loading lists keys that
/// saving would write otherwise as [`Report::one_way`](super::Report::one_way). Names on our side end as PyTorch's: `weight` and `bias` of norms, not `gamma` and `beta`.
///
/// A published tensor need not have the form of a parameter in PyTorch: it may hold [several](Self::split), be a
/// [transpose](Self::transposed), the [kernel of a 1x1 convolution](Self::pointwise), or have an axis more, of which
/// the parameter is the [last slice](Self::last_slice).
///
/// # Example
/// ```
/// use canvas_core::weights::Rules;
///
/// let rules = Rules::new()
///     .prefix("unet", "")
///     .segments("down_blocks.{i}.resnets.{j}", "down.{i}.stages.{j}.res")
///     .exact("conv_in.bias", "input.shift")
///     .ignore("position_ids", "a buffer of 0, 1, 2, ...");
/// assert_eq!(rules.ours("unet.down_blocks.1.resnets.0.norm1.weight"), "down.1.stages.0.res.norm1.weight");
/// assert_eq!(rules.published("down.1.stages.0.res.norm1.weight"), "unet.down_blocks.1.resnets.0.norm1.weight");
/// assert_eq!(rules.ignored("text.position_ids"), Some("a buffer of 0, 1, 2, ..."));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Rules {
    steps: Vec<Step>,
    forms: Vec<(Pattern, Form)>,
    ignores: Vec<(Reach, Pattern, String)>,
    /// Second names of tensors, and the first ones.
    copies: Vec<(String, String)>,
}

/// A renaming; of a published tensor that holds several parameters, into as many names.
#[derive(Clone, Debug)]
struct Step {
    reach: Reach,
    published: Pattern,
    ours: Vec<Pattern>,
}

/// How a published tensor lies, compared with the parameter in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Transposed,
    Pointwise,
    /// An axis more, with so many slices; the parameter is the last.
    Last {
        axis: usize,
        count: usize,
    },
}

impl Rules {
    /// No rule: keys are our names already.
    pub fn new() -> Self {
        Self::default()
    }

    /// Renames one key.
    ///
    /// # Panics
    /// If a side is empty, or the two do not hold the same `{numbers}`.
    pub fn exact(self, published: &str, ours: &str) -> Self {
        self.step(Reach::Whole, published, &[ours])
    }

    /// Renames the first segments of every key that has them; empty for none: `("unet", "")` takes `unet.` away,
    /// and saving puts it back.
    ///
    /// # Panics
    /// If both sides are empty, or do not hold the same `{numbers}`.
    pub fn prefix(self, published: &str, ours: &str) -> Self {
        self.step(Reach::Start, published, &[ours])
    }

    /// Renames segments wherever they follow each other in a key, as often as they do.
    ///
    /// # Panics
    /// If a side is empty, or the two do not hold the same `{numbers}`.
    pub fn segments(self, published: &str, ours: &str) -> Self {
        self.step(Reach::Anywhere, published, &[ours])
    }

    /// Splits every tensor with these segments in its key into equal parts along its first axis, one for each of our
    /// names; saving joins them again. The rules behind this one see the parts' names. A key is split once at most.
    ///
    /// # Panics
    /// If a side is empty, or they do not all hold the same `{numbers}`.
    pub fn split(self, published: &str, ours: &[&str]) -> Self {
        self.step(Reach::Anywhere, published, ours)
    }

    /// Says that every published matrix with these segments in its key is the transpose of PyTorch's: `[in, out]`.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn transposed(self, published: &str) -> Self {
        self.formed(published, Form::Transposed)
    }

    /// Says that every published tensor with these segments in its key is the kernel of a 1x1 convolution, where the
    /// parameter is the matrix of a linear layer: `[out, in, 1, 1]`. Loading takes it without its last axes, too.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn pointwise(self, published: &str) -> Self {
        self.formed(published, Form::Pointwise)
    }

    /// Says that every published tensor with these segments in its key has one axis more than the parameter, with
    /// `count` slices, the last of which is the parameter: so of a causal convolution over time, whose earlier slices
    /// see nothing but zeros where there is one frame only. Saving writes zeros in their place.
    ///
    /// # Panics
    /// If there is no segment, or no slice.
    ///
    /// # Example
    /// ```
    /// use canvas_core::weights::Rules;
    /// // A kernel [O, I, 3, 3, 3] over time, height and width is ours of [O, I, 3, 3].
    /// let rules = Rules::new().last_slice("conv1.weight", 2, 3);
    /// ```
    pub fn last_slice(self, published: &str, axis: usize, count: usize) -> Self {
        assert!(count > 0, "the last of no slices of {published:?}");
        self.formed(published, Form::Last { axis, count })
    }

    /// Leaves out every published key with these segments anywhere, for a reason that the report gives.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn ignore(self, published: &str, reason: &str) -> Self {
        self.leave_out(Reach::Anywhere, published, reason)
    }

    /// Leaves out every published key that begins with these segments, for a reason that the report gives.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn ignore_prefix(self, published: &str, reason: &str) -> Self {
        self.leave_out(Reach::Start, published, reason)
    }

    /// Says that one tensor may be there twice, or under either of two names: where the file has no `published`, the
    /// `copy` is read in its place; else it is left out. Saving writes `published` alone.
    pub fn copy(mut self, copy: &str, published: &str) -> Self {
        self.copies.push((copy.to_owned(), published.to_owned()));
        self
    }

    /// These rules, and behind them those that read what these make of a key.
    ///
    /// # Panics
    /// If the second rules ignore keys, know copies, or say how tensors lie: they would have to know the first names.
    pub fn then(mut self, next: Self) -> Self {
        let renames_only = next.forms.is_empty() && next.ignores.is_empty() && next.copies.is_empty();
        assert!(renames_only, "rules that come second can only rename and split");
        self.steps.extend(next.steps);
        self
    }

    /// Our name of a published key; of one that is split, the first: see [`parts`](Self::parts).
    pub fn ours(&self, key: &str) -> String {
        self.parts(key).swap_remove(0)
    }

    /// Our names of a published key: one, or one for each part that it is split into, in order.
    pub fn parts(&self, key: &str) -> Vec<String> {
        self.steps.iter().fold(vec![key.to_owned()], |keys, step| {
            let forward = |key: String| {
                let parts = step.ours.iter().map(|ours| rewrite(&key, step.reach, &step.published, ours));
                parts.collect::<Option<Vec<_>>>().unwrap_or_else(|| vec![key])
            };
            keys.into_iter().flat_map(forward).collect()
        })
    }

    /// The published key of our name, or the one that holds it as a part.
    pub fn published(&self, name: &str) -> String {
        self.steps.iter().rev().fold(name.to_owned(), |name, step| {
            let back = |ours| rewrite(&name, step.reach, ours, &step.published);
            step.ours.iter().find_map(back).unwrap_or(name)
        })
    }

    /// Why a published key is left out, if it is.
    pub fn ignored(&self, key: &str) -> Option<&str> {
        let found = self.ignores.iter().find(|(reach, pattern, _)| pattern.fits(*reach, key));
        found.map(|(_, _, reason)| reason.as_str())
    }

    /// The key that this one is a copy of, if it is one.
    pub(super) fn original(&self, key: &str) -> Option<&str> {
        let found = self.copies.iter().find(|(copy, _)| copy == key);
        found.map(|(_, original)| original.as_str())
    }

    pub(super) fn form(&self, key: &str) -> Form {
        let found = self.forms.iter().find(|(pattern, _)| pattern.fits(Reach::Anywhere, key));
        found.map_or(Form::Plain, |(_, form)| *form)
    }

    /// Shape of the published tensor that holds parameters of this shape (in PyTorch's layout).
    pub(super) fn shape(&self, key: &str, parameter: &[usize]) -> Vec<usize> {
        let mut shape = parameter.to_vec();
        match self.form(key) {
            Form::Plain => {}
            Form::Transposed => shape.reverse(),
            Form::Pointwise => shape.extend([1, 1]),
            Form::Last { axis, count } => shape.insert(axis.min(shape.len()), count),
        }
        if let Some(rows) = shape.first_mut() {
            *rows *= self.parts(key).len();
        }
        shape
    }

    fn step(mut self, reach: Reach, published: &str, ours: &[&str]) -> Self {
        let step = Step {
            reach,
            published: Pattern::new(published),
            ours: ours.iter().map(|ours| Pattern::new(ours)).collect(),
        };
        let rule = || format!("a rule from {published:?} to {}", ours.join(" and "));
        let empty = step.ours.iter().chain([&step.published]).filter(|side| side.is_empty()).count();
        let allowed = usize::from(reach == Reach::Start);
        assert!(empty <= allowed && !ours.is_empty(), "{} cannot be undone: a side is empty", rule());
        let numbers = step.published.numbers();
        for ours in &step.ours {
            assert!(ours.numbers() == numbers, "{} cannot be undone: its numbers differ", rule());
        }
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{published:?} holds a number twice");
        self.steps.push(step);
        self
    }

    fn formed(mut self, published: &str, form: Form) -> Self {
        assert!(!published.is_empty(), "a rule about the form of every tensor");
        self.forms.push((Pattern::new(published), form));
        self
    }

    fn leave_out(mut self, reach: Reach, published: &str, reason: &str) -> Self {
        assert!(!published.is_empty(), "a rule that ignores every key ({reason})");
        self.ignores.push((reach, Pattern::new(published), reason.to_owned()));
        self
    }
}

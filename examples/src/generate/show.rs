//! What the program shows while it works: bars in a terminal, a few plain lines in a log.

use canvas_core::weights::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

fn bar(template: &str, name: &str) -> Option<ProgressBar> {
    let terminal = std::io::stderr().is_terminal();
    terminal.then(|| {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(name.to_owned());
        bar
    })
}

/// Weights being read.
pub struct Loading(Option<ProgressBar>);

impl Loading {
    /// Of this component.
    pub fn new(name: &str) -> Self {
        Self(bar(LOADING, name))
    }

    /// How far it is.
    pub fn at(&mut self, progress: Progress) {
        if let Some(bar) = &self.0 {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    }

    /// All is read.
    pub fn finish(self) {
        if let Some(bar) = self.0 {
            bar.finish();
        }
    }
}

/// The calls of the network in a run.
pub struct Steps {
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    spoken: Instant,
    begun: Instant,
}

/// How often a plain line is printed where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

impl Steps {
    /// So many.
    pub fn new(total: usize) -> Self {
        let bar = bar(STEPS, "drawing");
        if let Some(bar) = &bar {
            bar.set_length(total as u64);
        }
        Self { bar, total, done: 0, spoken: Instant::now(), begun: Instant::now() }
    }

    /// One more.
    pub fn advance(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done as u64);
        } else if self.spoken.elapsed() >= PLAIN_EVERY {
            self.spoken = Instant::now();
            let each = self.begun.elapsed().as_secs_f64() / self.done as f64;
            eprintln!("drawing: {} of {}, {each:.1} s each", self.done, self.total);
        }
    }

    /// All are done.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish();
        }
    }
}

const LOADING: &str = "{prefix:14.bold} [{wide_bar:.cyan/blue}] {bytes} of {total_bytes}, {bytes_per_sec}";
const STEPS: &str = "{prefix:14.bold} [{wide_bar:.cyan/blue}] {pos} of {len}, {per_sec}, {eta} left";

#[cfg(test)]
mod tests {
    #[test]
    fn the_templates_are_valid() {
        for template in [super::LOADING, super::STEPS] {
            indicatif::ProgressStyle::with_template(template).unwrap();
        }
    }
}

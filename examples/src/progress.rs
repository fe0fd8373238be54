//! What a training stage shows while it runs: a bar in a terminal, plain lines in a log.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// How often a plain line is printed where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// The progress of one training stage, counted in images.
///
/// In a terminal this is a bar. Where stderr is a file or a pipe (CI, `nohup`) it is a plain line about every
/// ten seconds and one at the end, so that a log stays readable.
#[derive(Debug)]
pub struct Stage {
    name: String,
    total: u64,
    start: u64,
    done: u64,
    loss: f64,
    lr: f64,
    begun: Instant,
    spoken: Instant,
    bar: Option<ProgressBar>,
    ended: Option<Instant>,
}

impl Stage {
    /// Starts to show a stage of `total_images`, of which an earlier process has done `start_images`.
    pub fn new(name: impl Into<String>, total_images: u64, start_images: u64) -> Self {
        Self::with_terminal(name.into(), total_images, start_images, std::io::stderr().is_terminal())
    }

    fn with_terminal(name: String, total: u64, start: u64, terminal: bool) -> Self {
        let now = Instant::now();
        let bar = terminal.then(|| bar(&name, total, start));
        let stage = Self {
            name,
            total,
            start,
            done: start,
            loss: f64::NAN,
            lr: 0.0,
            begun: now,
            spoken: now,
            bar,
            ended: None,
        };
        if stage.bar.is_none() {
            let resumed =
                if start > 0 { format!(", going on at {}", HumanCount(start)) } else { String::new() };
            eprintln!("{}: {} images{resumed}", stage.name, HumanCount(total));
        }
        stage
    }

    /// Counts `images` more as done, at this `loss` and this learning rate `lr`.
    pub fn advance(&mut self, images: u64, loss: f64, lr: f64) {
        self.done = self.done.saturating_add(images);
        (self.loss, self.lr) = (loss, lr);
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.set_message(self.figures());
        } else if self.spoken.elapsed() >= PLAIN_EVERY {
            self.say();
        }
    }

    /// Prints a line that stays: above the bar, or among the plain lines.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) if self.ended.is_none() => bar.suspend(|| eprintln!("{text}")),
            // A bar that has ended stays where it is, among the lines.
            _ => eprintln!("{text}"),
        }
    }

    /// Ends the stage and leaves its last figures to be read; calling it again does nothing.
    pub fn finish(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(Instant::now());
        match &self.bar {
            Some(bar) => {
                bar.abandon_with_message(self.figures());
                // indicatif leaves the cursor behind the last figure.
                eprintln!();
            }
            None => self.say(),
        }
    }

    /// Images per second of this process; 0 before the first image.
    ///
    /// What an earlier process did before a resume does not count, neither its images nor its time.
    pub fn rate(&self) -> f64 {
        let (images, seconds) = ((self.done - self.start) as f64, self.elapsed().as_secs_f64());
        if images > 0.0 && seconds > 0.0 { images / seconds } else { 0.0 }
    }

    /// Images done, those of earlier processes included.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Time from the start to the end, or to now while the stage runs.
    fn elapsed(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now).saturating_duration_since(self.begun)
    }

    /// Time left at the present rate; `None` while there is nothing to tell it from.
    fn left(&self) -> Option<Duration> {
        let rate = self.rate();
        let seconds = self.total.saturating_sub(self.done) as f64 / rate;
        (rate > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
    }

    /// The figures beside the bar: speed, loss, learning rate, time left or time taken.
    fn figures(&self) -> String {
        let mut parts = vec![format!("{} images/s", brief(self.rate()))];
        if self.done > self.start {
            parts.push(format!("loss {:.4}", self.loss));
            parts.push(format!("lr {:.1e}", self.lr));
        }
        if self.ended.is_some() {
            parts.push(format!("took {}", clock(self.elapsed())));
        } else if let Some(left) = self.left() {
            parts.push(format!("{} left", clock(left)));
        }
        parts.join(", ")
    }

    fn say(&mut self) {
        self.spoken = Instant::now();
        eprintln!("{}", self.line());
    }

    /// The plain line that stands in for the bar.
    fn line(&self) -> String {
        let share = match self.total {
            0 => String::new(),
            total => format!(" ({:.0}%)", 100.0 * self.done as f64 / total as f64),
        };
        let (done, total) = (HumanCount(self.done), HumanCount(self.total));
        format!("{}: {done}/{total} images{share}, {}", self.name, self.figures())
    }
}

fn bar(name: &str, total: u64, start: u64) -> ProgressBar {
    // An error leaves the stage behind unfinished; its last figures should then stay on the screen.
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        .with_finish(ProgressFinish::Abandon)
        .with_position(start)
        .with_prefix(name.to_owned());
    // A mistake in the template costs the looks only; a test keeps it right.
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar
}

/// Two lines: the figures alone nearly fill a terminal of 80 columns.
const TEMPLATE: &str = "{prefix:.bold} [{wide_bar:.cyan/blue}] {human_pos}/{human_len} images\n  {msg}";

/// A rate in about three digits.
fn brief(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.2}") } else { format!("{rate:.0}") }
}

/// A duration as people say it: `45s`, `2m05s`, `1h02m`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_do_is_fine() {
        for terminal in [false, true] {
            let mut stage = Stage::with_terminal("empty".into(), 0, 0, terminal);
            assert_eq!(stage.rate(), 0.0);
            assert_eq!(stage.line(), "empty: 0/0 images, 0.00 images/s");
            stage.finish();
            stage.finish();
            assert!(stage.line().ends_with("took 0s"));
        }
    }

    #[test]
    fn a_resumed_stage_counts_its_own_images() {
        let mut stage = Stage::with_terminal("denoiser".into(), 2_000, 1_000, false);
        stage.begun = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        stage.advance(500, 0.25, 1e-4);
        assert_eq!(stage.done(), 1_500);
        assert!((stage.rate() - 50.0).abs() < 1.0, "{}", stage.rate());
        let line = stage.line();
        assert!(
            line.starts_with("denoiser: 1,500/2,000 images (75%), 50 images/s, loss 0.2500, lr 1.0e-4, ")
        );
        assert!(line.ends_with("10s left"), "{line}");
    }

    #[test]
    fn more_images_than_promised_and_a_broken_loss_are_shown() {
        let mut stage = Stage::with_terminal("more".into(), 10, 0, true);
        stage.advance(25, f64::NAN, 0.0);
        stage.note("a line");
        assert!(stage.line().starts_with("more: 25/10 images (250%), "));
        assert!(stage.line().contains("loss NaN"));
        stage.advance(u64::MAX, f64::INFINITY, 1.0);
        stage.finish();
        stage.note("after the end");
    }

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn times_read_well() {
        let say = |seconds| clock(Duration::from_secs(seconds));
        assert_eq!([say(59), say(125), say(3_725)], ["59s", "2m05s", "1h02m"]);
    }
}

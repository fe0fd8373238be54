//! Decays of the learning rate and moving averages, as they are written on a command line.

use crate::config::unknown;
use anyhow::{Context, Result, bail, ensure};
use canvas_train::{Decay, Ema};

/// Names that [`decay`] knows.
pub const DECAYS: [&str; 5] = ["cosine", "linear", "none", "tail", "inverse-root"];

/// Names that [`average`] knows.
pub const AVERAGES: [&str; 4] = ["power", "half-life", "warm-up", "constant"];

/// A decay over a run of so many images: `cosine` and `linear` to a twentieth of the peak or to another `floor`
/// (`cosine:0`), `none`, `tail:IMAGES` (without a number, the last fifth), `inverse-root:IMAGES` (a tenth).
///
/// # Errors
/// Says what exists, or what the number should be.
pub fn decay(text: &str, total: u64) -> Result<Decay> {
    let (name, value) = split(text);
    let floor = || -> Result<f64> {
        let floor = number(value, 0.05).context("a part of the peak is from 0 to 1")?;
        ensure!((0.0..=1.0).contains(&floor), "{floor} is no part of the peak: from 0 to 1");
        Ok(floor)
    };
    let images = |default: u64| -> Result<u64> {
        let images = value.map_or(Ok(default), str::parse).context("images are a whole number")?;
        ensure!((1..=total).contains(&images), "{images} images: from 1 to the run's {total}");
        Ok(images)
    };
    let decay = match name {
        "cosine" => floor().map(|floor| Decay::Cosine { floor, total }),
        "linear" => floor().map(|floor| Decay::Linear { floor, total }),
        "none" if value.is_some() => Err(anyhow::anyhow!("there is nothing to choose")),
        "none" => Ok(Decay::None),
        "tail" => images((total / 5).max(1)).map(|tail| Decay::Tail { tail, total }),
        "inverse-root" => images((total / 10).max(1)).map(|from| Decay::InverseRoot { from }),
        _ => return Err(unknown("--decay", text, &DECAYS)),
    };
    decay.with_context(|| format!("--decay {text}"))
}

/// Averages between commas: `power:WIDTH`, `half-life:IMAGES`, `warm-up:DECAY`, `constant:DECAY`.
///
/// # Errors
/// Says which is not one, and why.
pub fn averages(text: &str) -> Result<Vec<Ema>> {
    text.split(',').map(|one| average(one.trim())).collect()
}

/// One average.
///
/// # Errors
/// Says what exists, or what the number should be.
pub fn average(text: &str) -> Result<Ema> {
    let (name, value) = split(text);
    if !AVERAGES.contains(&name) {
        return Err(unknown("--averages", text, &AVERAGES));
    }
    let Some(value) = value else { bail!("--averages {text}: a number is needed, as in power:0.05") };
    let value = number(Some(value), 0.0).with_context(|| format!("--averages {text}"))?;
    let fits = match name {
        "power" => value > 0.0 && value <= 0.28,
        "half-life" => value > 0.0,
        _ => (0.0..1.0).contains(&value),
    };
    let range = match name {
        "power" => "a width above 0 and at most 0.28",
        "half-life" => "a number of images above 0",
        _ => "a decay from 0 to below 1",
    };
    ensure!(fits, "--averages {text}: {range} is needed");
    Ok(match name {
        "power" => Ema::Power { width: value },
        "half-life" => Ema::HalfLife { images: value, part: 0.05 },
        "warm-up" => Ema::WarmUp { limit: value },
        _ => Ema::Constant { decay: value },
    })
}

fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once(':').map_or((text, None), |(name, value)| (name, Some(value)))
}

fn number(text: Option<&str>, default: f64) -> Result<f64> {
    let value: f64 = text.map_or(Ok(default), str::parse).context("a number is needed")?;
    ensure!(value.is_finite(), "{value} is not a finite number");
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decays_are_read_and_wrong_ones_refused_in_words() {
        assert_eq!(decay("cosine", 100).unwrap(), Decay::Cosine { floor: 0.05, total: 100 });
        assert_eq!(decay("linear:0", 100).unwrap(), Decay::Linear { floor: 0.0, total: 100 });
        assert_eq!(decay("tail", 100).unwrap(), Decay::Tail { tail: 20, total: 100 });
        assert_eq!(decay("inverse-root:7", 100).unwrap(), Decay::InverseRoot { from: 7 });
        assert_eq!(decay("none", 100).unwrap(), Decay::None);
        for (text, said) in [
            ("cosin", "nearest: cosine"),
            ("cosine:2", "from 0 to 1"),
            ("cosine:NaN", "not a finite number"),
            ("none:1", "nothing to choose"),
            ("tail:101", "the run's 100"),
            ("tail:0", "from 1"),
            ("tail:x", "whole number"),
        ] {
            let error = format!("{:#}", decay(text, 100).unwrap_err());
            assert!(error.contains("--decay") && error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn averages_are_read_and_wrong_ones_refused_in_words() {
        let found = averages("power:0.05, constant:0.9,half-life:1000,warm-up:0.99").unwrap();
        let half = Ema::HalfLife { images: 1000.0, part: 0.05 };
        let expected =
            [Ema::Power { width: 0.05 }, Ema::Constant { decay: 0.9 }, half, Ema::WarmUp { limit: 0.99 }];
        assert_eq!(found, expected);
        for (text, said) in [
            ("power", "a number is needed"),
            ("power:0.3", "at most 0.28"),
            ("constant:1", "below 1"),
            ("half-life:0", "above 0"),
            ("powr:0.1", "nearest: power"),
            ("power:0.1,", "there are"),
        ] {
            let error = format!("{:#}", averages(text).unwrap_err());
            assert!(error.contains("--averages") && error.contains(said), "{text}: {error}");
        }
    }
}

//! Arguments of several numbers.

use anyhow::{Context, Result};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The numbers on both sides of the first separator.
fn two<T: FromStr>(text: &str, separators: &[char]) -> Option<(T, T)> {
    let (first, second) = text.split_once(separators)?;
    Some((first.trim().parse().ok()?, second.trim().parse().ok()?))
}

/// Two numbers with an `x` between: `512x768`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub usize, pub usize);

impl FromStr for Pair {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = two(text, &['x', 'X']).map(|(first, second)| Self(first, second));
        read.with_context(|| format!("expected two whole numbers as in 512x768, found {text:?}"))
    }
}

/// A part of a run: `0.2:0.8`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Where it begins, 0 to 1.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
}

impl FromStr for Window {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let ordered = |&(start, end): &(f64, f64)| 0.0 <= start && start < end && end <= 1.0;
        let read = two(text, &[':']).filter(ordered).map(|(start, end)| Self { start, end });
        read.with_context(|| format!("expected START:END with 0 <= START < END <= 1, found {text:?}"))
    }
}

/// Two scales: `1:0.5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales(pub f64, pub f64);

impl FromStr for Scales {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = two(text, &[':']).map(|(first, second)| Self(first, second));
        read.with_context(|| format!("expected two numbers as in 1:0.5, found {text:?}"))
    }
}

/// A file with a weight: `style.safetensors:0.7`.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The file.
    pub path: PathBuf,
    /// Its weight.
    pub weight: f64,
}

impl FromStr for Weighed {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let weighed = text.rsplit_once(':').and_then(|(path, weight)| {
            let weight: f64 = weight.trim().parse().ok()?;
            weight.is_finite().then(|| Self { path: path.into(), weight })
        });
        Ok(weighed.unwrap_or_else(|| Self { path: text.into(), weight: 1.0 }))
    }
}

/// By the name of the file alone: `style.safetensors:0.7`.
impl fmt::Display for Weighed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        write!(f, "{}:{}", name.display(), self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_the_last_colon() {
        let read = |text: &str| text.parse::<Weighed>().unwrap();
        assert_eq!(read("a.safetensors"), Weighed { path: "a.safetensors".into(), weight: 1.0 });
        assert_eq!(read("a.safetensors:-0.5"), Weighed { path: "a.safetensors".into(), weight: -0.5 });
        assert_eq!(read("C:/a.safetensors"), Weighed { path: "C:/a.safetensors".into(), weight: 1.0 });
    }

    #[test]
    fn sizes_and_windows_are_read_strictly() {
        assert_eq!("512x768".parse::<Pair>().unwrap(), Pair(512, 768));
        assert!("512".parse::<Pair>().unwrap_err().to_string().contains("\"512\""));
        assert_eq!("0.2:0.8".parse::<Window>().unwrap(), Window { start: 0.2, end: 0.8 });
        for wrong in ["0.8:0.2", "0:1.5", "0.5", "a:b", "nan:1"] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }
}

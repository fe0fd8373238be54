//! Names of many files in one text.

use super::OpenError;
use std::path::{Path, PathBuf};

/// More names than any data set has files: a slip of the keyboard, not a pattern.
const MOST: usize = 10_000_000;

/// The names that a pattern stands for, as a shell expands braces: `train-{000..012}.tar`, `{a,b}/0.tar`.
///
/// Numbers keep their leading zeros. A text without braces stands for itself.
///
/// ```
/// use canvas_data::expand;
/// assert_eq!(expand("{a,b}/{08..10}.tar")?, [
///     "a/08.tar", "a/09.tar", "a/10.tar", "b/08.tar", "b/09.tar", "b/10.tar"
/// ]);
/// # Ok::<(), canvas_data::OpenError>(())
/// ```
///
/// # Errors
/// If a brace is not closed or holds another, holds neither a range of numbers nor a list, or stands for more than ten million names.
pub fn expand(pattern: &str) -> Result<Vec<String>, OpenError> {
    let error = |why: String| OpenError::Pattern { pattern: pattern.to_owned(), why };
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, behind) = after.split_once('}').ok_or_else(|| error("a { is not closed".into()))?;
        if inside.contains('{') {
            return Err(error(format!("{{{inside}}}: braces within braces are not expanded")));
        }
        let choices = choices(inside).map_err(error)?;
        if choices.len().saturating_mul(names.len()) > MOST {
            return Err(error(format!("stands for more than {MOST} names")));
        }
        names = names
            .iter()
            .flat_map(|name| choices.iter().map(move |choice| format!("{name}{before}{choice}")))
            .collect();
        rest = behind;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

fn choices(inside: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = inside.split_once("..") else {
        return match inside.contains(',') {
            true => Ok(inside.split(',').map(str::to_owned).collect()),
            false => {
                Err(format!("{{{inside}}} is neither a range of numbers, {{000..012}}, nor a list, {{a,b}}"))
            }
        };
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: Option<usize> = digits.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| format!("{{{inside}}}: expected a number, found {text:?}"))
    };
    let (low, high) = (number(first)?, number(last)?);
    if high < low || high - low >= MOST {
        return Err(format!(
            "{{{inside}}}: expected a last number from {low} to {}",
            low.saturating_add(MOST - 1)
        ));
    }
    let padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded { first.len().max(last.len()) } else { 0 };
    Ok((low..=high).map(|number| format!("{number:0width$}")).collect())
}

/// The files that a path names, which may be a pattern. One that a pattern names need not be there: it is a fault of the source.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, OpenError> {
    match path.to_str() {
        Some(pattern) if pattern.contains('{') && !path.exists() => {
            Ok(expand(pattern)?.into_iter().map(PathBuf::from).collect())
        }
        _ => {
            std::fs::metadata(path).map_err(OpenError::io(path))?;
            Ok(vec![path.to_owned()])
        }
    }
}

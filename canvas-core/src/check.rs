//! Checks of configurations, with errors that name both sides.

/// A configuration whose values do not fit together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    message: String,
}

impl ConfigError {
    /// An error with this text; it should name the fields and their values.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// `small` must divide `large`; both come with their names.
///
/// # Errors
/// Names both with their values.
///
/// # Example
/// ```
/// use canvas_core::check;
/// let error = check::divides(("heads", 5), ("width", 384)).unwrap_err();
/// assert_eq!(error.to_string(), "heads (5) must divide width (384)");
/// ```
pub fn divides(small: (&str, usize), large: (&str, usize)) -> Result<(), ConfigError> {
    if small.1 == 0 || !large.1.is_multiple_of(small.1) {
        return Err(ConfigError::new(format!(
            "{} ({}) must divide {} ({})",
            small.0, small.1, large.0, large.1
        )));
    }
    Ok(())
}

/// A value that must not be zero.
///
/// # Errors
/// Names it.
pub fn positive(value: (&str, usize)) -> Result<(), ConfigError> {
    if value.1 == 0 {
        return Err(ConfigError::new(format!("{} must be at least 1, found 0", value.0)));
    }
    Ok(())
}

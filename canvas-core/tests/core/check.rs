use canvas_core::{ConfigError, check};

#[test]
fn zero_is_refused_on_both_sides() {
    let message = |result: Result<(), ConfigError>| result.unwrap_err().to_string();
    assert_eq!(message(check::divides(("heads", 0), ("width", 8))), "heads (0) must divide width (8)");
    assert_eq!(message(check::positive(("depth", 0))), "depth must be at least 1, found 0");
    assert_eq!(check::divides(("heads", 4), ("width", 8)), Ok(()));
    assert_eq!(check::positive(("depth", 1)), Ok(()));
}

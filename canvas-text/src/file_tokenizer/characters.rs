//! SentencePiece's table of characters: which replace which before a text is cut.
//!
//! The library follows it without looking at its bounds, and would panic at a prompt that a broken table leads astray.

/// One unit of the tree of bytes that the table begins with, a double array as Darts-clone lays it out.
#[derive(Clone, Copy)]
struct Unit(usize);

impl Unit {
    /// The byte that leads here.
    fn label(self) -> usize {
        self.0 & (1 << 31 | 0xff)
    }

    /// Where its children lie: each at this place, changed by its own byte.
    fn children(self, place: usize) -> usize {
        place ^ (self.0 >> 10) << ((self.0 & 1 << 9) >> 6)
    }

    fn has_value(self) -> bool {
        self.0 & 1 << 8 != 0
    }

    fn value(self) -> usize {
        self.0 & ((1 << 31) - 1)
    }
}

/// Follows every way through the tree of a table: its length in bytes, the tree, and the replacements behind it, each
/// ended by a zero.
///
/// # Errors
/// If a way leads out of the tree, or its value out of the replacements.
pub(super) fn check(table: &[u8]) -> Result<(), String> {
    let cut = || format!("{} bytes are not a table of characters", table.len());
    let (size, rest) = table.split_first_chunk::<4>().ok_or_else(cut)?;
    let (tree, replacements) = rest.split_at_checked(u32::from_le_bytes(*size) as usize).ok_or_else(cut)?;
    let replacements = std::str::from_utf8(replacements).map_err(|error| error.to_string())?;
    let (units, odd) = tree.as_chunks::<4>();
    if units.is_empty() || !odd.is_empty() {
        return Err(cut());
    }
    let unit = |place: usize| Unit(u32::from_le_bytes(units[place]) as usize);
    let mut visited = vec![false; units.len()];
    let mut open = vec![unit(0).children(0)];
    while let Some(place) = open.pop() {
        // A text may go on with any byte.
        if place | 0xff >= units.len() {
            return Err(format!("a way leads to unit {place} of {}", units.len()));
        }
        for byte in 1..=0xff {
            let next = place ^ byte;
            if unit(next).label() != byte || std::mem::replace(&mut visited[next], true) {
                continue;
            }
            let children = unit(next).children(next);
            let value = units.get(children).map(|_| unit(children).value());
            if unit(next).has_value() && !value.is_some_and(|at| replacements.is_char_boundary(at)) {
                let (bytes, value) = (replacements.len(), value.unwrap_or(children));
                return Err(format!("a replacement at byte {value} of {bytes}"));
            }
            open.push(children);
        }
    }
    Ok(())
}

//! Images that are there twice.

use super::{Choose, Chosen, Noted, Pass, Rejection, Subject, Trouble, Verdict};
use serde_json::{Value, json};

/// Of images that are equal, keeps the first.
///
/// Notes the first 128 bits of BLAKE3, in hexadecimal: among `n` images two different ones collide with probability `n^2 / 2^129`, at a
/// billion 1.5e-21. Memory while choosing: 24 bytes an image, 24 MB a million.
///
/// # Reference
/// O'Connor, Aumasson, Neves, Wilcox-O'Hearn, "BLAKE3: one function, fast everywhere", 2020.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Identical {
    of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Bytes,
    Pixels,
}

impl Identical {
    /// Compares files byte by byte. Decodes nothing.
    pub fn bytes() -> Self {
        Self { of: Of::Bytes }
    }

    /// Compares width, height and decoded RGB pixels: finds what was losslessly written again, as PNG or with other metadata.
    pub fn pixels() -> Self {
        Self { of: Of::Pixels }
    }
}

impl Pass for Identical {
    fn name(&self) -> &str {
        match self.of {
            Of::Bytes => "identical files",
            Of::Pixels => "identical pixels",
        }
    }

    fn settings(&self) -> Value {
        json!("blake3, 128 bits")
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        let hash = match self.of {
            Of::Bytes => blake3::hash(&subject.record.image),
            Of::Pixels => {
                let picture = subject.picture()?;
                let mut hasher = blake3::Hasher::new();
                hasher.update(&picture.width().to_le_bytes()).update(&picture.height().to_le_bytes());
                hasher.update(picture.as_raw()).finalize()
            }
        };
        Ok(Verdict::keep().noting(&hash.to_hex()[..32]))
    }

    fn whole(&self) -> Option<&dyn Choose> {
        Some(self)
    }
}

impl Choose for Identical {
    fn choose(&self, noted: &mut dyn Iterator<Item = Noted>) -> Result<Vec<Chosen>, Trouble> {
        let mut hashes = noted
            .map(|noted| Ok((digest(&noted.note)?.to_be_bytes(), noted.number)))
            .collect::<Result<Vec<_>, Trouble>>()?;
        hashes.sort_unstable();
        let mut chosen = Vec::new();
        let reason = self.name().to_owned();
        for equal in hashes.chunk_by(|a, b| a.0 == b.0) {
            let (hash, first) = equal[0];
            chosen.extend(equal[1..].iter().map(|&(_, number)| Chosen {
                number,
                rejection: Rejection::new(reason.clone(), format!("{:032x}", u128::from_be_bytes(hash))),
                like: Some(first),
            }));
        }
        Ok(chosen)
    }
}

fn digest(note: &Value) -> Result<u128, Trouble> {
    note.as_str()
        .filter(|text| text.len() == 32)
        .and_then(|text| u128::from_str_radix(text, 16).ok())
        .ok_or_else(|| Trouble::Pass(format!("expected a note of 32 hexadecimal digits, found {note}")))
}

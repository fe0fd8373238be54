//! Whether a file reaches its own end, and whether it holds several pictures: by its blocks' lengths, without decoding them.

use image::ImageFormat;

/// What the blocks of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    /// Whether the file's own end was reached; true of formats that have none.
    pub whole: bool,
    /// Whether there is more than one picture.
    pub several: bool,
}

/// Walks along the blocks of a file.
pub(super) fn outline(bytes: &[u8], format: ImageFormat) -> Outline {
    let pictures = match format {
        ImageFormat::Jpeg => jpeg(bytes),
        ImageFormat::Png => png(bytes),
        ImageFormat::Gif => gif(bytes),
        ImageFormat::WebP => webp(bytes),
        ImageFormat::Tiff => Some(tiff(bytes)),
        _ => Some(1),
    };
    Outline { whole: pictures.is_some(), several: pictures.is_some_and(|count| count > 1) }
}

/// Bytes at a place, if there are as many.
fn at<const N: usize>(bytes: &[u8], place: usize) -> Option<[u8; N]> {
    bytes.get(place..place.checked_add(N)?)?.try_into().ok()
}

/// Markers up to the end of the image; what follows (a preview, a film) is another.
fn jpeg(bytes: &[u8]) -> Option<usize> {
    let mut place = 2;
    loop {
        place += bytes.get(place..)?.iter().position(|&byte| byte == 0xFF)? + 1;
        match *bytes.get(place)? {
            0xD9 => return Some(1),
            0xFF => {}                               // may be repeated
            0x00 | 0x01 | 0xD0..=0xD8 => place += 1, // within coded data, or without a length
            _ => {
                let length = u16::from_be_bytes(at(bytes, place + 1)?);
                place += 1 + usize::from(length);
            }
        }
    }
}

/// Chunks up to `IEND`; `acTL` says how many frames there are.
fn png(bytes: &[u8]) -> Option<usize> {
    let (mut place, mut frames) = (8, 1);
    loop {
        let length = u32::from_be_bytes(at(bytes, place)?) as usize;
        let kind: [u8; 4] = at(bytes, place + 4)?;
        let next = place + 12 + length;
        bytes.get(place..next)?;
        match &kind {
            b"IEND" => return Some(frames),
            b"acTL" if length >= 4 => frames = u32::from_be_bytes(at(bytes, place + 8)?) as usize,
            _ => {}
        }
        place = next;
    }
}

/// Blocks up to the trailer.
fn gif(bytes: &[u8]) -> Option<usize> {
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let (mut place, mut frames) = (13 + table(*bytes.get(10)?), 0);
    loop {
        match *bytes.get(place)? {
            0x3B => return Some(frames),
            0x2C => {
                frames += 1;
                place += 11 + table(*bytes.get(place + 9)?); // and the code's least size
            }
            _ => place += 2, // an extension and its label
        }
        loop {
            let length = usize::from(*bytes.get(place)?);
            place += 1 + length;
            if length == 0 {
                break;
            }
        }
    }
}

/// Chunks within the length that the file gives; `ANMF` is a frame.
fn webp(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(at(bytes, 4)?) as usize;
    let chunks = bytes.get(12..8 + length)?;
    let (mut place, mut frames) = (0, 0);
    while let Some(kind) = at::<4>(chunks, place) {
        let length = u32::from_le_bytes(at(chunks, place + 4)?) as usize;
        frames += usize::from(&kind == b"ANMF");
        place += 8 + length + length % 2;
    }
    Some(frames.max(1))
}

/// Pages of a TIFF, counted to two; those that are a smaller version or a mask of another do not count.
fn tiff(bytes: &[u8]) -> usize {
    let Some(tiff) = Tiff::new(bytes) else { return 0 };
    let (mut place, mut pages) = (tiff.start, 0);
    // Directories that do not overlap are no longer than the file: a chain that runs in a circle ends here.
    let mut left = bytes.len();
    while let Some(directory) = (pages < 2 && place != 0).then(|| tiff.directory(place)).flatten() {
        let Some(rest) = left.checked_sub(directory.length) else { break };
        (left, place) = (rest, directory.next);
        pages += usize::from(directory.page);
    }
    pages
}

/// How a TIFF writes numbers.
struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// Bytes of a count of entries, of an entry, and of an offset: BigTIFF's are wider.
    widths: [usize; 3],
    /// Where the first directory is.
    start: usize,
}

/// A list of what is known of a page.
struct Directory {
    page: bool,
    length: usize,
    next: usize,
}

impl<'a> Tiff<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut tiff = Self { bytes, big_endian: bytes.first() == Some(&b'M'), widths: [2, 12, 4], start: 4 };
        if tiff.number(2, 2)? == 43 {
            (tiff.widths, tiff.start) = ([8, 20, 8], 8);
        }
        tiff.start = tiff.number(tiff.start, tiff.widths[2])?;
        Some(tiff)
    }

    fn number(&self, place: usize, width: usize) -> Option<usize> {
        let digits = self.bytes.get(place..place.checked_add(width)?)?;
        let push = |value: u64, digit: &u8| value << 8 | u64::from(*digit);
        let value =
            if self.big_endian { digits.iter().fold(0, push) } else { digits.iter().rev().fold(0, push) };
        usize::try_from(value).ok()
    }

    fn directory(&self, place: usize) -> Option<Directory> {
        const SUBFILE: usize = 254;
        const SMALLER_OR_MASK: usize = 0b101;
        let [count_width, entry, width] = self.widths;
        let count = self.number(place, count_width)?;
        let first = place + count_width;
        let end = first.checked_add(count.checked_mul(entry)?)?;
        let next = self.number(end, width)?; // there are as many entries
        let mut entries = (first..end).step_by(entry);
        let kind = entries.find(|&at| self.number(at, 2) == Some(SUBFILE));
        let kind = kind.and_then(|at| self.number(at + entry - width, 4)).unwrap_or(0);
        Some(Directory { page: kind & SMALLER_OR_MASK == 0, length: end + width - place, next })
    }
}

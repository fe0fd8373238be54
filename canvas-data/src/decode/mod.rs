//! From an image file's bytes to pixels, with a rule for everything that is odd.

mod jpeg;
mod outline;

use crate::{Fault, reason};
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, GrayImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult,
    Limits, RgbImage, RgbaImage,
};
use serde::{Deserialize, Serialize};
use std::io::{self, Cursor};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What to do with a file of several pictures: a GIF, WebP or PNG that moves, a TIFF of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Several {
    /// It is a fault: [`reason::ANIMATED`].
    #[default]
    Refuse,
    /// The first picture stands for the file.
    First,
}

/// The rules by which image files become pixels.
///
/// The content decides what a file is, never its name. JPEG, PNG, WebP, GIF, BMP and TIFF are read.
///
/// | a file that | gives |
/// |---|---|
/// | has no bytes | [`reason::EMPTY`] |
/// | is none of the formats that crate `image` knows (HTML, text), breaks its format's rules, or is an arithmetic, lossless or 12-bit JPEG, which the decoder takes for broken | [`reason::NOT_AN_IMAGE`] |
/// | ends in the middle: before the end marker of a JPEG, PNG or GIF, the length that a WebP gives, the pixels of a BMP or TIFF | [`reason::TRUNCATED`], also by a byte |
/// | says that it has more than [`max_pixels`](Self::max_pixels), or none | [`reason::TOO_LARGE`], [`reason::NOT_AN_IMAGE`], before anything is allocated |
/// | holds several pictures | as [`several`](Self::several) says; a single frame is a picture, a TIFF's thumbnails and masks do not count |
/// | is of another format (AVIF, ICO), or of a rare kind: floating point, more than 16 bits, palettes within TIFF | [`reason::UNSUPPORTED`] |
/// | has EXIF's orientation (JPEG, PNG, WebP, TIFF) | the upright picture, in [`size`](Self::size) too; XMP's is not read |
/// | has 16 bits | `round(v / 257)`; Pillow drops the low byte of colours, so differs by one at most, and saturates grey |
/// | has 1, 2 or 4 bits, grey, or a palette | RGB |
/// | is transparent, by a channel, palette or one clear colour | its colours over [`background`](Self::background), `round((c a + b (255 - a)) / 255)`, and the alpha beside them |
/// | is opaque everywhere | no alpha, whatever its channels |
/// | is a JPEG in CMYK or YCCK, with or without Adobe's marker | taken as inverted, as Adobe writes them and as Pillow reads them: `C K / 255` of the stored bytes |
/// | is a TIFF in CMYK | not inverted: `(255 - C)(255 - K) / 255` |
/// | has an ICC profile, gamma or chromaticities | its numbers as they are: a picture in Display P3 becomes a little paler, as in Pillow and the trainers that use it |
/// | has bytes after its end (Motion Photos, gain maps) | the picture before them |
///
/// A JPEG whose data are damaged is refused where its code is found to be impossible ([`reason::NOT_AN_IMAGE`]); crate `image` alone would
/// fill what is left with grey. Damage that is itself valid code cannot be found, nor a JPEG that was cut and given an end marker:
/// the missing part is grey, as in Pillow.
///
/// # Differs from Pillow
/// Where the table says so, and in a JPEG's rounding: measured on 500 that Pillow wrote, at most 3 off where colours have full resolution
/// and 4 where they are halved, but up to 19 in the last row and column of these, where Pillow interpolates colours within the picture and
/// we into the padding of the last block. Pictures less than 5 pixels wide differ more: Pillow does not interpolate there.
///
/// # Memory
/// Decoding holds the file's own pixels (up to 8 bytes each) and the three or four that it gives, nothing larger for a small file: a
/// decoder that asks for more is stopped ([`reason::TOO_LARGE`]).
///
/// # Example
/// ```
/// use canvas_data::{Decode, reason};
/// use image::{ImageFormat, Rgba, RgbaImage};
///
/// let mut file = std::io::Cursor::new(Vec::new());
/// RgbaImage::from_pixel(3, 2, Rgba([200, 0, 0, 51])).write_to(&mut file, ImageFormat::Png)?;
/// let decode = Decode::default();
/// assert_eq!(decode.size("a.jpg", file.get_ref())?, [3, 2]); // whatever it is called
/// let picture = decode.picture("a.jpg", file.get_ref())?;
/// assert_eq!(picture.rgb.get_pixel(0, 0).0, [244, 204, 204]); // a fifth of red on white
/// assert_eq!(picture.alpha.unwrap().get_pixel(0, 0).0, [51]);
///
/// let fault = decode.picture("b.jpg", b"<!DOCTYPE html>").unwrap_err();
/// assert_eq!(fault.reason, reason::NOT_AN_IMAGE);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decode {
    /// The most pixels that are decoded; by default 89,478,485, above which Pillow warns.
    pub max_pixels: u64,
    /// What to do with files of several pictures; by default they are refused.
    pub several: Several,
    /// What is seen through transparent pixels; white by default.
    pub background: [u8; 3],
    /// Whether pictures are turned as EXIF says; by default they are.
    pub orient: bool,
}

impl Default for Decode {
    fn default() -> Self {
        Self { max_pixels: 89_478_485, several: Several::default(), background: [255; 3], orient: true }
    }
}

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Its colours.
    pub rgb: RgbImage,
    /// How opaque each pixel is, 255 wholly; none if all are.
    pub alpha: Option<GrayImage>,
}

/// What a header says.
struct Header {
    format: ImageFormat,
    size: [u32; 2],
    color: ColorType,
    orientation: Orientation,
}

impl Decode {
    /// Width and height after turning it upright, by the header and the outline of the rest: nothing is decoded.
    ///
    /// A file that [`picture`](Self::picture) refuses may still pass: its pixels were not looked at.
    ///
    /// # Errors
    /// As the table of [`Decode`] says.
    pub fn size(&self, key: &str, bytes: &[u8]) -> Result<[u32; 2], Fault> {
        guarded(key, || self.header(key, bytes).map(|header| header.upright()))
    }

    /// Decodes an image.
    ///
    /// # Errors
    /// As the table of [`Decode`] says.
    pub fn picture(&self, key: &str, bytes: &[u8]) -> Result<Decoded, Fault> {
        guarded(key, || {
            let header = self.header(key, bytes)?;
            let decoded = if header.format == ImageFormat::Jpeg {
                jpeg::decode(bytes)
            } else {
                self.open(bytes, header.format).and_then(DynamicImage::from_decoder)
            };
            let mut picture = decoded.map_err(|error| fault(key, &error))?;
            picture.apply_orientation(header.orientation);
            Ok(self.flatten(picture))
        })
    }

    /// Everything that can be refused before decoding.
    fn header(&self, key: &str, bytes: &[u8]) -> Result<Header, Fault> {
        let format = format(key, bytes)?;
        let outline = outline::outline(bytes, format);
        if !outline.whole {
            let detail = format!("a {format:?} that ends after {} bytes, before its end", bytes.len());
            return Err(Fault::new(key, reason::TRUNCATED, detail));
        }
        let header = self.read_header(bytes, format).map_err(|error| fault(key, &error))?;
        let [width, height] = header.size;
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(Fault::new(key, reason::NOT_AN_IMAGE, format!("{width}x{height} pixels")));
        }
        if pixels > self.max_pixels {
            let detail = format!("{width}x{height} pixels, {} are decoded at most", self.max_pixels);
            return Err(Fault::new(key, reason::TOO_LARGE, detail));
        }
        if matches!(header.color, ColorType::Rgb32F | ColorType::Rgba32F) {
            let detail = "floating-point pixels, whose range is not known";
            return Err(Fault::new(key, reason::UNSUPPORTED, detail));
        }
        if outline.several && self.several == Several::Refuse {
            let detail = format!("a {format:?} of several pictures");
            return Err(Fault::new(key, reason::ANIMATED, detail));
        }
        Ok(header)
    }

    fn read_header(&self, bytes: &[u8], format: ImageFormat) -> ImageResult<Header> {
        let mut decoder = self.open(bytes, format)?;
        let orientation = if self.orient { decoder.orientation()? } else { Orientation::NoTransforms };
        let (width, height) = decoder.dimensions();
        Ok(Header { format, size: [width, height], color: decoder.color_type(), orientation })
    }

    fn open<'a>(&self, bytes: &'a [u8], format: ImageFormat) -> ImageResult<impl ImageDecoder + 'a> {
        let mut limits = Limits::no_limits();
        // Eight bytes a pixel and as many again for a decoder's own, and room for the tables of a small file.
        limits.max_alloc = Some(self.max_pixels.saturating_mul(16).saturating_add(1 << 24));
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(limits);
        reader.into_decoder()
    }

    /// Colours over the background, and the alpha if it says something.
    fn flatten(&self, picture: DynamicImage) -> Decoded {
        if !picture.color().has_alpha() {
            return Decoded { rgb: picture.into_rgb8(), alpha: None };
        }
        let clear: RgbaImage = picture.into_rgba8();
        let opaque = clear.pixels().all(|pixel| pixel.0[3] == 255);
        let mut rgb = RgbImage::new(clear.width(), clear.height());
        for (seen, pixel) in rgb.pixels_mut().zip(clear.pixels()) {
            let [.., alpha] = pixel.0.map(u32::from);
            for (channel, &under) in self.background.iter().enumerate() {
                let sum = u32::from(pixel.0[channel]) * alpha + u32::from(under) * (255 - alpha);
                seen.0[channel] = ((sum + 127) / 255) as u8;
            }
        }
        let mask =
            || GrayImage::from_fn(clear.width(), clear.height(), |x, y| [clear.get_pixel(x, y).0[3]].into());
        Decoded { rgb, alpha: (!opaque).then(mask) }
    }
}

impl Header {
    fn upright(&self) -> [u32; 2] {
        let [width, height] = self.size;
        match self.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => [height, width],
            Orientation::NoTransforms
            | Orientation::Rotate180
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical => [width, height],
        }
    }
}

/// What the content is.
fn format(key: &str, bytes: &[u8]) -> Result<ImageFormat, Fault> {
    if bytes.is_empty() {
        return Err(Fault::new(key, reason::EMPTY, "an image file of 0 bytes"));
    }
    image::guess_format(bytes).map_err(|_| {
        let start = bytes[..bytes.len().min(24)].escape_ascii();
        Fault::new(key, reason::NOT_AN_IMAGE, format!("{} bytes that begin with `{start}`", bytes.len()))
    })
}

/// Width and height as the header has them, whatever they are: nothing is turned, and nothing too large.
pub(crate) fn stored_size(key: &str, bytes: &[u8]) -> Result<(u32, u32), Fault> {
    guarded(key, || {
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format(key, bytes)?);
        reader.no_limits();
        reader.into_dimensions().map_err(|error| fault(key, &error))
    })
}

/// What a decoder found.
fn fault(key: &str, error: &ImageError) -> Fault {
    let kind = match error {
        _ if cut(error) => reason::TRUNCATED,
        ImageError::Limits(_) => reason::TOO_LARGE,
        ImageError::Unsupported(_) => reason::UNSUPPORTED,
        ImageError::Decoding(_)
        | ImageError::Encoding(_)
        | ImageError::Parameter(_)
        | ImageError::IoError(_) => reason::NOT_AN_IMAGE,
    };
    Fault::new(key, kind, error.to_string())
}

/// Whether an error is that there were not enough bytes.
fn cut(error: &(dyn std::error::Error + 'static)) -> bool {
    let early = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    error.downcast_ref::<io::Error>().is_some_and(early) || error.source().is_some_and(cut)
}

/// Runs a decoder. A bug of a decoder, met by one file of a million, is that file's fault and does not end a run.
fn guarded<T>(key: &str, decode: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(Fault::new(key, reason::NOT_AN_IMAGE, "its decoder panicked: please report the file"))
    })
}

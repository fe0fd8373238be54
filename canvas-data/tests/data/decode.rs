use crate::{png, scene, written};
use canvas_data::{Decode, Several, reason};
use image::codecs::gif::GifEncoder;
use image::codecs::tiff::TiffEncoder;
use image::{
    DynamicImage, ExtendedColorType, Frame, GrayAlphaImage, GrayImage, ImageEncoder, ImageFormat, Luma, Rgb,
    Rgb32FImage, RgbImage, RgbaImage,
};
use proptest::prelude::*;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Any size, the first of several pictures, on green.
const LENIENT: Decode =
    Decode { max_pixels: 1 << 30, several: Several::First, background: [10, 200, 90], orient: true };

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
}

/// A small odd file of tools/fixtures_images.py.
fn fixture(name: &str) -> Vec<u8> {
    fs::read(fixtures().join(name)).unwrap()
}

/// What Pillow makes of it.
fn judged(name: &str) -> DynamicImage {
    image::load_from_memory(&fixture(&format!("{name}.png"))).unwrap()
}

/// Files of kinds that are not read.
const UNSUPPORTED: [&str; 2] = ["floats.tif", "palette.tif"];

/// All files that Pillow has judged and that are read.
fn names() -> Vec<String> {
    let entries = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.filter_map(|name| Some(name.to_str()?.strip_suffix(".png")?.to_owned()));
    let mut names: Vec<String> =
        names.filter(|name| name.contains('.') && !UNSUPPORTED.contains(&name.as_str())).collect();
    names.sort();
    assert!(names.len() > 40, "{names:?}");
    names
}

/// Colours over a background by Pillow's `paste`, whose division by 255 rounds.
fn flattened(picture: &DynamicImage, background: [u8; 3]) -> RgbImage {
    let clear = picture.to_rgba8();
    RgbImage::from_fn(clear.width(), clear.height(), |x, y| {
        let [r, g, b, alpha] = clear.get_pixel(x, y).0;
        let mix = |over: u8, under: u8| {
            let (over, under, alpha) = (f64::from(over), f64::from(under), f64::from(alpha));
            ((over * alpha + under * (255.0 - alpha)) / 255.0).round() as u8
        };
        let [under_r, under_g, under_b] = background;
        [mix(r, under_r), mix(g, under_g), mix(b, under_b)].into()
    })
}

#[track_caller]
fn refused(decode: &Decode, bytes: &[u8], expected: &str) -> String {
    let fault = decode.picture("some/key.jpg", bytes).unwrap_err();
    assert_eq!((fault.key.as_str(), &*fault.reason), ("some/key.jpg", expected), "{fault}");
    fault.detail
}

/// Refused already by its header.
#[track_caller]
fn refused_early(decode: &Decode, bytes: &[u8], expected: &str) -> String {
    let fault = decode.size("some/key.jpg", bytes).unwrap_err();
    let detail = refused(decode, bytes, expected);
    assert_eq!((&*fault.reason, &fault.detail), (expected, &detail));
    detail
}

#[test]
fn every_kind_of_file_is_what_pillow_makes_of_it() {
    for name in names() {
        let (found, expected) = (LENIENT.picture(&name, &fixture(&name)).unwrap(), judged(&name));
        let size = [expected.width(), expected.height()];
        assert_eq!(LENIENT.size(&name, &fixture(&name)), Ok(size), "{name}");
        assert_eq!(found.rgb.dimensions(), size.into(), "{name}");
        let colours = flattened(&expected, LENIENT.background);
        let off = |x: u32, y: u32| {
            let [a, b] = [&found.rgb, &colours].map(|picture| picture.get_pixel(x, y).0);
            (0..3).map(|c| a[c].abs_diff(b[c])).max().unwrap()
        };
        // Another inverse cosine transform, and where colours are halved another interpolation. Its last row and column are seen apart:
        // Pillow's decoder interpolates within the picture, ours into the padding of the last block.
        let halved = expected.color() == image::ColorType::Rgb8 && name.ends_with("jpg");
        let (inside, edge) = match name.as_str() {
            "cmyk.tif" => (1, 1), // rounds where Pillow cuts off
            "grey.jpg" | "stored_as_rgb.jpg" | "ycck.jpg" => (1, 1),
            "cmyk.jpg" | "cmyk_without_adobe.jpg" | "full_colour.jpg" => (2, 2),
            _ if halved => (3, 17),
            _ => (0, 0),
        };
        let [width, height] = size;
        for (x, y) in (0..width).flat_map(|x| (0..height).map(move |y| (x, y))) {
            let border = [0, width - 1].contains(&x) || [0, height - 1].contains(&y); // of the turned one too
            let most = if border { edge } else { inside };
            assert!(off(x, y) <= most, "{name}: off by {} at {x}, {y}", off(x, y));
        }
        let alpha = expected.color().has_alpha().then(|| expected.to_rgba8());
        let alpha =
            alpha.map(|clear| GrayImage::from_fn(width, height, |x, y| [clear.get_pixel(x, y).0[3]].into()));
        assert_eq!(found.alpha, alpha, "{name}");
    }
}

#[test]
fn orientation_can_be_left_alone() {
    let lying = Decode { orient: false, ..LENIENT };
    let bytes = fixture("upright_6.jpg");
    assert_eq!((lying.size("", &bytes), LENIENT.size("", &bytes)), (Ok([20, 12]), Ok([12, 20])));
    assert_eq!(lying.picture("", &bytes), LENIENT.picture("", &fixture("upright_1.jpg")));
}

#[test]
fn files_that_are_no_images_are_refused() {
    let decode = Decode::default();
    refused_early(&decode, b"", reason::EMPTY);
    let html = b"<!DOCTYPE html><html><body>404 Not Found</body></html>";
    assert_eq!(
        refused_early(&decode, html, reason::NOT_AN_IMAGE),
        "54 bytes that begin with `<!DOCTYPE html><html><bo`"
    );
    refused_early(&decode, &[0; 1000], reason::NOT_AN_IMAGE);
    refused_early(&decode, b"\xff\xd8", reason::NOT_AN_IMAGE);
    refused_early(&decode, b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", reason::UNSUPPORTED);
    // Of the right length and with its end, and nothing else right.
    refused_early(&decode, b"\xff\xd8\xff\xe0\0\x04ab\xff\xd9", reason::NOT_AN_IMAGE);
}

#[test]
fn the_content_decides_what_a_file_is() {
    for name in ["colour.bmp", "lossless.webp", "lzw.tif", "one_bit.png", "palette_clear.gif", "grey.jpg"] {
        for key in ["a.png", "a", "b.jpg"] {
            assert_eq!(LENIENT.picture(key, &fixture(name)), LENIENT.picture(name, &fixture(name)));
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_or_whole() {
    for name in names() {
        let whole = fixture(&name);
        let picture = LENIENT.picture(&name, &whole).unwrap();
        let ends = ["jpg", "png", "gif", "webp"].iter().any(|end| name.ends_with(end));
        for length in 0..whole.len() {
            let cut = &whole[..length];
            match LENIENT.picture(&name, cut) {
                Ok(found) => assert!(!ends && found == picture, "{name}: {length} bytes"),
                Err(fault) if ends && length >= 12 => {
                    assert_eq!(fault.reason, reason::TRUNCATED, "{name}: {length} bytes: {fault}");
                    assert_eq!(LENIENT.size(&name, cut), Err(fault), "by its outline alone");
                }
                Err(fault) => assert!(
                    [reason::EMPTY, reason::NOT_AN_IMAGE, reason::TRUNCATED, reason::UNSUPPORTED]
                        .contains(&&*fault.reason),
                    "{name}: {length} bytes: {fault}"
                ),
            }
        }
    }
}

#[test]
fn bytes_after_the_end_do_not_matter() {
    for name in names() {
        let longer = [&fixture(&name)[..], b"\0\xff\xd8\xff\xe1 a film"].concat();
        assert_eq!(LENIENT.picture(&name, &longer), LENIENT.picture(&name, &fixture(&name)), "{name}");
    }
}

/// What a JPEG says after its `SOS` marker, from where its data begin.
fn data(jpeg: &[u8]) -> usize {
    let at = jpeg.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap() + 2;
    at + usize::from(u16::from_be_bytes([jpeg[at], jpeg[at + 1]]))
}

/// No code is all ones; a byte of ones is followed by 0 in a JPEG.
pub(crate) fn ones(data: &mut [u8]) {
    data.chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&[0xFF, 0]));
}

#[test]
fn impossible_code_in_a_jpeg_is_refused_where_image_goes_on_in_grey() {
    let mut file = written(&scene(64, 64).into(), ImageFormat::Jpeg);
    let place = data(&file) + 200;
    ones(&mut file[place..place + 40]);
    let lenient = image::load_from_memory(&file).unwrap().to_rgb8();
    let grey = lenient.rows().next_back().unwrap().all(|pixel| pixel.0.iter().all(|v| v.abs_diff(128) < 2));
    assert!(grey, "crate image has become stricter: {:?}", lenient.get_pixel(63, 63));
    refused(&Decode::default(), &file, reason::NOT_AN_IMAGE);
}

#[test]
fn a_jpeg_without_its_end_marker_is_refused_even_if_all_pixels_are_there() {
    let file = written(&scene(64, 64).into(), ImageFormat::Jpeg);
    assert!(file.ends_with(b"\xff\xd9"));
    refused_early(&Decode::default(), &file[..file.len() - 2], reason::TRUNCATED);
    // What cannot be seen, as the table says: half the data, and an end marker.
    let half = [&file[..file.len() / 2], b"\xff\xd9"].concat();
    assert!(Decode::default().picture("", &half).is_ok());
}

/// A PNG that says it is of a size, with data that unpack to zeros without an end.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut file = png(1, 1);
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc32(&file[12..29]);
    file[29..33].copy_from_slice(&sum.to_be_bytes());
    file
}

/// PNG's checksum, by its definition.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn enormous_images_are_refused_by_their_header() {
    let decode = Decode::default();
    let detail = refused_early(&decode, &bomb(60_000, 60_000), reason::TOO_LARGE);
    assert_eq!(detail, "60000x60000 pixels, 89478485 are decoded at most");
    refused_early(&decode, &bomb(0x7FFF_FFFF, 0x7FFF_FFFF), reason::TOO_LARGE);
    // Each format's header, by its largest number.
    let mut jpeg = written(&scene(8, 8).into(), ImageFormat::Jpeg);
    let at = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap() + 5;
    jpeg[at..at + 4].fill(0xFF);
    refused_early(&decode, &jpeg, reason::TOO_LARGE);
    let mut gif = fixture("palette_clear.gif");
    gif[6..10].fill(0xFF);
    refused_early(&decode, &gif, reason::TOO_LARGE);
    let mut bmp = fixture("colour.bmp");
    bmp[18..26].copy_from_slice(&[0xFF, 0x7F, 0, 0, 0xFF, 0x7F, 0, 0]);
    refused_early(&decode, &bmp, reason::TOO_LARGE);
    let limit = Decode { max_pixels: 99, ..LENIENT };
    assert!(limit.picture("", &png(11, 9)).is_ok());
    refused_early(&limit, &png(10, 10), reason::TOO_LARGE);
}

#[test]
fn a_frame_larger_than_its_screen_does_not_allocate_it() {
    // A GIF of 20x12 pixels whose only frame says that it has 65535 x 65535.
    let mut gif = fixture("palette_clear.gif");
    let at = gif.windows(5).position(|part| part == [0x2C, 0, 0, 0, 0]).unwrap() + 5;
    gif[at..at + 4].fill(0xFF);
    let decode = Decode { several: Several::First, ..Decode::default() };
    refused(&decode, &gif, reason::TOO_LARGE);
}

#[test]
fn a_png_with_more_data_than_pixels_is_the_picture_it_says() {
    // Ten million zeros in ten kilobytes, of which a row of a pixel is read.
    let huge = written(&GrayImage::new(10_000, 1_000).into(), ImageFormat::Png);
    let mut file = huge.clone();
    file[16..24].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    let sum = crc32(&file[12..29]);
    file[29..33].copy_from_slice(&sum.to_be_bytes());
    let found = Decode::default().picture("", &file).unwrap();
    assert_eq!(found.rgb, RgbImage::new(1, 1));
}

#[test]
fn files_of_several_pictures_are_refused_or_their_first() {
    for name in ["moving.gif", "moving.webp", "moving.png", "pages.tif"] {
        let detail = refused_early(&Decode::default(), &fixture(name), reason::ANIMATED);
        assert!(detail.ends_with("of several pictures"), "{detail}");
        assert_eq!(LENIENT.picture("", &fixture(name)).unwrap().rgb, judged(name).to_rgb8(), "{name}");
    }
    // One frame does not move.
    let mut file = Vec::new();
    let frame = RgbaImage::from_pixel(3, 2, [1, 2, 3, 255].into());
    GifEncoder::new(&mut file).encode_frames([Frame::new(frame)]).unwrap();
    assert!(Decode::default().picture("", &file).is_ok());
}

#[test]
fn a_chain_of_pages_that_runs_in_a_circle_ends() {
    let mut tiff = written(&scene(3, 2).into(), ImageFormat::Tiff);
    let start = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes(tiff[start..start + 2].try_into().unwrap()));
    let next = start + 2 + 12 * count;
    tiff[next..next + 4].copy_from_slice(&(start as u32).to_le_bytes());
    refused_early(&LENIENT, &tiff, reason::NOT_AN_IMAGE);
}

#[test]
fn rare_kinds_are_refused() {
    for name in UNSUPPORTED {
        refused_early(&LENIENT, &fixture(name), reason::UNSUPPORTED);
    }
    // Lossless and arithmetic JPEG, which the decoder does not know.
    for kind in [0xC3, 0xC9, 0xCA] {
        let mut jpeg = fixture("full_colour.jpg");
        let at = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        jpeg[at + 1] = kind;
        refused_early(&LENIENT, &jpeg, reason::NOT_AN_IMAGE);
    }
    let colours = Rgb32FImage::from_pixel(2, 2, Rgb([0.5, 0.25, 1.0]));
    let detail = refused_early(&LENIENT, &written(&colours.into(), ImageFormat::Tiff), reason::UNSUPPORTED);
    assert_eq!(detail, "floating-point pixels, whose range is not known");
}

#[test]
fn sixteen_bits_are_rounded() {
    let values: Vec<u16> = vec![0, 128, 129, 385, 386, 32767, 32768, 65406, 65407, 65535];
    let wide = image::ImageBuffer::<Luma<u16>, _>::from_raw(10, 1, values.clone()).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let found = LENIENT.picture("", &written(&wide.clone().into(), format)).unwrap().rgb;
        let expected = values.iter().map(|&v| (f64::from(v) / 257.0).round() as u8);
        assert!(found.pixels().map(|pixel| pixel.0[0]).eq(expected), "{format:?}");
    }
}

#[test]
fn a_single_pixel_is_a_picture() {
    let formats =
        [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP, ImageFormat::Gif];
    for format in formats {
        let dot = RgbImage::from_pixel(1, 1, [200, 30, 4].into());
        let dot =
            if format == ImageFormat::Gif { DynamicImage::from(dot).to_rgba8().into() } else { dot.into() };
        let found = LENIENT.picture("", &written(&dot, format)).unwrap();
        assert_eq!((found.rgb.get_pixel(0, 0).0, found.alpha), ([200, 30, 4], None), "{format:?}");
    }
}

#[test]
fn an_alpha_that_is_opaque_everywhere_is_none() {
    let clear = GrayAlphaImage::from_pixel(4, 3, [90, 255].into());
    assert_eq!(LENIENT.picture("", &written(&clear.clone().into(), ImageFormat::Png)).unwrap().alpha, None);
    let mut once = clear;
    once.get_pixel_mut(2, 1).0[1] = 254;
    let alpha = LENIENT.picture("", &written(&once.into(), ImageFormat::Png)).unwrap().alpha.unwrap();
    assert_eq!((alpha.get_pixel(2, 1).0, alpha.get_pixel(1, 1).0), ([254], [255]));
}

#[test]
fn planes_and_masks_of_a_tiff_are_no_pages() {
    let mut file = Cursor::new(Vec::new());
    TiffEncoder::new(&mut file).write_image(&scene(3, 2), 3, 2, ExtendedColorType::Rgb8).unwrap();
    assert_eq!(Decode::default().picture("", file.get_ref()).unwrap().rgb, scene(3, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Changed bytes give a picture of the size that the header says, or a fault: never a panic, whatever the format.
    #[test]
    fn damaged_files_are_decoded_or_refused(
        file in proptest::sample::select(names()),
        places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = fixture(&file);
        for (place, value) in places {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let decode = Decode { max_pixels: 1 << 16, ..LENIENT };
        let (size, picture) = (decode.size("a", &bytes), decode.picture("a", &bytes));
        if let Ok(picture) = &picture {
            prop_assert_eq!(size.clone(), Ok(picture.rgb.dimensions().into()));
        }
        for fault in [size.err(), picture.err()].into_iter().flatten() {
            prop_assert!(!fault.detail.contains("panicked"), "{}", fault);
        }
    }
}

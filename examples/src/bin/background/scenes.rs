//! Cut-outs of things laid on photographs of places: pictures whose backgrounds are known, and whose masks are true.

use anyhow::{Context, Result, bail};
use canvas_core::{generator, seed_for};
use canvas_data::{CaptionRules, Folder, Options, Source, TextRule};
use canvas_examples::emoji_set::normalise_caption;
use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage, RgbaImage};
use rand::RngExt as _;
use std::path::Path;

/// Pixels of a photograph's shorter side, from which crops are taken.
const PLACE_SIDE: u32 = 160;

/// A thing without its background.
pub struct Thing {
    /// What it is, in words.
    pub name: String,
    /// Its colours and its mask.
    pub picture: RgbaImage,
}

/// A photograph to stand on.
pub struct Place {
    /// What it is, in words.
    pub name: String,
    picture: RgbImage,
}

/// A thing at a place.
pub struct Scene {
    /// "a garden spade on dune"
    pub caption: String,
    /// The thing's number.
    pub thing: usize,
    /// The place's number.
    pub place: usize,
    /// Both, in pixels.
    pub picture: RgbImage,
    /// 255 where the place is seen, 0 where the thing is.
    pub mask: GrayImage,
}

/// Things and places to make scenes of.
pub struct Stock {
    /// Cut-outs that are trained on.
    pub things: Vec<Thing>,
    /// Cut-outs that are only drawn around.
    pub tested: Vec<Thing>,
    /// Photographs.
    pub places: Vec<Place>,
}

/// Words of a thing's name that are kept: with its place it has to fit the text encoder's context.
const WORDS: usize = 8;
/// Of this many cut-outs, one is never trained on.
const TESTED: usize = 8;

impl Stock {
    /// Reads a folder of cut-outs, with their names in texts beside them, and a folder of photographs, named by their files.
    ///
    /// What is no cut-out (a picture without a mask, or one of a few pixels) is passed over; drawings are left out by `skip`, words of
    /// the paths.
    ///
    /// # Errors
    /// If a folder cannot be read, or there are too few.
    pub fn read(things: &Path, places: &Path, skip: &[String]) -> Result<Self> {
        let mut found = Vec::new();
        let options = Options { text: TextRule::FirstLine, ..Options::default() };
        let source = Folder::open(things, &options).context("--things")?;
        for index in 0..source.len() {
            if skip.iter().any(|word| source.key(index).contains(word.as_str())) {
                continue;
            }
            // A picture in another format, or without a name, is no thing of this set.
            let Ok(record) = source.read(index) else { continue };
            let Ok(picture) = image::load_from_memory(&record.image) else { continue };
            let name = normalise_caption(&record.captions[0].text);
            let name = name.split(' ').take(WORDS).collect::<Vec<_>>().join(" ");
            found.extend(cut_out(&picture).map(|picture| Thing { name, picture }));
        }
        if found.len() < 2 * TESTED {
            bail!(
                "{}: {} cut-outs with a name and a mask, at least {} are needed",
                things.display(),
                found.len(),
                2 * TESTED
            );
        }
        let places = read_places(places)?;
        let (mut trained, mut tested) = (Vec::new(), Vec::new());
        for (number, thing) in found.into_iter().enumerate() {
            if number % TESTED == 0 { tested.push(thing) } else { trained.push(thing) }
        }
        Ok(Self { things: trained, tested, places })
    }

    /// Scene `number` of a seed: a thing by chance and the place whose turn it is, or those that are asked for.
    pub fn scene(&self, key: (u64, u64), side: u32, chosen: Option<(&Thing, usize, usize)>) -> Scene {
        let mut random = generator(seed_for(key.0, "scenes"), key.1, 0);
        let any = random.random_range(0..self.things.len());
        let turn = (key.1 % self.places.len() as u64) as usize;
        let (thing, number, place) = chosen.unwrap_or((&self.things[any], any, turn));
        let photograph = &self.places[place];

        let (wide, high) = photograph.picture.dimensions();
        let crop = (f64::from(wide.min(high)) * random.random_range(0.5..1.0)) as u32;
        let (x, y) = (random.random_range(0..=wide - crop), random.random_range(0..=high - crop));
        let part = imageops::crop_imm(&photograph.picture, x, y, crop, crop).to_image();
        let mut picture = imageops::resize(&part, side, side, FilterType::CatmullRom);

        let scale = f64::from(side) * random.random_range(0.5..0.85);
        let (wide, high) = thing.picture.dimensions();
        let sized = |length: u32| ((f64::from(length) * scale / f64::from(wide.max(high))) as u32).max(1);
        let small = imageops::resize(&thing.picture, sized(wide), sized(high), FilterType::CatmullRom);
        let left = random.random_range(0..=side - small.width());
        let top = random.random_range(0..=side - small.height());
        let mut mask = GrayImage::from_pixel(side, side, Luma([255]));
        for (x, y, pixel) in small.enumerate_pixels() {
            let [r, g, b, alpha] = pixel.0;
            let (below, share) = (picture.get_pixel_mut(left + x, top + y), f64::from(alpha) / 255.0);
            let mixed = |above: u8, below: u8| {
                (f64::from(above) * share + f64::from(below) * (1.0 - share)).round() as u8
            };
            *below = Rgb([mixed(r, below.0[0]), mixed(g, below.0[1]), mixed(b, below.0[2])]);
            mask.put_pixel(left + x, top + y, Luma([255 - alpha]));
        }
        let caption = format!("{} on {}", thing.name, photograph.name);
        Scene { caption, thing: number, place, picture, mask }
    }
}

/// A picture with a mask: some of it is thing, some is not.
fn cut_out(picture: &DynamicImage) -> Option<RgbaImage> {
    const LEAST_SIDE: u32 = 48;
    if !picture.color().has_alpha() || picture.width().min(picture.height()) < LEAST_SIDE {
        return None;
    }
    let picture = picture.to_rgba8();
    let solid = picture.pixels().filter(|pixel| pixel.0[3] > 127).count() as f64;
    let share = solid / f64::from(picture.width() * picture.height());
    (0.15..0.95).contains(&share).then_some(picture)
}

fn read_places(folder: &Path) -> Result<Vec<Place>> {
    let rules = CaptionRules { required: false, ..CaptionRules::default() };
    let options = Options { rules, ..Options::default() };
    let source = Folder::open(folder, &options).context("--places")?;
    let mut places = Vec::new();
    for index in 0..source.len() {
        let record = source.read(index)?;
        let picture = image::load_from_memory(&record.image).with_context(|| record.key.clone())?.into_rgb8();
        let (wide, high) = picture.dimensions();
        let shrink = f64::from(PLACE_SIDE) / f64::from(wide.min(high));
        let sized = |length: u32| ((f64::from(length) * shrink).round() as u32).max(PLACE_SIDE);
        let picture = imageops::resize(&picture, sized(wide), sized(high), FilterType::CatmullRom);
        places.push(Place { name: spoken(&record.key), picture });
    }
    Ok(places)
}

/// The words of a file's name: `nature/GreenMeadow.jpg` is "green meadow".
fn spoken(key: &str) -> String {
    let name = Path::new(key).file_stem().map_or(key.into(), |stem| stem.to_string_lossy());
    let spaced = |(place, letter): (usize, char)| match letter.is_uppercase() && place > 0 {
        true => vec![' ', letter],
        false => vec![letter],
    };
    normalise_caption(&name.chars().enumerate().flat_map(spaced).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgba;

    /// Seventeen discs in a folder, and two plain photographs in another.
    fn folders() -> [tempfile::TempDir; 2] {
        let [things, places] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for n in 0..17u8 {
            let disc = RgbaImage::from_fn(64, 50, |x, y| {
                let far = (f64::from(x) - 32.0).hypot(f64::from(y) - 25.0);
                Rgba([200, 10 * n, 30, if far < 24.0 { 255 } else { 0 }])
            });
            disc.save(things.path().join(format!("disc{n:02}.png"))).unwrap();
            std::fs::write(
                things.path().join(format!("disc{n:02}.txt")),
                format!("Disc {n}.\nde.utf8=Scheibe\n"),
            )
            .unwrap();
        }
        RgbImage::new(64, 64).save(things.path().join("photograph.png")).unwrap();
        std::fs::write(things.path().join("photograph.txt"), "No cut-out.").unwrap();
        for (name, colour) in [("GreenMeadow.png", [20, 180, 40]), ("Sea.png", [20, 40, 180])] {
            RgbImage::from_pixel(300, 200, Rgb(colour)).save(places.path().join(name)).unwrap();
        }
        [things, places]
    }

    #[test]
    fn scenes_are_functions_of_their_number() {
        let [things, places] = folders();
        let stock = Stock::read(things.path(), places.path(), &["disc07".into()]).unwrap();
        assert_eq!((stock.things.len(), stock.tested.len(), stock.places.len()), (14, 2, 2));
        let names: Vec<&str> = stock.places.iter().map(|place| place.name.as_str()).collect();
        assert_eq!(names, ["green meadow", "sea"]);
        for number in 0..40 {
            let scene = stock.scene((0, number), 32, None);
            assert_eq!(scene.picture, stock.scene((0, number), 32, None).picture);
            let words = format!("{} on {}", stock.things[scene.thing].name, names[scene.place]);
            assert_eq!(scene.caption, words);
            assert_eq!(scene.place, number as usize % 2, "each place has its share");
            // Where only the place is, it is the place; where only the thing is, the thing.
            let place = [[20, 180, 40], [20, 40, 180]][scene.place];
            let thing = stock.things[scene.thing].picture.get_pixel(32, 25).0;
            for (x, y, pixel) in scene.picture.enumerate_pixels() {
                match scene.mask.get_pixel(x, y).0[0] {
                    255 => assert_eq!(pixel.0, place),
                    0 => assert_eq!(pixel.0, thing[..3]),
                    _ => {}
                }
            }
            let bytes = scene.mask.as_raw();
            assert!(bytes.contains(&0) && bytes.contains(&255), "number {number}");
        }
        let chosen = stock.scene((1, 0), 32, Some((&stock.tested[1], 1, 0)));
        assert_eq!((chosen.thing, chosen.place, chosen.caption.as_str()), (1, 0, "disc 9 on green meadow"));
    }

    #[test]
    fn folders_with_too_little_are_errors() {
        let [things, places] = folders();
        let error = |things: &Path, skip: &str| {
            format!("{:#}", Stock::read(things, places.path(), &[skip.into()]).err().unwrap())
        };
        assert!(error(things.path(), "disc").contains("0 cut-outs"));
        assert!(error(Path::new("no/such/folder"), "x").contains("no/such/folder"));
        std::fs::write(places.path().join("Broken.jpg"), "not a picture").unwrap();
        assert!(error(things.path(), "x").contains("Broken.jpg"));
    }
}

//! The data set "emoji": pictures from the crate `twemoji-assets`, captions from the crate `emojis`.
//!
//! Everything comes with cargo and is built in memory; nothing is downloaded while a program runs. The
//! graphics are Twemoji's, Copyright 2020 Twitter, Inc and other contributors, CC-BY 4.0: say so wherever
//! they are shown.
//!
//! A picture is decoded to RGBA (most files are indexed PNG with `tRNS`), laid on white and then resized.
//! Both steps work on plain sRGB values, as browsers do, not in linear light: edges then look the way the
//! artists saw them. The filter is Catmull-Rom with its support scaled to the reduction: sharper than area
//! averaging, and its single negative lobe leaves the paper around a shape exactly white, which Lanczos does
//! not.

mod names;

use names::{RENAMED, SIMPLE};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use twemoji_assets::png::PngTwemojiAsset;

/// The sides [`EmojiSet::build`] accepts, in pixels. The sources are 72 x 72.
pub const SIDES: std::ops::RangeInclusive<u32> = 8..=512;

/// The combinations of a colour and a shape that are never trained on, in either set.
///
/// The rule: every colour and every shape here is trained on in other combinations; no colour is lost more
/// than once and no shape more than three times. Black and white stay in training because the whole set holds
/// more sizes of the black and white squares, which would give the answer away. No other picture of the whole
/// set shows one of these combinations by itself.
pub const HELD_OUT: [(&str, &str); 7] = [
    ("orange", "heart"),
    ("green", "heart"),
    ("brown", "circle"),
    ("purple", "circle"),
    ("red", "square"),
    ("yellow", "square"),
    ("blue", "square"),
];

/// The shapes that come in many colours.
pub const SHAPES: [&str; 3] = ["heart", "circle", "square"];

/// The colours of [`SHAPES`]; pink, light blue and grey exist as hearts only.
#[rustfmt::skip]
pub const COLOURS: [&str; 12] = [
    "red", "pink", "orange", "yellow", "green", "blue",
    "light blue", "purple", "brown", "black", "grey", "white",
];

/// One picture with its caption.
#[derive(Clone, Debug)]
pub struct Emoji {
    /// Place in the whole list of emoji that have a picture; the same in every subset.
    pub id: usize,
    /// The character or sequence itself.
    pub glyph: String,
    /// The name in plain words, see [`normalise_caption`]; unique in the whole list.
    pub caption: String,
    /// The Unicode group, for instance "food and drink".
    pub group: String,
    /// `side` x `side` pixels, on white.
    pub picture: RgbImage,
    /// Never trained on, see [`HELD_OUT`].
    pub held_out: bool,
}

impl Emoji {
    /// The colour of [`COLOURS`] and the shape of [`SHAPES`] when the caption is exactly those two.
    pub fn combination(&self) -> Option<(&str, &str)> {
        combination(&self.caption)
    }
}

/// Which emoji are in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The simple ones: 247, of which 240 are trained on, listed by name in this file.
    Simple,
    /// All 1,914 that have a picture, without skin tone variants. Some are drawn alike (families, island
    /// flags).
    All,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Simple => "simple",
            Self::All => "all",
        })
    }
}

impl FromStr for Which {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "simple" => Ok(Self::Simple),
            "all" => Ok(Self::All),
            _ => bail!("unknown emoji set {text:?}: the sets are \"simple\" and \"all\""),
        }
    }
}

/// Pictures with captions, in the order of the whole list.
#[derive(Clone, Debug)]
pub struct EmojiSet {
    /// Width and height of every picture in pixels.
    pub side: u32,
    /// The emoji, trained on and held out.
    pub items: Vec<Emoji>,
}

impl EmojiSet {
    /// Builds the set `which` with pictures of `side` x `side` pixels.
    ///
    /// # Errors
    ///
    /// A side outside [`SIDES`], a listed name without a picture, or a picture that cannot be decoded.
    pub fn build(which: Which, side: u32) -> Result<Self> {
        ensure!(
            SIDES.contains(&side),
            "side of the emoji pictures is {side}: it must be from {} to {}",
            SIDES.start(),
            SIDES.end()
        );
        let mut entries = entries()?;
        if which == Which::Simple {
            let chosen = listed(&entries, SIMPLE.iter().flat_map(|(_, names)| names.iter().copied()))?;
            entries = chosen.into_iter().map(|place| entries[place].clone()).collect();
        }
        let items = entries.iter().map(|entry| entry.load(side)).collect::<Result<Vec<_>>>()?;
        Ok(Self { side, items })
    }

    /// The emoji to train on.
    pub fn trained(&self) -> impl Iterator<Item = &Emoji> + Clone {
        self.items.iter().filter(|emoji| !emoji.held_out)
    }

    /// The emoji never to train on, see [`HELD_OUT`].
    pub fn held_out(&self) -> impl Iterator<Item = &Emoji> + Clone {
        self.items.iter().filter(|emoji| emoji.held_out)
    }

    /// The emoji with this caption, after [`normalise_caption`].
    pub fn find(&self, caption: &str) -> Option<&Emoji> {
        let caption = normalise_caption(caption);
        self.items.iter().find(|emoji| emoji.caption == caption)
    }
}

/// Brings a name or a prompt to lower-case words with single spaces between them.
///
/// Letters and digits stay, without accents; `#`, `*` and `&` become words, because names differ by them;
/// apostrophes vanish ("woman's" is one word); anything else separates words. Text without a letter or a
/// digit gives an empty string.
///
/// ```
/// use canvas_examples::emoji_set::normalise_caption;
///
/// assert_eq!(normalise_caption("  T-Rex "), "t rex");
/// assert_eq!(normalise_caption("flag: Côte d’Ivoire"), "flag cote divoire");
/// assert_eq!(normalise_caption("keycap: #"), "keycap number sign");
/// assert_eq!(normalise_caption("?!"), "");
/// ```
pub fn normalise_caption(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for symbol in text.chars().flat_map(char::to_lowercase) {
        match symbol {
            '#' => plain.push_str(" number sign "),
            '*' => plain.push_str(" asterisk "),
            '&' => plain.push_str(" and "),
            '\'' | '’' | '‘' | '`' => {}
            // Accents written as marks of their own, variation selectors and joiners: part of a word, not a
            // gap.
            '\u{300}'..='\u{36F}' | '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}' => {}
            _ => plain.push_str(&without_accent(symbol)),
        }
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Prompts as captions are written.
///
/// # Errors
/// Names one that holds no word.
pub fn normalise_prompts(prompts: &[String]) -> Result<Vec<String>> {
    let plain = |prompt: &String| match normalise_caption(prompt) {
        empty if empty.is_empty() => Err(anyhow!("--prompt {prompt:?}: the prompt holds no word")),
        caption => Ok(caption),
    };
    prompts.iter().map(plain).collect()
}

/// A lower-case letter of Latin-1 without its accent; a space for what is no letter or digit.
fn without_accent(symbol: char) -> String {
    let plain = match symbol {
        'à'..='å' => "a",
        'æ' => "ae",
        'ç' => "c",
        'è'..='ë' => "e",
        'ì'..='ï' => "i",
        'ñ' => "n",
        'ò'..='ö' | 'ø' => "o",
        'ù'..='ü' => "u",
        'ý' | 'ÿ' => "y",
        'ß' => "ss",
        _ if symbol.is_alphanumeric() => return symbol.into(),
        _ => " ",
    };
    plain.into()
}

/// An emoji before its picture is decoded.
#[derive(Clone)]
struct Entry {
    id: usize,
    emoji: &'static emojis::Emoji,
    caption: String,
    asset: &'static PngTwemojiAsset,
}

impl Entry {
    fn load(&self, side: u32) -> Result<Emoji> {
        let picture = on_white(self.asset, side)
            .with_context(|| format!("picture of the emoji {:?} ({})", self.emoji.name(), self.emoji))?;
        Ok(Emoji {
            id: self.id,
            glyph: self.emoji.as_str().into(),
            held_out: combination(&self.caption).is_some_and(|pair| HELD_OUT.contains(&pair)),
            caption: self.caption.clone(),
            group: group(self.emoji.group()).into(),
            picture,
        })
    }
}

/// Every emoji that has a picture, in the order of the crate `emojis`, with captions that are unique.
fn entries() -> Result<Vec<Entry>> {
    let mut seen = HashMap::new();
    let mut entries = Vec::new();
    for emoji in emojis::iter() {
        // Newer emoji have a name but no picture yet.
        let Some(asset) = asset(emoji.as_str()) else { continue };
        let renamed = RENAMED.iter().find(|(name, _)| *name == emoji.name());
        let caption = normalise_caption(renamed.map_or(emoji.name(), |(_, caption)| caption));
        ensure!(!caption.is_empty(), "the emoji {emoji} has no plain word in its name {:?}", emoji.name());
        // Two pictures for one caption would make every score against "the right picture" wrong.
        if let Some(other) = seen.insert(caption.clone(), emoji.name()) {
            bail!("the names {other:?} and {:?} both give the caption {caption:?}", emoji.name());
        }
        entries.push(Entry { id: entries.len(), emoji, caption, asset });
    }
    Ok(entries)
}

/// The picture's file. The two crates disagree on where U+FE0F (draw as a picture) belongs.
fn asset(glyph: &str) -> Option<&'static PngTwemojiAsset> {
    PngTwemojiAsset::from_emoji(glyph).or_else(|| PngTwemojiAsset::from_emoji(&glyph.replace('\u{FE0F}', "")))
}

/// The places of `names` in `entries`, ascending.
fn listed<'a>(entries: &[Entry], names: impl Iterator<Item = &'a str>) -> Result<Vec<usize>> {
    let by_name: HashMap<&str, usize> =
        entries.iter().enumerate().map(|(place, entry)| (entry.emoji.name(), place)).collect();
    let mut places = names
        .map(|name| by_name.get(name).copied().with_context(|| missing(name, by_name.keys().copied())))
        .collect::<Result<Vec<_>>>()?;
    places.sort_unstable();
    if let Some(pair) = places.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("the list of simple emoji names {:?} twice", entries[pair[0]].emoji.name());
    }
    Ok(places)
}

/// Says that a listed name has no picture, and which name is nearest.
fn missing<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    // The smaller name wins a tie, for the same message every time.
    let nearest = known.min_by_key(|other| (strsim::damerau_levenshtein(name, other), *other));
    let hint = nearest.map(|other| format!("; the nearest name is {other:?}")).unwrap_or_default();
    format!("no emoji with a picture is named {name:?}{hint}")
}

/// Decodes a file of any format, lays it on white, resizes it to a square; see the notes at the top of this file.
///
/// # Errors
/// If it is no picture.
pub fn on_white(file: &[u8], side: u32) -> Result<RgbImage> {
    let drawn = image::load_from_memory(file)?.into_rgba8();
    let on_white = RgbImage::from_fn(drawn.width(), drawn.height(), |x, y| {
        let [r, g, b, alpha] = drawn.get_pixel(x, y).0;
        Rgb([r, g, b].map(|value| over_white(value, alpha)))
    });
    Ok(imageops::resize(&on_white, side, side, FilterType::CatmullRom))
}

/// `alpha` x `value` + (1 - `alpha`) x white, rounded.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// Splits a caption such as "light blue heart" into colour and shape.
fn combination(caption: &str) -> Option<(&str, &str)> {
    let (colour, shape) = caption.rsplit_once(' ')?;
    (COLOURS.contains(&colour) && SHAPES.contains(&shape)).then_some((colour, shape))
}

/// The Unicode group in plain words.
fn group(group: emojis::Group) -> &'static str {
    use emojis::Group;
    match group {
        Group::SmileysAndEmotion => "smileys and emotion",
        Group::PeopleAndBody => "people and body",
        Group::AnimalsAndNature => "animals and nature",
        Group::FoodAndDrink => "food and drink",
        Group::TravelAndPlaces => "travel and places",
        Group::Activities => "activities",
        Group::Objects => "objects",
        Group::Symbols => "symbols",
        Group::Flags => "flags",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn set(which: Which) -> EmojiSet {
        EmojiSet::build(which, 32).unwrap()
    }

    fn captions<'a>(emoji: impl Iterator<Item = &'a Emoji>) -> Vec<&'a str> {
        emoji.map(|emoji| emoji.caption.as_str()).collect()
    }

    #[test]
    fn sizes_of_the_sets() {
        for (which, expected) in [(Which::Simple, 247), (Which::All, 1_914)] {
            let set = set(which);
            println!("{which}: {} pictures, {} held out", set.items.len(), set.held_out().count());
            assert_eq!(set.items.len(), expected);
            assert_eq!(set.held_out().count(), HELD_OUT.len());
            assert_eq!(set.trained().count(), expected - HELD_OUT.len());
        }
    }

    #[test]
    fn captions_are_unique_plain_words() {
        let set = set(Which::All);
        let unique: HashSet<&str> = captions(set.items.iter()).into_iter().collect();
        assert_eq!(unique.len(), set.items.len());
        for caption in unique {
            assert_eq!(normalise_caption(caption), caption);
            let plain = |c: char| c == ' ' || c.is_ascii_lowercase() || c.is_ascii_digit();
            assert!(!caption.is_empty() && caption.chars().all(plain), "{caption:?}");
        }
    }

    #[test]
    fn simple_is_a_part_of_all() {
        let (simple, all) = (set(Which::Simple), set(Which::All));
        assert!(all.items.iter().enumerate().all(|(place, emoji)| emoji.id == place));
        for emoji in &simple.items {
            let same = &all.items[emoji.id];
            assert_eq!((&emoji.caption, &emoji.glyph), (&same.caption, &same.glyph));
            assert_eq!((&emoji.picture, emoji.held_out), (&same.picture, same.held_out));
        }
        assert!(simple.items.windows(2).all(|pair| pair[0].id < pair[1].id));
        let short = simple.items.iter().filter(|emoji| emoji.caption.split(' ').count() <= 3).count();
        assert!(short * 20 > simple.items.len() * 19, "{short} of {}", simple.items.len());
    }

    #[test]
    fn held_out_words_occur_in_training() {
        for which in [Which::Simple, Which::All] {
            let set = set(which);
            let mut expected = HELD_OUT.map(|(colour, shape)| format!("{colour} {shape}"));
            let mut found = captions(set.held_out());
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected);
            let trained: Vec<_> = set.trained().filter_map(Emoji::combination).collect();
            for (colour, shape) in HELD_OUT {
                assert!(trained.iter().filter(|(other, _)| *other == colour).count() >= 2, "{colour}");
                assert!(trained.iter().filter(|(_, other)| *other == shape).count() >= 6, "{shape}");
                assert!(HELD_OUT.iter().filter(|(_, other)| *other == shape).count() <= 3, "{shape}");
                assert_eq!(HELD_OUT.iter().filter(|(other, _)| *other == colour).count(), 1, "{colour}");
            }
            println!("{which}: {} combinations trained on, held out: {}", trained.len(), found.join(", "));
        }
    }

    /// The whole set holds no second picture of a held-out combination.
    #[test]
    fn no_picture_gives_a_held_out_one_away() {
        let set = set(Which::All);
        let distance = |a: &Emoji, b: &Emoji| -> f64 {
            let pairs = a.picture.as_raw().iter().zip(b.picture.as_raw());
            pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>() / 3072.0 / 65025.0
        };
        for held in set.held_out() {
            let near = set.trained().min_by(|a, b| distance(held, a).total_cmp(&distance(held, b))).unwrap();
            println!("{}: nearest is {} at {:.4}", held.caption, near.caption, distance(held, near));
            assert!(distance(held, near) > 0.005, "{} looks like {}", held.caption, near.caption);
        }
    }

    #[test]
    fn every_colour_and_shape_occurs() {
        let set = set(Which::Simple);
        let found: Vec<_> = set.items.iter().filter_map(Emoji::combination).collect();
        assert_eq!(found.len(), 12 + 9 + 9);
        assert!(COLOURS.iter().all(|colour| found.contains(&(colour, "heart"))));
        assert_eq!(set.find("Red-Heart!").and_then(Emoji::combination), Some(("red", "heart")));
        assert_eq!(set.find("hollow red circle").and_then(Emoji::combination), None);
        assert!(set.find("mauve heart").is_none());
    }

    #[test]
    fn pictures_are_drawn_on_white() {
        for side in [32, 72] {
            let set = EmojiSet::build(Which::All, side).unwrap();
            for emoji in &set.items {
                let picture = &emoji.picture;
                assert_eq!(picture.dimensions(), (side, side));
                let drawn = picture.pixels().filter(|pixel| pixel.0.iter().any(|v| *v < 240)).count();
                assert!(drawn as u32 * 30 > side * side, "{} has {drawn} pixels", emoji.caption);
            }
            let heart = &set.find("red heart").unwrap().picture;
            let last = side - 1;
            for (x, y) in [(0, 0), (last, 0), (0, last), (last, last)] {
                assert_eq!(heart.get_pixel(x, y).0, [255; 3], "corner {x}, {y} at {side}");
            }
            let red = heart.pixels().filter(|p| p.0[0] > 180 && p.0[1] < 90 && p.0[2] < 110).count();
            assert!(red as u32 * 2 > side * side, "{red} red pixels at {side}");
        }
    }

    #[test]
    fn white_shows_through_by_alpha() {
        assert_eq!([over_white(10, 0), over_white(10, 255), over_white(0, 51)], [255, 10, 204]);
    }

    #[test]
    fn a_missing_or_repeated_name_is_an_error() {
        let entries = entries().unwrap();
        let error = listed(&entries, ["red heart", "rde apple"].into_iter()).unwrap_err().to_string();
        assert_eq!(
            error,
            "no emoji with a picture is named \"rde apple\"; the nearest name is \"red apple\""
        );
        // Named by Unicode, not drawn by Twemoji yet.
        assert!(listed(&entries, ["lighthouse"].into_iter()).is_err());
        let error = listed(&entries, ["fox", "fox"].into_iter()).unwrap_err().to_string();
        assert!(error.contains("\"fox\" twice"), "{error}");
    }

    #[test]
    fn bad_arguments_are_errors() {
        for side in [0, 7, 513, u32::MAX] {
            let error = EmojiSet::build(Which::Simple, side).unwrap_err().to_string();
            assert!(error.contains("from 8 to 512"), "{error}");
        }
        assert!(EmojiSet::build(Which::Simple, 8).is_ok());
        for which in [Which::Simple, Which::All] {
            assert_eq!(which.to_string().parse::<Which>().unwrap(), which);
        }
        let error = "medium".parse::<Which>().unwrap_err().to_string();
        assert!(error.contains("\"medium\"") && error.contains("simple") && error.contains("all"), "{error}");
    }

    #[test]
    fn captions_become_plain_words() {
        for (text, plain) in [
            ("T-Rex", "t rex"),
            ("woman’s hat", "womans hat"),
            ("woman's hat", "womans hat"),
            ("flag: Åland Islands", "flag aland islands"),
            ("São Tomé & Príncipe", "sao tome and principe"),
            ("e\u{301}clair", "eclair"),
            ("keycap: *", "keycap asterisk"),
            ("  red\t\nHEART ", "red heart"),
            ("❤\u{FE0F}", ""),
            ("", ""),
        ] {
            assert_eq!(normalise_caption(text), plain, "{text:?}");
        }
    }
}

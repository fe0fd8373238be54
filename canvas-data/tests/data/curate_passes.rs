//! Each pass that judges image by image, at its bounds and on bad input.

use super::curate_common::{decode, encoded, record};
use super::decode::crc32;
use canvas_data::curate::{
    Alignment, Bound, Characters, Decodes, Field, ImageText, Language, MaxAspect, MaxPixels, MinSide, Pass,
    Score, Scored, Subject, Trouble, Verdict, Words,
};
use canvas_data::{Caption, Fault, Record, reason};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

/// The reason of a drop, or nothing, and the note.
fn said(pass: &impl Pass, record: &Record) -> (Option<String>, Value) {
    match pass.judge(&Subject::new(0, record.clone(), &decode)) {
        Ok(Verdict { dropped, note }) => (dropped.map(|rejection| rejection.reason.into_owned()), note),
        Err(Trouble::Image(fault)) => (Some(fault.reason.into_owned()), Value::Null),
        Err(trouble) => panic!("{trouble}"),
    }
}

fn kept(pass: &impl Pass, record: &Record) -> bool {
    said(pass, record).0.is_none()
}

fn sized(width: u32, height: u32) -> Record {
    record("sized", encoded(&RgbImage::new(width, height), ImageFormat::Png))
}

fn captioned(texts: &[&str]) -> Record {
    let captions = texts.iter().map(|text| Caption::new(*text)).collect();
    Record { captions, ..record("captioned", Vec::new()) }
}

#[test]
fn sizes_are_judged_at_their_bounds() {
    let drop = |reason: &str| Some(reason.to_owned());
    assert_eq!(said(&MinSide(10), &sized(10, 30)), (None, json!([10, 30])));
    assert_eq!(said(&MinSide(10), &sized(30, 9)), (drop(reason::TOO_SMALL), json!([30, 9])));
    assert_eq!(said(&MaxPixels(300), &sized(10, 30)).0, None);
    assert_eq!(said(&MaxPixels(299), &sized(10, 30)).0, drop(reason::TOO_LARGE));
    assert_eq!(said(&MaxAspect(3.0), &sized(10, 30)), (None, json!(3.0)));
    assert_eq!(said(&MaxAspect(3.0), &sized(31, 10)), (drop(reason::ASPECT), json!(3.1)));
}

#[test]
fn what_is_no_image_is_dropped_for_its_own_reason() {
    let whole = encoded(&RgbImage::new(40, 40), ImageFormat::Png);
    let cut = record("cut", whole[..whole.len() - 20].to_vec());
    for pass in [&MinSide(1) as &dyn Pass, &MaxPixels(9999), &MaxAspect(9.0)] {
        for (bytes, expected) in [(vec![], reason::EMPTY), (b"GET / HTTP/1.1".to_vec(), reason::NOT_AN_IMAGE)]
        {
            let Err(Trouble::Image(fault)) = pass.judge(&Subject::new(0, record("bad", bytes), &decode))
            else {
                panic!("{} kept it", pass.name())
            };
            assert_eq!((&*fault.key, &*fault.reason), ("bad", expected));
        }
    }
    let avif = record("avif", b"\0\0\0\x1cftypavif\0\0\0\0mif1".to_vec());
    assert_eq!(said(&MinSide(1), &avif).0.as_deref(), Some(reason::UNSUPPORTED), "as training would say");
    // The header is whole: only who decodes finds it out.
    assert!(kept(&MinSide(40), &cut));
    assert!(!kept(&Decodes, &cut));
    assert!(kept(&Decodes, &record("whole", whole)));
}

#[test]
fn a_header_may_claim_any_size() {
    // 60,000 x 60,000 pixels, 10.8 GB decoded, in a file of 57 bytes: only the header is read.
    let mut png = encoded(&RgbImage::new(1, 1), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let bomb = record("bomb", png);
    assert_eq!(said(&MinSide(1), &bomb).1, json!([60_000, 60_000]));
    assert_eq!(said(&MaxPixels(100_000_000), &bomb).0.as_deref(), Some(reason::TOO_LARGE));
}

#[test]
fn a_picture_is_decoded_once_for_all_passes() {
    let times = std::sync::atomic::AtomicUsize::new(0);
    let counting = |record: &Record| {
        times.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        decode(record)
    };
    let subject = Subject::new(0, sized(4, 4), &counting);
    for _ in 0..3 {
        Decodes.judge(&subject).unwrap();
    }
    assert_eq!(times.into_inner(), 1);
}

#[test]
fn captions_are_counted_and_one_that_fits_is_enough() {
    let words = Words(3..=5);
    let drop = |reason: &str| Some(reason.to_owned());
    assert_eq!(said(&words, &captioned(&["a red  apple"])), (None, json!([3])));
    assert_eq!(
        said(&words, &captioned(&["apple", "a red apple on a table"])),
        (drop("short caption"), json!([1, 6]))
    );
    assert_eq!(said(&words, &captioned(&["apple", "a red apple"])), (None, json!([1, 3])));
    assert_eq!(said(&words, &captioned(&["a b c d e f"])), (drop(reason::LONG_CAPTION), json!([6])));
    assert_eq!(said(&words, &captioned(&[])).0, drop(reason::NO_CAPTION));
    // Characters, not bytes.
    assert_eq!(said(&Characters(3..=3), &captioned(&["äpf"])), (None, json!([3])));
    assert_eq!(said(&Characters(3..=3), &captioned(&["赤い林檎"])), (drop(reason::LONG_CAPTION), json!([4])));
    assert_eq!(said(&Characters(0..=9), &captioned(&[])).0, drop(reason::NO_CAPTION));
}

const SENTENCES: [(&str, &str); 6] = [
    ("eng", "A brown dog is running along the beach while its owner throws a wooden stick into the water."),
    ("deu", "Ein brauner Hund läuft am Strand entlang, während sein Besitzer einen Stock ins Wasser wirft."),
    ("fra", "Un chien brun court le long de la plage pendant que son maître lance un bâton dans l'eau."),
    ("rus", "Коричневая собака бежит по пляжу, пока её хозяин бросает в воду деревянную палку."),
    ("jpn", "飼い主が水の中に木の棒を投げている間、茶色の犬が浜辺を走っています。"),
    ("cmn", "一只棕色的狗沿着海滩奔跑，而它的主人把一根木棍扔进水里。"),
];

#[test]
fn languages_are_told_apart() {
    for (allowed, _) in SENTENCES {
        let pass = Language::only([allowed]).unwrap();
        for (code, sentence) in SENTENCES {
            let (dropped, note) = said(&pass, &captioned(&[sentence]));
            assert_eq!(note[0]["language"], code, "{sentence}");
            assert_eq!(dropped.is_none(), code == allowed, "{allowed} and {note}: {sentence}");
        }
    }
    let two = Language::only(["eng", "jpn"]).unwrap();
    let stays: Vec<&str> = SENTENCES
        .iter()
        .filter(|(_, sentence)| kept(&two, &captioned(&[sentence])))
        .map(|(code, _)| *code)
        .collect();
    assert_eq!(stays, ["eng", "jpn"]);
}

#[test]
fn an_uncertain_language_stays() {
    let pass = Language::only(["eng"]).unwrap();
    let short = captioned(&["red apple"]);
    let (dropped, note) = said(&pass, &short);
    assert!(dropped.is_none() && note[0]["confidence"].as_f64().unwrap() < 0.5, "{note}");
    assert_eq!(kept(&pass.clone().sure(0.0), &short), note[0]["language"] == "eng");
    // Nothing can be told of digits.
    assert_eq!(said(&pass, &captioned(&["12345"])), (None, json!([null])));
    // One of several captions is enough.
    assert!(kept(&pass, &captioned(&[SENTENCES[3].1, SENTENCES[0].1])));
    assert_eq!(said(&pass, &captioned(&[])).0.as_deref(), Some(reason::NO_CAPTION));
}

#[test]
fn an_unknown_language_is_an_error() {
    let error = Language::only(["eng", "english"]).unwrap_err();
    assert_eq!(error.to_string(), "language: expected an ISO 639-3 code such as eng, found \"english\"");
}

fn with_field(value: Value) -> Record {
    let mut record = record("row", Vec::new());
    record.fields.insert("punsafe".into(), value);
    record
}

#[test]
fn fields_are_numbers_within_bounds() {
    let pass = Field::new("punsafe", Bound::AtMost(0.5));
    let drop = |reason: &str| Some(reason.to_owned());
    assert_eq!(said(&pass, &with_field(json!(0.5))), (None, json!(0.5)));
    assert_eq!(said(&pass, &with_field(json!(0.6))), (drop("too high"), json!(0.6)));
    assert_eq!(said(&pass, &with_field(json!(" 0.25 "))), (None, json!(0.25)));
    assert_eq!(said(&pass, &with_field(json!("NaN"))), (drop("not a number"), Value::Null));
    assert_eq!(said(&pass, &with_field(json!([0.1]))), (drop("not a number"), Value::Null));
    for unknown in [with_field(Value::Null), record("row", Vec::new())] {
        assert_eq!(said(&pass, &unknown), (drop("no such field"), Value::Null));
        assert_eq!(said(&pass.clone().keep_unknown(), &unknown), (None, Value::Null));
    }
    let beauty = Field::new("punsafe", Bound::AtLeast(4.5));
    assert_eq!(said(&beauty, &with_field(json!(4.5))), (None, json!(4.5)));
    assert_eq!(said(&beauty, &with_field(json!(4))), (drop("too low"), json!(4.0)));
    let between = Field::new("punsafe", Bound::Within(4.5, 6.5));
    for (value, expected) in [
        (4.4, drop("too low")),
        (4.5, None),
        (6.5, None),
        (6.6, drop("too high")),
        (f64::INFINITY, drop("too high")),
    ] {
        assert_eq!(said(&between, &with_field(json!(value.to_string()))).0, expected, "{value}");
    }
    assert_eq!(Bound::Within(4.5, 6.5).to_string(), "from 4.5 to 6.5");
}

/// The first pixel's red.
struct Red;

impl Score for Red {
    fn name(&self) -> &str {
        "red"
    }

    fn score(&self, pictures: &[&RgbImage]) -> Result<Vec<f64>, Trouble> {
        Ok(pictures.iter().map(|picture| f64::from(picture.get_pixel(0, 0).0[0])).collect())
    }
}

impl ImageText for Red {
    fn name(&self) -> &str {
        "as red as said"
    }

    fn similarity(&self, pairs: &[(&RgbImage, &str)]) -> Result<Vec<f64>, Trouble> {
        assert!(!pairs.is_empty(), "nothing is asked of a model that has nothing to say");
        let said = |(picture, text): &(&RgbImage, &str)| {
            1.0 - (f64::from(picture.get_pixel(0, 0).0[0]) - text.parse::<f64>().unwrap()).abs() / 100.0
        };
        Ok(pairs.iter().map(said).collect())
    }
}

fn red(red: u8, captions: &[&str]) -> Record {
    let image = encoded(&RgbImage::from_pixel(2, 2, Rgb([red, 0, 0])), ImageFormat::Png);
    Record { image, ..captioned(captions) }
}

/// What a pass says of several at once.
fn said_of_all(pass: &impl Pass, records: &[Record]) -> Vec<Result<(bool, Value), Fault>> {
    let subjects: Vec<_> = records.iter().map(|record| Subject::new(0, record.clone(), &decode)).collect();
    let verdicts = pass.judge_all(&subjects.iter().collect::<Vec<_>>());
    let simple = |verdict: Result<Verdict, Trouble>| match verdict {
        Ok(verdict) => Ok((verdict.dropped.is_none(), verdict.note)),
        Err(Trouble::Image(fault)) => Err(fault),
        Err(trouble) => panic!("{trouble}"),
    };
    verdicts.into_iter().map(simple).collect()
}

#[test]
fn scores_go_to_their_images_past_one_that_cannot_be_decoded() {
    let records = [red(10, &[]), record("bad", vec![1, 2, 3]), red(90, &[]), red(40, &[])];
    let mut found = said_of_all(&Scored::new(Red, Bound::AtLeast(40.0)), &records);
    assert_eq!(found.remove(1).unwrap_err().key, "bad");
    assert_eq!(found, [Ok((false, json!(10.0))), Ok((true, json!(90.0))), Ok((true, json!(40.0)))]);
}

#[test]
fn agreement_is_of_any_caption() {
    let records =
        [red(10, &["30", "10"]), record("bad", vec![1]), red(10, &[]), red(10, &["60"]), red(70, &["60"])];
    let pass = Alignment::new(Red, Bound::AtLeast(0.9));
    let mut found = said_of_all(&pass, &records);
    assert_eq!(found.remove(1).unwrap_err().key, "bad");
    assert_eq!(
        found,
        [
            Ok((true, json!([0.8, 1.0]))),
            Ok((false, Value::Null)),
            Ok((false, json!([0.5]))),
            Ok((true, json!([0.9]))),
        ]
    );
}

#[test]
fn pictures_without_captions_agree_with_none() {
    let found = said_of_all(&Alignment::new(Red, Bound::AtLeast(0.9)), &[red(10, &[]), red(20, &[])]);
    assert_eq!(found, [Ok((false, Value::Null)), Ok((false, Value::Null))]);
}

#[test]
fn settings_tell_one_threshold_from_another() {
    let least = Scored::new(Red, Bound::AtLeast(0.1)).settings();
    assert_ne!(least, Scored::new(Red, Bound::AtLeast(0.100_000_000_000_000_02)).settings());
    assert_ne!(least, Scored::new(Red, Bound::AtMost(0.1)).settings());
    let english = Language::only(["eng"]).unwrap();
    assert_ne!(english.settings(), english.clone().sure(0.7).settings());
    assert_ne!(english.settings(), Language::only(["deu"]).unwrap().settings());
}

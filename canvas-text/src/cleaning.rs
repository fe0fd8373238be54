//! Captions, cleaned as those that some models were trained on.

use fancy_regex::Regex;
use percent_encoding::percent_decode_str;
use std::sync::LazyLock;
use tokenizers::normalizers::unicode::{NFC, NFKC};
use tokenizers::{NormalizedString, Normalizer};

/// What is replaced by what, in this order, before texts are repaired.
const BEFORE: [(&str, &str); 20] = [
    ("<person>", "person"),
    // Addresses, and names of people.
    (
        r"\b((?:https?|www):(?:/{1,3}|[a-zA-Z0-9%])|[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@))",
        "",
    ),
    (r"@\w+\b", ""),
    // Chinese characters, their strokes, and what stands among them.
    ("[\u{31c0}-\u{4dbf}]+", ""),
    ("[\u{4dc0}-\u{9fff}]+", ""),
    // Dashes and quotes of every kind.
    (
        "[-\u{58a}\u{5be}\u{1400}\u{1806}\u{2010}-\u{2015}\u{2e17}\u{2e1a}\u{2e3a}\u{2e3b}\u{2e40}\u{301c}\u{3030}\u{30a0}\
         \u{fe31}\u{fe32}\u{fe58}\u{fe63}\u{ff0d}]+",
        "-",
    ),
    ("[`´«»¨]", "\""),
    ("&quot;?", ""),
    ("&amp", ""),
    // Numbers that say nothing: of machines, articles, pictures.
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (r"\S+\.(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)", ""),
    // Punctuation.
    ("[\"']{2,}", "\""),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
    (r"\s+\.\s+", " "),
];

/// And behind.
const BEHIND: [(&str, &str); 17] = [
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    // What shops and servers write.
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (r"\b(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)(\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", "$1 "),
    (r"\s+", " "),
    (r#"^["']([\w\W]+)["']$"#, "$1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
];

fn compiled(table: &[(&str, &'static str)]) -> Vec<(Regex, &'static str)> {
    let pattern = |(pattern, by): &(&str, &'static str)| (Regex::new(pattern).expect("a pattern"), *by);
    table.iter().map(pattern).collect()
}

static RULES: LazyLock<[Vec<(Regex, &'static str)>; 2]> =
    LazyLock::new(|| [compiled(&BEFORE), compiled(&BEHIND)]);

fn replaced(text: String, rules: &[(Regex, &str)]) -> String {
    rules.iter().fold(text, |text, (pattern, by)| pattern.replace_all(&text, *by).into_owned())
}

/// A caption as DeepFloyd's IF cleaned those it was trained on, and after it PRX: in lower case, without addresses, names of
/// files and people, Chinese characters, spam, and most punctuation.
///
/// # Differs from its reference
/// Broken encodings (`cafÃ©`) are not guessed at, as `ftfy` does; of its repairs those of quotes, ligatures, wide letters,
/// control characters and HTML's entities are made.
///
/// # Reference
/// diffusers' `PRXPipeline`, whose answers a test compares; DeepFloyd, IF, 2023, <https://github.com/deep-floyd/IF>.
///
/// # Example
/// ```
/// use canvas_text::clean_caption;
/// assert_eq!(clean_caption("A #Photo of a CAT (see www.cats.org)"), "a photo of a cat see");
/// ```
pub fn clean_caption(caption: &str) -> String {
    let caption = caption.replace('+', " ");
    let text = percent_decode_str(&caption).decode_utf8_lossy().trim().to_lowercase();
    let text = replaced(text, &RULES[0]);
    // Words that are joined by dashes, if there are many.
    let joints = text.matches(['-', '_']).count();
    let text = if joints > 3 { text.replace(['-', '_'], " ") } else { text };
    let text = repaired(&text);
    replaced(text.trim().to_owned(), &RULES[1]).trim().to_owned()
}

/// Entities, quotes, ligatures, wide letters and control characters as plain text.
fn repaired(text: &str) -> String {
    let text = if text.contains('<') { text.to_owned() } else { htmlize::unescape(text).into_owned() };
    let plain = |c: char| match c {
        '\u{2018}'..='\u{201b}' => "'".to_owned(),
        '\u{201c}'..='\u{201f}' => "\"".to_owned(),
        '\u{fb00}'..='\u{fb06}' | '\u{ff01}'..='\u{ffee}' | '\u{3000}' => normalised(&c.to_string(), &NFKC),
        '\u{2028}' | '\u{2029}' | '\u{85}' => "\n".to_owned(),
        _ if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => String::new(),
        _ => c.to_string(),
    };
    let text: String = text.replace("\r\n", "\n").replace('\r', "\n").chars().map(plain).collect();
    let text = normalised(&text, &NFC);
    let once = htmlize::unescape(&text).into_owned();
    htmlize::unescape(&once).into_owned()
}

fn normalised(text: &str, form: &impl Normalizer) -> String {
    let mut text = NormalizedString::from(text);
    form.normalize(&mut text).expect("Unicode's forms do not fail");
    text.get().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_cleaned_as_diffusers_cleans_them() {
        let file = include_str!("../../examples/tests/fixtures/generate_transformers/captions.json");
        let captions: Vec<[String; 4]> = serde_json::from_str(file).unwrap();
        assert!(captions.len() >= 40);
        let wrong: Vec<_> = captions
            .iter()
            .map(|[caption, clean, ..]| (caption, clean, clean_caption(caption)))
            .filter(|(_, clean, found)| *clean != found)
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn texts_are_repaired() {
        assert_eq!(repaired("“a” ‘b’ ﬁne ｆｕｌｌ\r\nx\u{7}y &lt;b&gt;"), "\"a\" 'b' fine full\nxy <b>");
    }
}

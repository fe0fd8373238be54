//! What becomes of a prompt: its ids, warnings and refusals.

use crate::{encode, refusal};
use canvas_core::Tokens;
use canvas_text::{PromptError, special};

#[test]
fn case_spacing_and_unicode_composition_do_not_matter() {
    let expected = encode(&["red piñata"]).tokens;
    for same in ["RED PIÑATA", "  red\tpiñata\n", "red pin\u{303}ata", "red\u{a0}piñata"] {
        assert_eq!(encode(&[same]).tokens, expected, "{same:?}");
    }
}

#[test]
fn an_unknown_word_is_a_warning_with_the_nearest_word() {
    let encoded = encode(&["Haert red haert Haert", "blue"]);
    let shown: Vec<String> = encoded.warnings.iter().map(ToString::to_string).collect();
    let prompt = "\"Haert red haert Haert\"";
    assert_eq!(
        shown,
        [
            format!("unknown word \"Haert\" in {prompt}; nearest: \"heart\""),
            format!("unknown word \"haert\" in {prompt}; nearest: \"heart\""),
        ]
    );
    assert_eq!(encode(&["red zzz"]).warnings[0].nearest, None);
}

#[test]
fn only_unknown_words_are_an_error() {
    let error = refusal("haert qqq");
    assert_eq!(error.to_string(), "no word of the prompt \"haert qqq\" is known; nearest: \"heart\"");
}

#[test]
fn one_token_too_many_is_an_error_that_quotes_the_rest() {
    let fits = "red red red red red heart";
    assert_eq!(encode(&[fits]).tokens.length, 8);
    let error = refusal("red red red red red heart Blue  square");
    assert_eq!(
        error.to_string(),
        "a prompt of 10 tokens (with [start] and [end]) is longer than the context of 8; \
         this part does not fit: \"Blue  square\""
    );
    let one = refusal("red red red red red heart blue");
    assert_eq!(one, PromptError::TooLong { tokens: 9, context: 8, rest: "blue".into() });
}

#[test]
fn the_part_that_does_not_fit_is_right_after_recomposed_letters() {
    let PromptError::TooLong { rest, .. } = refusal("pin\u{303}ata é İ ﬁ red red blue heart") else {
        panic!()
    };
    assert_eq!(rest, "blue heart");
}

#[test]
fn the_empty_prompt_is_start_and_end() {
    for empty in ["", "   ", "\n\t", "\u{3000}"] {
        let encoded = encode(&[empty]);
        assert_eq!(encoded.tokens.ids, [special::START, special::END], "{empty:?}");
        assert!(encoded.warnings.is_empty());
    }
    assert_eq!(encode(&[]).tokens, Tokens { ids: vec![], mask: vec![], length: 0 });
}

#[test]
fn no_prompt_spells_a_special_token() {
    let error = refusal("[end] [pad][unk]");
    assert!(matches!(error, PromptError::TooLong { tokens, .. } if tokens > 8), "{error}");
    let ids = encode(&["red [end]"]).tokens.ids;
    assert_eq!(ids, [special::START, 6, special::UNKNOWN, special::UNKNOWN, special::UNKNOWN, special::END]);
}

#[test]
fn strange_text_is_refused_or_warned_about_and_never_panics() {
    let long = "x".repeat(1_000_000);
    let strange = [
        "❤️",
        "👩‍🚀",
        "红色的心",
        "赤い ハート",
        "éàü",
        "\u{0}\u{7f}",
        "\u{202e}dlrow",
        "???!!!",
        "a\u{301}\u{301}",
        &long,
    ];
    for text in strange {
        let error = refusal(text);
        assert!(matches!(error, PromptError::AllUnknown { .. }), "{text:.20?}: {error}");
        assert!(error.to_string().len() < 1500, "{}", error.to_string().len());
        let encoded = encode(&["red", &format!("red {text}")]);
        assert!(!encoded.warnings.is_empty(), "{text:.20?}");
        for warning in &encoded.warnings {
            let shown = warning.to_string();
            assert!(shown.len() < 1500 && !shown.contains(char::is_control), "{shown}");
        }
    }
    // What cannot be seen is escaped.
    assert!(refusal("\u{200d}").to_string().contains("\\u{200d}"));
    assert!(matches!(refusal(&"红 ".repeat(100_000)), PromptError::TooLong { tokens: 100_002, .. }));
}

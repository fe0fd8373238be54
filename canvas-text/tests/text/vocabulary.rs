//! The words of captions, and their numbers.

use crate::{CAPTIONS, encode, tokenizer};
use canvas_text::{Encoded, WordTokenizer, special};

#[test]
fn is_sorted_by_frequency_then_alphabet() {
    let expected = [
        "blue", "heart", "red", "'", ",", "-", "circle", "e", "large", "mail", "man", "piñata", "s", "shoe",
        "square",
    ];
    assert_eq!(tokenizer().words(), expected);
    assert_eq!(tokenizer().vocabulary(), expected.len() + 4);
}

#[test]
fn does_not_depend_on_the_order_of_captions() {
    let mut reversed = CAPTIONS;
    reversed.reverse();
    let other = WordTokenizer::from_captions(&reversed, 8).unwrap();
    assert_eq!(other.words(), tokenizer().words());
    let prompts = ["red heart", "piñata, large"];
    assert_eq!(other.tokenize(&prompts).unwrap(), encode(&prompts));
}

#[test]
fn special_tokens_have_the_first_ids() {
    let Encoded { tokens, warnings } = encode(&["blue heart", "dragon heart red"]);
    let expected = [special::START, 4, 5, special::END, special::PAD, special::START, special::UNKNOWN, 5, 6];
    assert_eq!(tokens.ids[..9], expected);
    assert_eq!([special::PAD, special::UNKNOWN, special::START, special::END], [0, 1, 2, 3]);
    assert_eq!(tokens.mask, [true, true, true, true, false, true, true, true, true, true]);
    assert_eq!((tokens.length, tokens.batch(), warnings.len()), (5, 2, 1));
}

#[test]
fn needs_words_and_a_context() {
    let error = WordTokenizer::from_captions(&["red"], 2).unwrap_err();
    let message = "a context of 2 tokens holds no word: [start], one word and [end] need 3";
    assert_eq!(error.to_string(), message);
    let error = WordTokenizer::from_captions(&["", " \t"], 8).unwrap_err();
    assert_eq!(error.to_string(), "no word in 2 captions: there is nothing to make a vocabulary of");
    assert!(WordTokenizer::from_captions::<&str>(&[], 8).is_err());
}

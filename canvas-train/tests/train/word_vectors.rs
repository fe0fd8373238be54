use crate::{bits, close, panic_text};
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::LinearConfig;
use burn::optim::GradientsParams;
use burn::prelude::*;
use canvas_core::nn::Activation;
use canvas_core::weights::read_tensors;
use canvas_core::{TextEncoder, Tokens, params};
use canvas_testkit::chirped;
use canvas_text::{ClipText, ClipTextConfig, TextualInversion};
use canvas_train::word_vectors::{WordVectors, mean_length};
use canvas_train::{AdamW, Ema, StepOptions, TrainState};

const TABLE: &str = "text_model.embeddings.token_embedding.weight";
const OPTIONS: StepOptions = StepOptions { rate: 1e-2, clip: f64::INFINITY, ema: Ema::WarmUp { limit: 0.9 } };

fn clip(device: &Device) -> ClipText {
    let config = ClipTextConfig::new(12, 20, 2, 3, Activation::QuickGelu).with_vocabulary(50).with_context(6);
    chirped(params::realise(config.init(device))).no_grad()
}

fn prompt() -> Tokens {
    Tokens { ids: vec![48, 3, 50, 51, 49, 49], mask: vec![true; 6], length: 6 }
}

fn losses(words: &WordVectors, clip: &ClipText) -> Tensor<1> {
    words.apply(clip).encode(&prompt()).tokens.square().mean_dim(2).mean_dim(1).reshape([1])
}

fn rows(clip: &ClipText) -> Vec<Vec<u32>> {
    let (_, table) = bits(clip).into_iter().find(|(name, _)| name == TABLE).unwrap();
    table.chunks(12).map(<[u32]>::to_vec).collect()
}

/// Steps of AdamW, with weight decay: the words move, and no bit of anything else.
#[test]
fn only_the_words_learn() {
    let device = Device::flex().autodiff();
    let clip = clip(&device);
    let words = WordVectors::new(&clip, TABLE, 50, &[7, 9]).unwrap();
    let (before, table) = (bits(&clip), rows(&clip));
    let start = rows(&words.apply(&clip));
    assert_eq!(
        (start.len(), &start[50], &start[51]),
        (52, &table[7], &table[9]),
        "they begin as other words"
    );

    let mut state = TrainState::new(words, AdamW { weight_decay: 0.1, ..AdamW::default() });
    assert_eq!(params::named(&state.model).len(), 1);
    let first = losses(&state.model, &clip).into_scalar::<f64>();
    for _ in 0..5 {
        let losses = losses(&state.model, &clip);
        state.step(losses, &OPTIONS).unwrap();
    }
    assert!(losses(&state.model, &clip).into_scalar::<f64>() < first);
    assert_eq!(bits(&clip), before);
    let told = state.model.apply(&clip);
    let learned = rows(&told);
    assert_eq!(learned[..50], table[..]);
    assert!(learned[50] != table[7] && learned[51] != table[9]);
    let others =
        |clip: &ClipText| bits(clip).into_iter().filter(|(name, _)| name != TABLE).collect::<Vec<_>>();
    assert_eq!(others(&told), others(&clip));
}

/// A word in place of one that is there: its row's alone is the gradient, and that of the whole table is the same there.
#[test]
fn the_gradient_is_that_of_its_rows() {
    let device = Device::flex().autodiff();
    let frozen = clip(&device);
    let trained = chirped(frozen.clone());
    let words = params::realise(WordVectors::new(&frozen, TABLE, 3, &[3]).unwrap());
    let tokens = Tokens { ids: vec![48, 3, 5, 3, 49, 49], mask: vec![true; 6], length: 6 };
    let of = |clip: &ClipText| clip.encode(&tokens).tokens.square().sum();
    let own = GradientsParams::from_grads(of(&words.apply(&frozen)).backward(), &words);
    let own: Vec<f64> = params::named_gradients(&words, &own)[0].data.iter::<f64>().collect();
    let trained = trained.map(&mut Tracked);
    let all = GradientsParams::from_grads(of(&trained).backward(), &trained);
    let all = params::named_gradients(&trained, &all).into_iter().find(|param| param.name == TABLE).unwrap();
    let all: Vec<f64> = all.data.iter::<f64>().collect();
    let largest = own.iter().fold(0.0f64, |most, x| x.abs().max(most));
    assert!(largest > 1e-3);
    own.iter().zip(&all[36..48]).for_each(|(own, all)| close(*own, *all, 1e-5 * largest));
}

struct Tracked;
impl ModuleMapper for Tracked {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value.detach().require_grad())
    }
}

#[test]
fn long_vectors_are_cut_and_others_stay() {
    let device = Device::flex().autodiff();
    let clip = clip(&device);
    let words = params::realise(WordVectors::new(&clip, TABLE, 50, &[7, 9]).unwrap());
    let length = |words: &WordVectors| -> Vec<f64> {
        words.vectors().square().sum_dim(1).sqrt().into_data().iter::<f64>().collect()
    };
    let [a, b] = length(&words)[..] else { panic!("two vectors") };
    let (short, long) = (a.min(b), a.max(b));
    assert!(long > short * 1.001, "{short} {long}");
    let between = (short + long) / 2.0;
    let cut = words.clone().clipped(between);
    length(&cut).iter().zip([a, b]).for_each(|(found, before)| close(*found, before.min(between), 1e-6));
    assert_eq!(cut.vectors().into_data(), cut.clone().clipped(long).vectors().into_data());
    assert!(cut.vectors().is_require_grad(), "it still learns");
    let direction = |words: &WordVectors| {
        let x = words.vectors();
        x.clone() / x.square().sum_dim(1).sqrt()
    };
    close((direction(&cut) - direction(&words)).abs().max().into_scalar::<f64>(), 0.0, 1e-6);
    let table: Vec<f64> =
        params::named(&clip).into_iter().find(|param| param.name == TABLE).unwrap().data.iter().collect();
    let mean = table.chunks(12).map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).sum::<f64>() / 50.0;
    close(mean_length(&clip, TABLE).unwrap(), mean, 1e-5);
}

/// In diffusers' format, one key of `[N, W]`, read by canvas-text's own reader.
#[test]
fn a_saved_word_is_read_back() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let words = WordVectors::new(&clip(&device), TABLE, 50, &[7, 9]).unwrap();
    let path = folder.path().join("learned_embeds.safetensors");
    words.save(&path, "<cat>").unwrap();
    let tensors = read_tensors(&path).unwrap();
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["<cat>"]);
    assert_eq!(tensors["<cat>"], words.vectors().into_data());
    assert_eq!(TextualInversion::open(&path).unwrap().tokens(), ["<cat>"]);
    let nowhere = words.save(&folder.path().join("none/word.safetensors"), "<cat>").unwrap_err().to_string();
    assert!(nowhere.contains("word.safetensors"), "{nowhere}");
}

#[test]
fn what_does_not_fit_is_named() {
    let device = Device::flex().autodiff();
    let clip = clip(&device);
    let says = |table: &str, first: usize, like: &[u32]| {
        WordVectors::new(&clip, table, first, like).unwrap_err().to_string()
    };
    let found = says("token_embedding", 50, &[7]);
    assert!(found.contains("no table token_embedding; embeddings are") && found.contains(TABLE), "{found}");
    assert_eq!(says(TABLE, 50, &[50]), format!("{TABLE} has 50 rows, and none of the id 50 to begin with"));
    assert_eq!(says(TABLE, 51, &[7]), format!("{TABLE} has 50 rows: no word can have the id 51"));
    assert_eq!(says(TABLE, 50, &[]), format!("no vectors of {TABLE} were asked for"));
    let words = WordVectors::new(&clip, TABLE, 50, &[7]).unwrap();
    let wide = ClipTextConfig::new(15, 20, 1, 3, Activation::QuickGelu).with_vocabulary(50).with_context(6);
    let says = panic_text(|| words.apply(&wide.init(&device)));
    assert!(says.contains("vectors of width 12 from row 50") && says.contains("[50, 15]"), "{says}");
    let says = panic_text(|| words.apply(&LinearConfig::new(2, 2).init(&device)));
    assert!(says.contains("words of another"), "{says}");
}

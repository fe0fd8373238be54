//! The report of a run: what it draws, what was measured, how it trained, and of what it was made.

use crate::config::RunConfig;
use crate::emoji_set::EmojiSet;
use crate::finish::{Results, percent};
use crate::report::{self, Report, Section};
use crate::run::Folder;
use crate::run_report;
use anyhow::{Context, Result};
use std::collections::BTreeSet;

fn tables(results: &Results) -> Vec<Section> {
    let row = |name: &str, top1: f64, top5: f64| vec![name.to_owned(), percent(top1), percent(top5)];
    let (found, ceiling) = (&results.retrieval, &results.ceiling);
    let retrieval = Section::Table {
        caption: format!(
            "Retrieval: of {} drawings for trained prompts, how often the right picture is the nearest of {}",
            found.n, found.gallery
        ),
        head: ["", "top-1", "top-5"].map(String::from).to_vec(),
        rows: vec![
            row("this model", found.top1, found.top5),
            row("chance", found.chance_top1, found.chance_top5),
            row("the autoencoder's ceiling", ceiling.top1, ceiling.top5),
        ],
    };
    let composed = &results.composition;
    let mut rows: Vec<Vec<String>> = composed
        .each
        .iter()
        .map(|(caption, colour, shape, n)| {
            vec![caption.clone(), format!("{colour}/{n}"), format!("{shape}/{n}")]
        })
        .collect();
    rows.push(vec!["all".into(), percent(composed.colour), percent(composed.shape)]);
    let composition = Section::Table {
        caption: format!(
            "Composition: drawings of combinations never trained on whose colour and shape are right (both: {})",
            percent(composed.both)
        ),
        head: ["prompt", "colour", "shape"].map(String::from).to_vec(),
        rows,
    };
    vec![retrieval, composition]
}

/// What was trained on, and what was not.
fn data(set: &EmojiSet) -> Section {
    let words = |held_out: bool| {
        let captions =
            set.items.iter().filter(|emoji| emoji.held_out == held_out).map(|emoji| &emoji.caption);
        let words: BTreeSet<String> =
            captions.flat_map(|caption| caption.split_whitespace().map(str::to_lowercase)).collect();
        words.len().to_string()
    };
    let count = |count: usize| count.to_string();
    Section::Table {
        caption: "Twemoji, one caption a picture".into(),
        head: ["", "pictures", "words"].map(String::from).to_vec(),
        rows: vec![
            vec!["trained".into(), count(set.trained().count()), words(false)],
            vec![
                "held out: combinations of a colour and a shape".into(),
                count(set.held_out().count()),
                words(true),
            ],
        ],
    }
}

/// Writes `report.html` from a run's files; `results` are there when it has ended.
///
/// # Errors
/// Names the file that cannot be read or written.
pub fn write_report(
    folder: &Folder,
    config: &RunConfig,
    set: &EmojiSet,
    results: Option<&Results>,
) -> Result<()> {
    let picture = |name: &str, caption: &str| -> Result<Section> {
        let path = folder.0.join(name);
        let png = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(Section::Picture { caption: caption.into(), png })
    };
    let mut sections = vec![Section::Text(format!(
        "A latent diffusion model trained from scratch on {} emoji with their names ({} more are held out): an \
         autoencoder, then a {} with a text encoder ({} prediction). Graphics: Twemoji, (c) Twitter and \
         contributors, CC-BY 4.0.",
        set.trained().count(),
        set.held_out().count(),
        config.backbone,
        config.prediction
    ))];
    if let Some(results) = results {
        sections.push(picture("samples.png", "Drawn for prompts it was trained on")?);
        sections.push(picture("held-out.png", "Drawn for combinations it never saw, beside the real ones")?);
        sections.extend(tables(results));
        sections.push(picture("loss.png", "Losses")?);
    } else {
        sections.push(Section::Text("The run has not ended: this is what its files say so far.".into()));
    }
    sections.extend(run_report::stage(&folder.denoiser(), "denoiser")?);
    sections.extend(run_report::stage(&folder.autoencoder(), "autoencoder")?);
    sections.push(Section::Heading("Data".into()));
    sections.push(data(set));
    sections.extend(run_report::processes(&folder.0)?);
    sections.push(Section::Heading("Configuration".into()));
    sections.push(Section::Code(serde_json::to_string_pretty(config)?));
    let report = Report {
        title: "canvas: emoji from words".into(),
        subtitle: format!("{} on {}, seed {}", config.backbone, config.set, config.seed),
        sections,
    };
    report::write(folder.0.join("report.html"), &report)
}

//! What a picture says of how it was made.

use super::{Defaults, Guidance, Request};
use crate::generate::args::Scales;
use crate::generate::scheduler::Scheduler;
use std::path::PathBuf;

/// Everything that was asked for and that another picture would need to be the same.
pub fn of(
    scheduler: &Scheduler,
    ask: &Request<'_>,
    defaults: &Defaults,
    strength: Option<f64>,
) -> Vec<(&'static str, String)> {
    let args = ask.args;
    let mut lines = vec![format!("model {}", args.model.display())];
    lines.extend(args.vae.as_ref().map(|path| format!("vae {}", path.display())));
    let texts = [
        ("prompt", &args.prompt),
        ("prompt 2", &args.prompt_2),
        ("prompt 3", &args.prompt_3),
        ("negative prompt", &args.negative_prompt),
        ("negative prompt 2", &args.negative_prompt_2),
        ("negative prompt 3", &args.negative_prompt_3),
    ];
    let given = texts.iter().filter(|(_, given)| !given.is_empty());
    lines.extend(given.map(|(name, given)| format!("{name} {}", given.join(" | "))));
    if !args.classes.is_empty() {
        lines.push(format!("classes {:?}", args.classes));
    }
    lines.extend(args.max_sequence_length.map(|length| format!("max sequence length {length}")));
    lines.extend(args.instruction.as_ref().map(|which| format!("instruction {which}")));
    let strength = said("strength", strength);
    lines.extend(args.image.iter().map(|path| format!("image {}{strength}", path.display())));
    lines.extend(args.mask.as_ref().map(|path| format!("mask {}", path.display())));
    let redux = |path: &PathBuf| {
        let Scales(words, pooled) = args.redux_scale.unwrap_or(Scales(1.0, 1.0));
        format!("redux {}, scale {words}:{pooled}", path.display())
    };
    lines.extend(args.redux.as_ref().map(redux));
    let ([height, width], exact) = (ask.size, if args.exact_size { ", exact" } else { "" });
    lines.push(format!("drawn at {height}x{width}{exact}"));
    // In the arguments' words.
    let free = match defaults.guidance {
        Guidance::Free { off, .. } => said("guidance", ask.guidance.map(|scale| scale - 1.0 + off)),
        _ => said("true cfg", ask.guidance),
    };
    let told = said("guidance", ask.told);
    let title = scheduler.title(args.scheduler.as_deref());
    lines.push(format!("sampler {title}, steps {}{told}{free}", ask.steps));
    lines.push(match &args.noise {
        Some(path) => format!("noise {}", path.display()),
        None => format!("seed {}", args.seed.unwrap_or(0)),
    });
    vec![("Software", format!("canvas {}", env!("CARGO_PKG_VERSION"))), ("Description", lines.join("\n"))]
}

fn said(name: &str, number: Option<f64>) -> String {
    number.map_or(String::new(), |number| format!(", {name} {number}"))
}

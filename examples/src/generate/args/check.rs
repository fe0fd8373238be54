//! Which arguments go together, and within which bounds.

use super::Args;
use anyhow::{Result, bail};

/// The most pixels of a side: more than any memory holds, and few enough to reckon with.
const LONGEST: usize = 1 << 20;

impl Args {
    /// An error for what models with a UNet have not got.
    ///
    /// # Errors
    /// Names the argument.
    pub fn check_for_unet(&self) -> Result<()> {
        let third = "no model of the Stable Diffusion family has a third text encoder before version 3";
        let others = [
            ("--prompt-3", !self.prompt_3.is_empty(), third),
            ("--negative-prompt-3", !self.negative_prompt_3.is_empty(), third),
            ("--classes", !self.classes.is_empty(), "this model draws what prompts say: --prompt TEXT"),
            (
                "--max-sequence-length",
                self.max_sequence_length.is_some(),
                "this model's text encoder has one length",
            ),
            ("--true-cfg", self.true_cfg.is_some(), "this model is guided by --guidance"),
            ("--instruction", self.instruction.is_some(), "only Sana has one"),
            ("--exact-size", self.exact_size, "this model draws any size"),
            ("--redux", self.redux.is_some(), "only Flux reads its words"),
            ("--image", self.image.len() > 1, "this model starts from one picture"),
        ];
        match others.iter().find(|(_, given, _)| *given) {
            Some((flag, _, why)) => bail!("{flag}: {why}"),
            None => Ok(()),
        }
    }

    /// # Errors
    /// If a group is incomplete, a number is out of its range, or arguments do not belong together.
    pub fn check(&self) -> Result<()> {
        self.check_prompts()?;
        self.check_groups()?;
        self.check_numbers()?;
        for (flag, path) in [("--out", self.picture()), ("--save-latents", self.save_latents.clone())] {
            let folder =
                path.as_ref().and_then(|path| path.parent()).filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                bail!("{flag}: there is no folder {}", folder.display());
            }
        }
        Ok(())
    }

    /// One for all prompts, or one for each; and without a prompt nothing that is for one.
    fn check_prompts(&self) -> Result<()> {
        let batch = self.prompt.len();
        let others = [
            ("--prompt-2", self.prompt_2.len()),
            ("--prompt-3", self.prompt_3.len()),
            ("--negative-prompt", self.negative_prompt.len()),
            ("--negative-prompt-2", self.negative_prompt_2.len()),
            ("--negative-prompt-3", self.negative_prompt_3.len()),
        ];
        if let Some((flag, found)) = others.iter().find(|(_, found)| *found > 1 && *found != batch) {
            bail!("{flag} is given {found} times for {batch} prompts: expected once, or once for each");
        }
        let numbers = [
            ("--max-sequence-length", self.max_sequence_length.is_some().into()),
            ("--true-cfg", self.true_cfg.is_some().into()),
        ];
        match others.iter().chain(&numbers).find(|(_, found)| batch == 0 && *found > 0) {
            Some((flag, _)) => bail!("{flag} does nothing without --prompt: leave it out"),
            None => Ok(()),
        }
    }

    fn check_groups(&self) -> Result<()> {
        group("--controlnet", self.controlnet.len(), ("--control-image", self.control_image.len(), true))?;
        group("--controlnet", self.controlnet.len(), ("--control-scale", self.control_scale.len(), false))?;
        group("--controlnet", self.controlnet.len(), ("--control-window", self.control_window.len(), false))?;
        group("--t2i-adapter", self.t2i_adapter.len(), ("--adapter-image", self.adapter_image.len(), true))?;
        group("--t2i-adapter", self.t2i_adapter.len(), ("--adapter-scale", self.adapter_scale.len(), false))?;
        group("--ip-adapter", self.ip_adapter.len(), ("--ip-image", self.ip_image.len(), true))?;
        group("--ip-adapter", self.ip_adapter.len(), ("--ip-scale", self.ip_scale.len(), false))
    }

    fn check_numbers(&self) -> Result<()> {
        if let Some(strength) = self.strength {
            if !(0.0..=1.0).contains(&strength) || strength == 0.0 {
                bail!("--strength {strength}: expected more than 0 and at most 1");
            }
            if self.image.is_empty() {
                bail!("--strength needs a picture to start from: --image PNG");
            }
        }
        for (flag, found) in [("--steps", self.steps), ("--max-sequence-length", self.max_sequence_length)] {
            if found == Some(0) {
                bail!("{flag} 0: expected at least 1");
            }
        }
        for (flag, side) in [("--height", self.height), ("--width", self.width)] {
            if let Some(side) = side.filter(|side| !(1..=LONGEST).contains(side)) {
                bail!("{flag} {side}: expected 1 to {LONGEST} pixels");
            }
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            bail!("--guidance-rescale {}: expected 0 to 1", self.guidance_rescale);
        }
        let redux = self.redux_scale.iter().flat_map(|scales| [scales.0, scales.1]);
        let scales = [
            ("--guidance", self.guidance.into_iter().collect()),
            ("--true-cfg", self.true_cfg.into_iter().collect()),
            ("--redux-scale", redux.collect()),
            ("--control-scale", self.control_scale.clone()),
            ("--adapter-scale", self.adapter_scale.clone()),
            ("--ip-scale", self.ip_scale.clone()),
            ("--aesthetic-score", vec![self.aesthetic_score]),
            ("--negative-aesthetic-score", vec![self.negative_aesthetic_score]),
        ];
        for (flag, scales) in scales {
            if let Some(scale) = scales.iter().find(|scale| !scale.is_finite()) {
                bail!("{flag} {scale}: expected a finite number");
            }
        }
        Ok(())
    }
}

/// Members of a group belong to their head by their order.
fn group(head: &str, heads: usize, (flag, found, needed): (&str, usize, bool)) -> Result<()> {
    if found == heads || (found == 0 && !needed) {
        return Ok(());
    }
    let expected = if needed { format!("{heads}") } else { format!("none or {heads}") };
    bail!("{head} is given {heads} times and {flag} {found} times: expected {expected}, in the same order")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn checked(more: &[&str]) -> Result<()> {
        Args::try_parse_from(["generate", "--model", "m", "--prompt", "p"].iter().chain(more))?.check()
    }

    #[test]
    fn groups_and_ranges_are_checked() {
        checked(&[]).unwrap();
        let says = |more: &[&str], words: &str| {
            let text = checked(more).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        };
        says(&["--controlnet", "c"], "--control-image 0 times");
        says(&["--control-image", "c"], "--controlnet is given 0 times");
        says(&["--strength", "0.5"], "--image");
        says(&["--image", "a", "--strength", "1.5"], "1.5");
        says(&["--steps", "0"], "--steps 0");
        says(&["--negative-prompt", "a", "--negative-prompt", "b"], "2 times for 1 prompts");
        says(&["--mask", "a"], "--image");
        says(&["--height", "0"], "--height 0: expected 1 to 1048576");
        says(&["--width", "18446744073709551615"], "--width 18446744073709551615: expected 1 to 1048576");
        says(&["--max-sequence-length", "0"], "--max-sequence-length 0: expected at least 1");
        for (flag, values) in [("--true-cfg", "nan"), ("--guidance", "inf"), ("--aesthetic-score", "inf")] {
            says(&[flag, values], "expected a finite number");
        }
        says(
            &["--image", "a", "--redux", "r", "--redux-scale", "1:nan"],
            "--redux-scale NaN: expected a finite",
        );
    }

    #[test]
    fn without_a_prompt_there_is_nothing_for_one() {
        let redux = ["generate", "--model", "m", "--redux", "r", "--image", "i"];
        let checked = |more: &[&str]| Args::try_parse_from(redux.iter().chain(more)).unwrap().check();
        checked(&["--guidance", "3"]).unwrap();
        let flags =
            ["--prompt-2", "--negative-prompt", "--negative-prompt-2", "--max-sequence-length", "--true-cfg"];
        for flag in flags {
            let error = checked(&[flag, "2"]).unwrap_err().to_string();
            assert_eq!(error, format!("{flag} does nothing without --prompt: leave it out"));
            checked(&[flag, "2", "--prompt", "a cat"]).unwrap();
        }
    }
}

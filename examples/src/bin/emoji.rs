//! Trains a text-to-image latent diffusion model on emoji and their names, and draws with it.

use anyhow::Result;
use canvas_examples::config::RunConfig;
use canvas_examples::model::AnyBackbone;
use canvas_examples::run::{self, Folder};
use std::path::PathBuf;
fn main() -> Result<()> {
    let mut config = RunConfig::standard("emoji");
    for a in std::env::args().skip(1) {
        let (k, v) = a.split_once('=').unwrap();
        match k {
            "smoke" => config = RunConfig::smoke("emoji"),
            "bb" => config.backbone = v.into(),
            "pred" => config.prediction = v.into(),
            "set" => config.set = v.into(),
            "n1" => config.first.images = v.parse()?,
            "n2" => config.second.images = v.parse()?,
            "b1" => config.first.batch = v.parse()?,
            "b2" => config.second.batch = v.parse()?,
            "r1" => config.first.peak_rate = v.parse()?,
            "r2" => config.second.peak_rate = v.parse()?,
            "out" => {}
            _ => panic!("{k}"),
        }
    }
    let out = std::env::args()
        .find_map(|a| a.strip_prefix("out=").map(PathBuf::from))
        .unwrap_or("/tmp/runs/x".into());
    let device = canvas_examples::device::open("flex")?;
    let folder = Folder::create(&Folder::fresh(&out), &config)?;
    let name = config.backbone.clone();
    run::run(&folder, &config, |sizes, device| AnyBackbone::new(&name, sizes, device), &device)?;
    Ok(())
}

//! Choosing devices by name, with errors that say what to build and what was found.

use crate::config::{RunConfig, StageConfig};
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_train::Exchange;

/// Devices that share the steps of a stage, all of one kind.
#[derive(Clone, Debug)]
pub struct Devices {
    /// Where the training state is, and all that is done between steps.
    pub first: Device,
    /// The others.
    pub further: Vec<Device>,
    /// How gradients meet: NCCL's way on CUDA devices.
    pub exchange: Exchange,
}

impl From<Device> for Devices {
    /// One alone.
    fn from(first: Device) -> Self {
        Self { first, further: Vec::new(), exchange: Exchange::Copies }
    }
}

impl Devices {
    /// Opens a list such as `cuda:0,cuda:1`. The CPU may be in it more than once, to try out what several devices do.
    ///
    /// # Errors
    /// As [`open`]; and if a GPU is in it twice, or devices of two kinds are.
    pub fn open(names: &str) -> Result<Self> {
        // First what is wrong with the list on any machine.
        let names_of = || names.split(',').map(str::trim);
        let places: Vec<(&str, &str)> =
            names_of().map(|name| name.split_once(':').unwrap_or((name, "0"))).collect();
        let kind = places[0].0;
        if let Some((other, _)) = places.iter().find(|(other, _)| *other != kind) {
            bail!(
                "--devices {names}: {kind:?} and {other:?} are not of one kind, and steps are shared by such"
            );
        }
        let twice = |n: &usize| places[..*n].contains(&places[*n]);
        if let Some(n) = (0..places.len()).find(twice).filter(|_| kind != "flex") {
            bail!("--devices {names}: {kind}:{} is there twice", places[n].1);
        }
        let open = |name: &str| open(name).with_context(|| format!("--devices {names}"));
        let mut opened = names_of().map(open).collect::<Result<Vec<_>>>()?;
        let exchange = match kind {
            "cuda" if opened.len() > 1 => Exchange::AllReduce,
            _ => Exchange::Copies,
        };
        let first = opened.remove(0);
        Ok(Self { first, further: opened, exchange })
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        1 + self.further.len()
    }

    /// Whether a run's denoiser can be trained on them.
    ///
    /// # Errors
    /// If not: says which argument is at fault.
    pub fn fit(&self, config: &RunConfig) -> Result<()> {
        config.second.precision.check(&self.first).context("--precision")?;
        self.share("denoiser", &config.second).context("--devices")
    }

    /// Whether all steps of a stage can be shared out evenly.
    ///
    /// # Errors
    /// If not: says of how many images.
    pub fn share(&self, stage: &str, config: &StageConfig) -> Result<()> {
        let count = self.count();
        let last = config.images % config.batch as u64;
        for (step, images) in [("a step", config.batch as u64), ("the last step", last)] {
            if images > 0 && (count as u64) > images {
                bail!("{stage}: {step} has {images} images, for {count} devices");
            }
            if !images.is_multiple_of(count as u64) {
                bail!(
                    "{stage}: the {images} images of {step} cannot be shared out evenly among {count} devices"
                );
            }
        }
        Ok(())
    }
}

/// Opens `flex` (the CPU), `wgpu`, `wgpu:1`, `cuda` or `cuda:1`, without gradient tracking. The CPU's memory is
/// [kept](canvas_core::memory::keep_pages).
///
/// # Errors
/// For an unknown name, a backend that is not compiled in (says which feature to build), and a device that is
/// not there (says what was found).
pub fn open(name: &str) -> Result<Device> {
    let (kind, index) = match name.split_once(':') {
        None => (name, 0),
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, index),
            Err(_) => bail!("--device {name}: {index:?} is not a device number"),
        },
    };
    match kind {
        "flex" => flex(index),
        "wgpu" => wgpu(index),
        "cuda" => cuda(index),
        _ => bail!("--device {name}: unknown device; there are flex (the CPU), wgpu[:N] and cuda[:N]"),
    }
}

/// Whether a device is the CPU, which does what it is told at once.
pub fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return device.clone().inner() == Device::flex();
    #[cfg(not(feature = "flex"))]
    return [device].is_empty(); // there is none in this program
}

#[cfg(feature = "flex")]
fn flex(index: usize) -> Result<Device> {
    if index > 0 {
        bail!("--device flex:{index}: there is one CPU device, flex");
    }
    canvas_core::memory::keep_pages();
    Ok(Device::flex())
}

#[cfg(not(feature = "flex"))]
fn flex(_index: usize) -> Result<Device> {
    not_built("flex")
}

#[cfg(feature = "wgpu")]
fn wgpu(index: usize) -> Result<Device> {
    nth("wgpu", burn::tensor::DeviceType::Wgpu, index)
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_index: usize) -> Result<Device> {
    not_built("wgpu")
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device> {
    nth("cuda", burn::tensor::DeviceType::Cuda, index)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<Device> {
    not_built("cuda")
}

/// The device of this number among those found. Found, not assumed: Burn hands out a CUDA device on a machine
/// without one, and fails at the first operation.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn nth(kind: &str, filter: burn::tensor::DeviceType, index: usize) -> Result<Device> {
    let found: Vec<Device> = Device::enumerate(filter).into_iter().collect();
    match found.get(index) {
        Some(device) => Ok(device.clone()),
        None if found.is_empty() => {
            bail!("--device {kind}: no {kind} device was found; --device flex runs on the CPU")
        }
        None => bail!("--device {kind}:{index}: found {} {kind} devices: {found:?}", found.len()),
    }
}

#[cfg(not(all(feature = "flex", feature = "wgpu", feature = "cuda")))]
fn not_built(kind: &str) -> Result<Device> {
    let built = [
        ("flex", cfg!(feature = "flex")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("cuda", cfg!(feature = "cuda")),
    ];
    let built: Vec<&str> = built.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    bail!(
        "--device {kind}: this program was built without {kind} (it has: {}); build it with \
         `cargo run --release -p canvas-examples --features {kind} --bin emoji`",
        built.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::{Devices, open};
    use crate::config::RunConfig;
    use canvas_train::Exchange;

    #[test]
    fn a_list_of_devices_is_of_one_kind() {
        let devices = Devices::open("flex,flex, flex").unwrap();
        assert_eq!((devices.count(), devices.exchange), (3, Exchange::Copies));
        assert_eq!(Devices::open("flex").unwrap().count(), 1);
        let text = |names: &str| format!("{:#}", Devices::open(names).unwrap_err());
        for mixed in ["flex,gpu", "cuda:0,flex", "wgpu,cuda", "flex,", "cuda:1,wgpu:0"] {
            assert!(text(mixed).contains("are not of one kind"), "{}", text(mixed));
        }
        assert_eq!(text("cuda,cuda:1,cuda:0"), "--devices cuda,cuda:1,cuda:0: cuda:0 is there twice");
        assert!(text("flex,flex:1").contains("there is one CPU device"));
        assert!(text("gpu:0,gpu:1").contains("--devices gpu:0,gpu:1: --device gpu:0: unknown device"));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn several_gpus_need_a_program_that_knows_them() {
        let text = format!("{:#}", Devices::open("cuda:0,cuda:1").unwrap_err());
        assert!(text.contains("built without cuda") && text.contains("--features cuda"), "{text}");
    }

    #[test]
    fn steps_are_shared_out_evenly_or_not_at_all() {
        let says = |count: usize, images, batch| {
            let mut config = RunConfig::smoke("emoji").second;
            (config.images, config.batch) = (images, batch);
            let devices = Devices::open(&vec!["flex"; count].join(",")).unwrap();
            devices.share("denoiser", &config).err().map(|error| error.to_string())
        };
        assert_eq!(says(1, 389, 16), None);
        assert_eq!(says(4, 392, 16), None);
        let text = says(3, 384, 16).unwrap();
        assert_eq!(text, "denoiser: the 16 images of a step cannot be shared out evenly among 3 devices");
        assert_eq!(says(3, 384, 2).unwrap(), "denoiser: a step has 2 images, for 3 devices");
        let text = says(4, 390, 16).unwrap();
        assert_eq!(
            text,
            "denoiser: the 6 images of the last step cannot be shared out evenly among 4 devices"
        );
    }

    #[test]
    fn a_wrong_name_says_what_there_is() {
        let text = open("gpu").unwrap_err().to_string();
        assert!(text.contains("gpu") && text.contains("flex") && text.contains("cuda"), "{text}");
        assert!(open("cuda:x").unwrap_err().to_string().contains("\"x\""));
        assert!(open("flex:1").unwrap_err().to_string().contains("one CPU device"));
        open("flex").unwrap();
    }

    #[cfg(not(feature = "wgpu"))]
    #[test]
    fn a_missing_backend_says_what_to_build() {
        let text = open("wgpu").unwrap_err().to_string();
        assert!(text.contains("--features wgpu") && text.contains("it has: flex"), "{text}");
    }
}

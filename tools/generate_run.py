"""Runs a case of `generate_cases` through diffusers, in f32 and in f64, with the draws of `generate_replay`."""

import contextlib
import json
import sys
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

import generate_cases as cases
import generate_inputs as inputs
import generate_transformer_cases as transformer_cases
import generate_transformer_run as transformer_run
from generate_replay import SINGLE, Draws, Stream, double, mark_masked, replayed, single, text_model_of_itself

diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)


def pipeline_class(options: dict) -> type:
    """The pipeline that serves these options."""
    xl = options["model"].removeprefix("wide_").startswith(("sdxl", "refiner"))
    task = "Inpaint" if "mask" in options else "Img2Img" if "image" in options else ""
    middle = "ControlNet" if "control" in options else ""
    if "t2i" in options:
        return diffusers.StableDiffusionXLAdapterPipeline if xl else diffusers.StableDiffusionAdapterPipeline
    return getattr(diffusers, f"StableDiffusion{'XL' if xl else ''}{middle}{task}Pipeline")


def load(root: Path, options: dict):
    """The pipeline with its adapters, in f32."""
    parts = {}
    if "control" in options:
        nets = [diffusers.ControlNetModel.from_pretrained(root / "adapters" / net) for net, *_ in options["control"]]
        parts["controlnet"] = nets[0] if len(nets) == 1 else nets
    if "t2i" in options:
        parts["adapter"] = diffusers.T2IAdapter.from_pretrained(root / "adapters" / options["t2i"][0])
    if "vae" in options:
        parts["vae"] = diffusers.AutoencoderTiny.from_pretrained(root / "adapters" / options["vae"])
    if "ip" in options:
        parts["image_encoder"] = CLIPVisionModelWithProjection.from_pretrained(root / "adapters" / "image_encoder")
        parts["feature_extractor"] = CLIPImageProcessor.from_pretrained(root / "adapters" / "feature_extractor")
    folder = str(root / "models" / options["model"])
    if "single" in options:
        file = str(root / "single" / f"{options['single']}.safetensors")
        pipe = pipeline_class(options).from_single_file(file, config=folder, **parts)
    else:
        pipe = pipeline_class(options).from_pretrained(folder, **parts)
    pipe.set_progress_bar_config(disable=True)
    if "ip" in options:
        files = [f"{file}.safetensors" for file, *_ in options["ip"]]
        pipe.load_ip_adapter(str(root / "adapters"), subfolder="", weight_name=files, image_encoder_folder=None)
        pipe.set_ip_adapter_scale([scale for *_, scale in options["ip"]])
    load_text_adapters(pipe, root / "adapters", options)
    return pipe


def load_text_adapters(pipe, folder: Path, options: dict) -> None:
    """LoRAs and textual inversions."""
    for file, _ in options.get("lora", []):
        pipe.load_lora_weights(str(folder), weight_name=f"{file}.safetensors", adapter_name=file)
    if "lora" in options:
        pipe.set_adapters([file for file, _ in options["lora"]], [weight for _, weight in options["lora"]])
    for file, token in options.get("embedding", []):
        if file != "inversion_xl":
            pipe.load_textual_inversion(str(folder), weight_name=f"{file}.safetensors", token=token)
            continue
        state = load_file(folder / f"{file}.safetensors")
        pipe.load_textual_inversion(state["clip_l"], token=token, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
        pipe.load_textual_inversion(state["clip_g"], token=token, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)


def arguments(options: dict) -> dict:
    """What the pipeline is called with."""
    count = len(options["prompt"])
    call = {"prompt": options["prompt"], "num_inference_steps": options["steps"], "guidance_scale": options["guidance"]}
    same = {"rescale": "guidance_rescale", "clip_skip": "clip_skip", "strength": "strength", "prompt_2": "prompt_2"}
    same |= {"original_size": "original_size", "target_size": "target_size", "crop": "crops_coords_top_left"}
    same |= {f"negative_{key}": f"negative_{value}" for key, value in list(same.items())[-3:]}
    call |= {value: options[key] for key, value in same.items() if key in options}
    for key in ("negative", "negative_2"):
        if key in options:
            call[key.replace("negative", "negative_prompt")] = [options[key]] * count
    if options.get("size"):
        call |= {"height": options["size"][0], "width": options["size"][1]}
    if "seed" in options:
        call["generator"] = [torch.Generator().manual_seed(options["seed"] + k) for k in range(count)]
    return call | pictures(options)


def pictures(options: dict) -> dict:
    """The pictures among a pipeline's arguments, which each pipeline names differently."""
    call = {}
    if "image" in options:
        call["image"] = inputs.picture(options["image"])
    if "mask" in options:
        call["mask_image"] = inputs.picture(options["mask"])
    one = lambda values: values[0] if len(values) == 1 else list(values)
    if "control" in options:
        _, images, scales, windows = zip(*options["control"])
        call["control_image" if "image" in options else "image"] = one([inputs.picture(image) for image in images])
        call["controlnet_conditioning_scale"] = one(scales)
        call["control_guidance_start"] = one([start for start, _ in windows])
        call["control_guidance_end"] = one([end for _, end in windows])
    if "t2i" in options:
        _, image, scale = options["t2i"]
        call |= {"image": [inputs.picture(image)] * len(options["prompt"]), "adapter_conditioning_scale": scale}
    if "ip" in options:
        call["ip_adapter_image"] = [inputs.picture(image) for _, image, _ in options["ip"]]
    return call


def scheduler_folder(root: Path, options: dict) -> Path:
    """Where the case's scheduler lies; `write_scheduler` makes it."""
    return root / "schedulers" / f"{options['model']}-{options['scheduler']}"


def write_scheduler(root: Path, options: dict) -> None:
    """The changed class's file, made as `Class.from_config(model's config, changes)` makes it."""
    name, changes = (cases.SCHEDULERS | cases.V_ONLY)[options["scheduler"]]
    base = json.loads((root / "models" / options["model"] / "scheduler" / "scheduler_config.json").read_text())
    base.pop("_class_name")
    scheduler_folder(root, options).mkdir(parents=True, exist_ok=True)
    getattr(diffusers, name).from_config(base, **changes).save_config(scheduler_folder(root, options))


def run(root: Path, options: dict):
    """One run in the precision of the surroundings: the latents, the draws, the pictures."""
    with contextlib.ExitStack() as stack:
        real = torch.get_default_dtype()
        with single():
            pipe = load(root, options)
        pipe = pipe.to(real)
        if "scheduler" in options:
            folder = scheduler_folder(root, options)
            config = json.loads((folder / "scheduler_config.json").read_text())
            pipe.scheduler = getattr(diffusers, config["_class_name"]).from_pretrained(folder)
        else:
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        draws = Draws("noise" if "image" in options else "latents", options.get("posterior", False))
        draws = Stream() if "seed" in options else draws
        mark_masked(pipe, draws)
        stack.enter_context(replayed(draws))
        stack.enter_context(text_model_of_itself())
        stack.enter_context(torch.no_grad())
        latents = pipe(**arguments(options), output_type="latent").images
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return latents, draws.tensors(), pipe.image_processor.postprocess(decoded)


def deviation(a: torch.Tensor, b: torch.Tensor) -> float:
    """`max |a - b| / max |b|`."""
    a, b = a.to(torch.float64), b.to(torch.float64)
    return float((a - b).abs().max() / b.abs().max())


def record(root: Path, name: str) -> dict:
    """Runs a case of either kind twice; answers what `case.json` holds, and writes the rest."""
    transformer = name in transformer_cases.CASES
    cased, runner = (transformer_cases, transformer_run) if transformer else (cases, sys.modules[__name__])
    options = cased.defaults(cased.CASES[name]) | {"name": name}
    folder = root / "cases" / name
    folder.mkdir(parents=True, exist_ok=True)
    if "scheduler" in options:
        runner.write_scheduler(root, options)
    latents, noise, drawn = runner.run(root, options)
    for i, image in enumerate(drawn):
        image.save(folder / f"picture-{i}.png")
    with double():
        exact, *_ = runner.run(root, options)
    if "mask" in options and not options["model"].endswith(("_inpaint", "_fill")):
        noise.pop("posterior_masked", None)
    written = {"name": name, "model": options["model"], "generate_args": cased.arguments(name)}
    written["diffusers"] = runner.recorded(options | {"root": root})
    written["noise"] = {key: list(value.shape) for key, value in noise.items()}
    written["f32_against_f64"] = deviation(latents, exact)
    written["largest"] = float(latents.abs().max())
    write_tensors(folder, noise, latents, exact)
    return written


def recorded(options: dict) -> dict:
    """What `case.json` says of the call."""
    call = {key: value for key, value in arguments(options).items() if isinstance(value, (str, int, float, list, tuple))}
    call = {key: value for key, value in call.items() if "image" not in key and key != "generator"}
    return {"pipeline": pipeline_class(options).__name__, "call": call}


def write_tensors(folder: Path, noise: dict, latents: torch.Tensor, exact: torch.Tensor) -> None:
    """The draws and the answers of both precisions."""
    if noise:
        save_file({key: value.contiguous() for key, value in noise.items()}, folder / "noise.safetensors")
    save_file({"latents": latents.to(SINGLE).contiguous()}, folder / "expected.safetensors")
    save_file({"latents": exact.to(torch.float64).contiguous()}, folder / "exact.safetensors")


def write_case(root: Path, name: str) -> dict:
    """Runs the case and writes its folder; answers what `case.json` holds."""
    written = record(root, name)
    path = root / "cases" / name / "case.json"
    path.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return written

"""Runs a case of `generate_cases` through diffusers, in f32 and in f64, with every random draw replayed.

What diffusers draws, and where a case's `noise.safetensors` holds it:

    latents           text-to-image: `randn_tensor` of the pipeline's `prepare_latents`, before `init_noise_sigma`
    noise             image-to-image and inpainting: the same place; at strength 1 inpainting starts from it alone
    step_noise        [draws, B, C, h, w]: `randn_tensor` of the schedulers, in order (LCM, DDPM, ancestral, SDE, ...)
    posterior         [1, C, h, w]: the autoencoder's sample of the picture. Drawn BEFORE `noise`
    posterior_masked  [1, C, h, w]: of the masked picture (inpainting with 9 channels). Drawn AFTER `noise`

A posterior without its key is its mean (a zero draw). diffusers itself always samples there, so a picture's latents
depend on the generator even where nothing else does; the cases `*-posterior` have the keys. An autoencoder without
posterior (AutoencoderTiny) draws nothing. Inpainting with 4 channels encodes the masked picture too, and draws
for it, and never uses it: that draw is not recorded. `DPMSolverSDEScheduler` takes Brownian noise from torchsde; here
its k-th call is the k-th `step_noise`, combined as canvas-sched/tests/fixtures/README.md says.
"""

import contextlib
import importlib
import json
import math
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPVisionModelWithProjection

import generate_cases as cases
import generate_inputs as inputs

diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)


class Draws:
    """The draws of one run, made on demand: what was asked for is what `noise.safetensors` will hold."""

    def __init__(self, start: str, posterior: bool):
        self.start, self.posterior = start, posterior
        self.masked = False  # whether the picture that is being encoded is the masked one
        self.steps, self.found, self.last = [], {}, None

    def __call__(self, place: str, shape) -> torch.Tensor:
        """The answer of `randn_tensor` in the module `place`."""
        shape = tuple(shape)
        if ".schedulers." in place:
            return self.step(shape)
        if ".autoencoders." not in place:
            return self.named(self.start, shape)
        key = "posterior_masked" if self.masked else "posterior"
        return self.named(key, shape) if self.posterior else torch.zeros(shape)

    def named(self, key: str, shape) -> torch.Tensor:
        assert key not in self.found, f"{key} is drawn twice"
        self.found[key] = torch.from_numpy(inputs.noise(key, shape))
        return self.found[key]

    def step(self, shape) -> torch.Tensor:
        """The next of the schedulers' draws. The formula runs on over all of them, in the order of the file."""
        whole = inputs.noise("step_noise", (len(self.steps) + 1, *shape))
        self.steps.append(torch.from_numpy(whole[-1]))
        return self.steps[-1]

    def tensors(self) -> dict:
        """What the file holds."""
        return self.found | ({"step_noise": torch.stack(self.steps)} if self.steps else {})


class Stream:
    """The draws of `generator=torch.Generator().manual_seed(seed)`: f32 in both precisions, posteriors included."""

    def __init__(self, seed: int):
        self.generator, self.masked = torch.Generator().manual_seed(seed), False

    def __call__(self, _place: str, shape) -> torch.Tensor:
        return torch.randn(tuple(shape), generator=self.generator, dtype=SINGLE)

    def step(self, shape) -> torch.Tensor:
        raise NotImplementedError("torchsde's Brownian tree has a seed of its own")

    def tensors(self) -> dict:
        return {}


class Brownian:
    """diffusers' Brownian tree over sigma, from the run's draws: a second interval from the same start shares a path."""

    draws = None

    def __init__(self, x, *_, **__):
        self.shape, self.last = x.shape, None

    def __call__(self, sigma, sigma_next):
        start, end = float(sigma), float(sigma_next)
        z = Brownian.draws.step(tuple(self.shape)).to(torch.get_default_dtype())
        if self.last is not None and self.last[0] == start:
            share = abs(self.last[1] - start) / abs(end - start)
            assert share <= 1, "the second interval is shorter than the first"
            z = math.sqrt(share) * self.last[2] + math.sqrt(1 - share) * z
        self.last = (start, end, z)
        return z


@contextlib.contextmanager
def replayed(draws: Draws):
    """Every `randn_tensor` of diffusers asks `draws`."""
    undo = []
    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.") and "randn_tensor" in vars(module):
            undo.append((module, "randn_tensor", module.randn_tensor))
            module.randn_tensor = lambda shape, *_, name=name, dtype=None, **__: draws(name, shape).to(
                dtype or torch.get_default_dtype()
            )
    sde = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
    undo.append((sde, "BrownianTreeNoiseSampler", sde.BrownianTreeNoiseSampler))
    sde.BrownianTreeNoiseSampler, Brownian.draws = Brownian, draws
    try:
        yield
    finally:
        for module, attribute, value in undo:
            setattr(module, attribute, value)


@contextlib.contextmanager
def text_model_of_itself():
    """Lets diffusers 0.42.1 find the last norm where transformers 5 has put it, or `clip_skip` raises."""
    CLIPTextModel.text_model = property(lambda encoder: encoder)
    try:
        yield
    finally:
        del CLIPTextModel.text_model


@contextlib.contextmanager
def double():
    """Replaces the names of f32 by f64's, which is what diffusers' sources and transformers' mention."""
    kept = torch.float32, torch.float, np.float32, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    np.float32, torch.Tensor.float = np.float64, torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.float, np.float32, torch.Tensor.float = kept
        torch.set_default_dtype(torch.float32)


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
        pipe = load_single(root, options).to(real)
        if "scheduler" in options:
            folder = scheduler_folder(root, options)
            config = json.loads((folder / "scheduler_config.json").read_text())
            pipe.scheduler = getattr(diffusers, config["_class_name"]).from_pretrained(folder)
        else:
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        draws = Draws("noise" if "image" in options else "latents", options.get("posterior", False))
        draws = Stream(options["seed"]) if "seed" in options else draws
        mark_masked(pipe, draws)
        stack.enter_context(replayed(draws))
        stack.enter_context(text_model_of_itself())
        stack.enter_context(torch.no_grad())
        latents = pipe(**arguments(options), output_type="latent").images
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return latents, draws.tensors(), pipe.image_processor.postprocess(decoded)


def load_single(root: Path, options: dict):
    """`load` with f32's own names, whatever the surroundings replaced."""
    names = torch.float32, torch.float, np.float32, torch.Tensor.float
    torch.float32 = torch.float = SINGLE
    np.float32, torch.Tensor.float = NUMPY_SINGLE, TO_SINGLE
    torch.set_default_dtype(SINGLE)
    try:
        return load(root, options)
    finally:
        torch.float32, torch.float, np.float32, torch.Tensor.float = names
        torch.set_default_dtype(names[0])


SINGLE, NUMPY_SINGLE, TO_SINGLE = torch.float32, np.float32, torch.Tensor.float


def mark_masked(pipe, draws: Draws) -> None:
    """Tells the draws when the masked picture is encoded."""
    if not hasattr(pipe, "prepare_mask_latents"):
        return
    inner = pipe.prepare_mask_latents

    def outer(*args, **kwargs):
        draws.masked = True
        try:
            return inner(*args, **kwargs)
        finally:
            draws.masked = False

    pipe.prepare_mask_latents = outer


def deviation(a: torch.Tensor, b: torch.Tensor) -> float:
    """`max |a - b| / max |b|`."""
    a, b = a.to(torch.float64), b.to(torch.float64)
    return float((a - b).abs().max() / b.abs().max())


def write_case(root: Path, name: str) -> dict:
    """Runs the case twice and writes its folder; answers what `case.json` holds."""
    options = cases.defaults(cases.CASES[name])
    folder = root / "cases" / name
    folder.mkdir(parents=True, exist_ok=True)
    if "scheduler" in options:
        write_scheduler(root, options)
    latents, noise, drawn = run(root, options)
    for i, image in enumerate(drawn):
        image.save(folder / f"picture-{i}.png")
    with double():
        exact, *_ = run(root, options)
    if "mask" in options and not options["model"].endswith("_inpaint"):
        noise.pop("posterior_masked", None)
    written = {"name": name, "model": options["model"], "generate_args": cases.arguments(name)}
    call = {key: value for key, value in arguments(options).items() if isinstance(value, (str, int, float, list, tuple))}
    call = {key: value for key, value in call.items() if "image" not in key}
    written["diffusers"] = {"pipeline": pipeline_class(options).__name__, "call": call}
    written["noise"] = {key: list(value.shape) for key, value in noise.items()}
    written["f32_against_f64"] = deviation(latents, exact)
    written["largest"] = float(latents.abs().max())
    if noise:
        save_file({key: value.contiguous() for key, value in noise.items()}, folder / "noise.safetensors")
    save_file({"latents": latents.to(SINGLE).contiguous()}, folder / "expected.safetensors")
    save_file({"latents": exact.to(torch.float64).contiguous()}, folder / "exact.safetensors")
    (folder / "case.json").write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return written

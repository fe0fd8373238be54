"""Runs a case of `generate_transformer_cases` through diffusers, in f32 and in f64, with the draws of `generate_replay`.

The latents are the last state of the scheduler, unpacked to the shape in which they are drawn; the picture is the pipeline's.
Beside them lies trace.safetensors: what the transformer is given and answers in its first calls (two for guidance in two calls), as
`CALL.NAME`, packed as the pipeline has it, `timesteps` and `sigmas`. It says where a program goes astray.
"""

import contextlib
import json
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors.torch import save_file

import generate_inputs as inputs
import generate_transformer_cases as cases
from generate_replay import SINGLE, Draws, Stream, mark_masked, replayed, single

transformers.logging.set_verbosity_error()


def pipeline_class(options: dict) -> type:
    """The class of the model's index, or the one that starts from a picture."""
    kind = DiffusionPipeline.load_config
    name = kind(options["root"] / "models" / options["model"])["_class_name"]
    if "image" in options and "redux" not in options and "mask" not in options:
        name = name.replace("Pipeline", "Img2ImgPipeline")
    return getattr(diffusers, name)


def load(options: dict):
    """The pipeline in f32; a processor that wants torchvision is replaced by its tokenizer."""
    folder = options["root"] / "models" / options["model"]
    processor = (folder / "tokenizer" / "processor_config.json").exists()
    index = json.loads((folder / "model_index.json").read_text())
    absent = [key for key, value in index.items() if value == [None, None]]  # has to be said twice, or diffusers refuses
    absent += ["tokenizer"] if processor else []
    pipe = pipeline_class(options).from_pretrained(str(folder), **dict.fromkeys(absent))
    if processor:
        pipe.register_modules(tokenizer=transformers.AutoTokenizer.from_pretrained(folder / "tokenizer"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def arguments(options: dict) -> dict:
    """What the pipeline is called with, but for pictures."""
    if "classes" in options:
        call, count = {"class_labels": options["classes"]}, len(options["classes"])
    else:
        # A copy: Z-Image puts its template around the prompts in the caller's own list.
        call, count = {"prompt": list(options["prompt"])}, max(len(options["prompt"]), 1)
    call["num_inference_steps"] = options["steps"]
    length = "tokenizer_max_length" if options["model"] == "prx" else "max_sequence_length"
    same = {"guidance": "guidance_scale", "true_cfg": "true_cfg_scale", "max_length": length, "clip_skip": "clip_skip"}
    same |= {"strength": "strength", "prompt_2": "prompt_2", "prompt_3": "prompt_3"}
    call |= {value: options[key] for key, value in same.items() if key in options}
    for key in ("negative", "negative_2", "negative_3"):
        if key in options:
            # PixArt and others repeat one string themselves and refuse lists; SD3 and Flux want the prompt's type.
            call[key.replace("negative", "negative_prompt")] = [options[key]] * count
    if options.get("size"):
        call |= {"height": options["size"][0], "width": options["size"][1]}
    if options["model"].startswith("pixart"):
        call["clean_caption"] = False  # what its default comes to where bs4 and ftfy are not installed
    if options.get("exact_size"):
        call["use_resolution_binning"] = False
    if options.get("instruction") == "none":
        call["complex_human_instruction"] = None
    if "seed" in options:
        call["generator"] = [torch.Generator().manual_seed(options["seed"] + k) for k in range(count)]
        call["generator"] = call["generator"][0] if count == 1 else call["generator"]
    return call


def pictures(options: dict) -> dict:
    """The pictures among a pipeline's arguments."""
    call = {}
    if "image" in options and "redux" not in options:
        call["image"] = inputs.picture(options["image"])
    if "mask" in options:
        call["mask_image"] = inputs.picture(options["mask"])
    if "references" in options:
        found = [inputs.picture(name) for name in options["references"]]
        call["image"] = found[0] if len(found) == 1 else found
    return call


def redux(pipe, options: dict) -> dict:
    """What `FluxPriorReduxPipeline` makes of the picture and the prompt, in place of the prompt.

    Without a prompt its text encoders are none, and it puts zeros of the published widths; here of the model's.
    """
    real = torch.get_default_dtype()
    borrowed = {}
    if options["prompt"]:
        borrowed = {key: getattr(pipe, key) for key in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")}
    with single():
        prior = diffusers.FluxPriorReduxPipeline.from_pretrained(options["root"] / "models" / options["redux"])
    prior = prior.to(real)
    prior.register_modules(**borrowed)
    picture = inputs.picture(options["image"])
    if options["prompt"]:
        scales = options.get("redux_scale", (1.0, 1.0))
        found = prior(picture, prompt=options["prompt"], prompt_embeds_scale=scales[0], pooled_prompt_embeds_scale=scales[1])
        return {"prompt": None, "prompt_embeds": found.prompt_embeds, "pooled_prompt_embeds": found.pooled_prompt_embeds}
    seen = prior.image_embedder(prior.encode_image(picture, "cpu", 1)).image_embeds
    zeros = torch.zeros(1, 512, pipe.transformer.config.joint_attention_dim)
    pooled = torch.zeros(1, pipe.transformer.config.pooled_projection_dim)
    return {"prompt": None, "prompt_embeds": torch.cat([zeros, seen], 1), "pooled_prompt_embeds": pooled}


def write_scheduler(root: Path, options: dict) -> None:
    """The scheduler's file: of its own, or the changed class of the model's configuration."""
    name, config, over = cases.SCHEDULERS[options["scheduler"]]
    folder = root / "schedulers" / f"{options['model']}-{options['scheduler']}"
    if over:
        base = json.loads((root / "models" / options["model"] / "scheduler" / "scheduler_config.json").read_text())
        config = {key: value for key, value in base.items() if key != "_class_name"} | config
    folder.mkdir(parents=True, exist_ok=True)
    getattr(diffusers, name).from_config(config).save_config(folder)


def set_scheduler(pipe, options: dict) -> None:
    """The case's scheduler, made anew in the precision of the surroundings."""
    kind, config = type(pipe.scheduler), pipe.scheduler.config
    if "scheduler" in options:
        folder = options["root"] / "schedulers" / f"{options['model']}-{options['scheduler']}"
        config = json.loads((folder / "scheduler_config.json").read_text())
        kind = getattr(diffusers, config["_class_name"])
    pipe.scheduler = kind.from_config(config)


@contextlib.contextmanager
def last_state(pipe, found: list):
    """Puts what the scheduler's last step answers into `found`."""
    inner = pipe.scheduler.step

    def step(*args, **kwargs):
        answer = inner(*args, **kwargs)
        found[:] = [answer[0]]
        return answer

    pipe.scheduler.step = step
    yield
    del pipe.scheduler.step


def leaves(value, name: str) -> dict:
    """The tensors among an argument, lists and dictionaries included."""
    if isinstance(value, torch.Tensor):
        return {name: value.detach().clone().contiguous()}
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else []
    return {key: leaf for k, one in inner for key, leaf in leaves(one, f"{name}.{k}").items()}


@contextlib.contextmanager
def traced(pipe, found: dict):
    """Puts what the transformer's first two calls are given and answer into `found`."""
    inner, calls = pipe.transformer.forward, []

    def forward(*args, **kwargs):
        answer = inner(*args, **kwargs)
        if len(calls) < 2:
            named = dict(enumerate(args)) | kwargs | {"answer": answer[0]}
            found.update(leaves(named, str(len(calls))))
        calls.append(None)
        return answer

    pipe.transformer.forward = forward
    yield
    del pipe.transformer.forward


def write_trace(folder: Path, pipe, trace: dict) -> None:
    """The trace, and the scheduler's own lists."""
    lists = {key: getattr(pipe.scheduler, key, None) for key in ("timesteps", "sigmas")}
    trace = trace | {key: value.contiguous() for key, value in lists.items() if value is not None}
    save_file(trace, folder / "trace.safetensors")


def unpacked(latents: torch.Tensor, shape) -> torch.Tensor:
    """The shape in which the noise is drawn, of tokens: Flux.2's are whole, others' channels of 2x2 latents."""
    if latents.ndim == 4:
        return latents[: shape[0]]  # DiT steps both halves of guidance
    b, c, h, w = shape
    if latents.shape[-1] == c:
        return latents.transpose(1, 2).reshape(shape)
    tokens = latents.reshape(b, h // 2, w // 2, c, 2, 2)
    return tokens.permute(0, 3, 1, 4, 2, 5).reshape(shape)


def four_axes(tensor: torch.Tensor) -> torch.Tensor:
    """Qwen-Image draws one frame, before the channels."""
    return tensor[:, 0] if tensor.ndim == 5 else tensor


class Shapes(Stream):
    """PyTorch's streams, which remember the shape of what a pipeline draws."""

    def __call__(self, place: str, shape, generator) -> torch.Tensor:
        drawn = super().__call__(place, shape, generator)
        if ".pipelines." in place:
            self.drawn = four_axes(drawn)
        return drawn


def run(root: Path, options: dict):
    """One run in the precision of the surroundings: the latents, the draws, the pictures."""
    options = options | {"root": root}
    real = torch.get_default_dtype()
    with single():
        pipe = load(options)
    pipe = pipe.to(real)
    set_scheduler(pipe, options)
    start, found = "noise" if "image" in options and "redux" not in options else "latents", []
    draws = Shapes() if "seed" in options else Draws(start, options.get("posterior", False), len(options["classes"]) if "classes" in options else None)
    mark_masked(pipe, draws)
    call, trace = arguments(options) | pictures(options), {}
    with replayed(draws), torch.no_grad(), last_state(pipe, found), traced(pipe, trace):
        call |= redux(pipe, options) if "redux" in options else {}
        images = pipe(**call, output_type="pil").images
    if real == SINGLE:
        write_trace(root / "cases" / options["name"], pipe, trace)
    shape = draws.drawn.shape if "seed" in options else four_axes(draws.found[start]).shape
    noise = {key: four_axes(value) if key == start else value for key, value in draws.tensors().items()}
    return unpacked(found[0], shape), noise, images


def recorded(options: dict) -> dict:
    """What `case.json` says of the call."""
    call = {key: value for key, value in arguments(options).items() if key != "generator"}
    return {"pipeline": pipeline_class(options).__name__, "call": call}

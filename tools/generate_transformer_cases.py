"""The cases of transformer pipelines, in the words of `generate_cases`: a model of `generate_transformers` and options.

What is left out is the pipeline's own default, but for the steps (4) and the size. More options than there: `classes` (DiT),
`max_length`, `true_cfg`, `prompt_2`, `prompt_3`, `instruction` ("none": without Sana's), `exact_size` (no bins of sizes), `redux`
(its folder; `image` is what it sees, `redux_scale` the two scales), `references` (what Flux.2 and Kontext see).
"""

PROMPT = "a photo of a cat in the snow"
PROMPTS = ["a painting of a red house", "Dark forest, river; 3 cats & dogs!"]
LONG = "a detailed oil painting of a river and a mountain, " * 50
CASES = {}
SIZE = (40, 56)


def case(name: str, model: str, **options) -> None:
    """Adds a case; the model is a folder of `models`."""
    assert name not in CASES, name
    CASES[name] = {"model": model, "steps": 4} | options


def dit() -> None:
    case("dit-plain", "dit", classes=[207])
    case("dit-two-classes", "dit", classes=[207, 88], guidance=1.5, steps=5)
    case("dit-guidance-1", "dit", classes=[360], guidance=1.0)
    case("dit-dpmpp-2m", "dit", classes=[207, 360], scheduler="dpmpp-2m", steps=6)
    case("dit-ddpm", "dit", classes=[207], scheduler="ddpm")


def pixart() -> None:
    exact = {"size": (64, 96), "exact_size": True}
    case("pixart-alpha-plain", "pixart_alpha", size=None)
    case("pixart-alpha-binned", "pixart_alpha", size=(240, 336))
    case("pixart-alpha-exact", "pixart_alpha", **exact)
    case("pixart-alpha-two-prompts", "pixart_alpha", prompt=PROMPTS, negative="blurry, low quality", **exact)
    case("pixart-alpha-guidance-1", "pixart_alpha", guidance=1.0, **exact)
    case("pixart-alpha-max-length", "pixart_alpha", prompt=[LONG], max_length=9, **exact)
    case("pixart-alpha-1024", "pixart_alpha_1024", size=(784, 1000), steps=3, prompt=PROMPTS)
    case("pixart-sigma-plain", "pixart_sigma", size=(520, 380), steps=3)
    case("pixart-sigma-long", "pixart_sigma", prompt=[LONG], negative="ugly", **exact)
    case("pixart-sigma-ddim", "pixart_sigma", scheduler="ddim", prompt=PROMPTS, **exact)


def sd3() -> None:
    for model in ("sd3", "sd35", "sd3_no_t5"):
        name = model.replace("_", "-")
        case(f"{name}-plain", model, size=SIZE)
        case(f"{name}-two-prompts", model, size=SIZE, prompt=PROMPTS, negative="blurry, low quality")
    case("sd3-default-size", "sd3", size=None)
    case("sd3-guidance-1", "sd3", size=SIZE, guidance=1.0)
    others = {"prompt_2": ["a portrait of a dog"], "prompt_3": ["night sky, snow"], "negative": "ugly", "negative_2": "tree"}
    case("sd3-prompts-2-3", "sd3", size=SIZE, **others)
    case("sd3-negative-3", "sd3", size=SIZE, negative_3="tree")
    case("sd3-max-length", "sd3", size=SIZE, prompt=[LONG], max_length=12)
    case("sd3-max-length-512", "sd3", size=SIZE, prompt=[LONG], max_length=512)
    for skip in (0, 1):
        case(f"sd3-clip-skip-{skip}", "sd3", size=SIZE, clip_skip=skip, negative="ugly")
    case("sd3-heun", "sd3", size=SIZE, scheduler="flow-heun", steps=3)
    case("sd3-dynamic", "sd3", size=SIZE, scheduler="flow-dynamic")
    case("sd3-tall", "sd35", size=(56, 40), steps=7)
    for strength in (0.35, 0.6, 1.0):
        case(f"sd3-image-{strength}", "sd3", size=SIZE, image="photo", strength=strength, steps=7)
    case("sd35-image-two-prompts", "sd35", size=SIZE, image="photo_odd", strength=0.6, prompt=PROMPTS, negative="ugly")
    case("sd3-image-default-size", "sd3", size=None, image="photo", strength=0.5)
    case("sd3-image-posterior", "sd3", size=SIZE, image="photo", strength=0.6, posterior=True)


def flux() -> None:
    size = {"size": SIZE}
    case("flux-plain", "flux", **size)
    case("flux-two-prompts", "flux", prompt=PROMPTS, **size)
    case("flux-guidance", "flux", guidance=7.5, **size)
    case("flux-true-cfg", "flux", true_cfg=3.0, negative="blurry, low quality", **size)
    case("flux-true-cfg-two-prompts", "flux", true_cfg=2.0, negative="ugly", negative_2="night sky", prompt=PROMPTS, **size)
    case("flux-true-cfg-without-negative", "flux", true_cfg=3.0, **size)
    case("flux-prompt-2", "flux", prompt_2=["a portrait of a dog"], **size)
    case("flux-max-length", "flux", prompt=[LONG], max_length=20, **size)
    case("flux-long-prompt", "flux", prompt=[LONG], **size)
    case("flux-tall", "flux", size=(60, 36), steps=6)
    case("flux-dpmpp-2m", "flux", scheduler="flow-dpmpp-2m", **size)
    case("flux-beta", "flux", scheduler="flow-beta", **size)
    case("flux-schnell-plain", "flux_schnell", guidance=0.0, max_length=256, **size)
    case("flux-schnell-two-prompts", "flux_schnell", guidance=0.0, max_length=256, prompt=PROMPTS, **size)
    for strength in (0.35, 0.8, 1.0):
        case(f"flux-image-{strength}", "flux", image="photo", strength=strength, steps=7, **size)
    case("flux-image-true-cfg", "flux", image="photo_odd", strength=0.6, true_cfg=2.0, negative="ugly", prompt=PROMPTS, **size)
    case("flux-image-posterior", "flux", image="photo", strength=0.6, posterior=True, **size)
    case("flux-fill-plain", "flux_fill", image="photo", mask="mask_hard", **size)
    case("flux-fill-strength", "flux_fill", image="photo_odd", mask="mask_odd", strength=0.7, prompt=PROMPTS, **size)
    case("flux-fill-soft", "flux_fill", image="photo", mask="mask_soft", guidance=3.5, posterior=True, **size)
    case("flux-kontext-plain", "flux_kontext", references=["photo_big"], steps=3)
    case("flux-kontext-wide", "flux_kontext", references=["photo_wide"], size=(512, 1024), steps=3)
    case("flux-kontext-true-cfg", "flux_kontext", references=["photo_big"], prompt=PROMPTS, true_cfg=2.0, negative="ugly", steps=3)
    case("flux-kontext-no-image", "flux_kontext", steps=3)
    case("flux-redux", "flux", redux="redux", image="style", prompt=[PROMPT], **size)
    case("flux-redux-scale", "flux", redux="redux", image="style_b", prompt=[PROMPT], redux_scale=(0.6, 1.3), **size)
    case("flux-redux-no-prompt", "flux", redux="redux", image="style", prompt=[], **size)


def auraflow_chroma() -> None:
    for model in ("auraflow", "chroma"):
        case(f"{model}-plain", model, size=SIZE)
        case(f"{model}-two-prompts", model, size=SIZE, prompt=PROMPTS, negative="blurry, low quality")
        case(f"{model}-guidance-1", model, size=SIZE, guidance=1.0)
        case(f"{model}-max-length", model, size=SIZE, prompt=[LONG], max_length=11)
        case(f"{model}-tall", model, size=(60, 36), steps=6)
    case("auraflow-heun", "auraflow", size=SIZE, scheduler="flow-heun", steps=3)
    case("chroma-beta", "chroma", size=SIZE, scheduler="flow-beta")


def lumina_z_image() -> None:
    size = {"size": (64, 96)}
    case("lumina2-plain", "lumina2", **size)
    case("lumina2-two-prompts", "lumina2", prompt=PROMPTS, negative="blurry, low quality", **size)
    case("lumina2-guidance-1", "lumina2", guidance=1.0, **size)
    case("lumina2-dynamic", "lumina2", scheduler="flow-dynamic", **size)
    case("lumina2-max-length", "lumina2", prompt=[LONG], max_length=60, **size)
    case("lumina2-default-size", "lumina2", size=None)
    case("z-image-plain", "z_image", size=SIZE)
    case("z-image-two-prompts", "z_image", size=SIZE, prompt=PROMPTS, negative="blurry, low quality", guidance=3.0)
    case("z-image-guidance-0", "z_image", size=SIZE, guidance=0.0)
    case("z-image-guidance-1", "z_image", size=SIZE, guidance=1.0)
    case("z-image-max-length", "z_image", size=SIZE, prompt=[LONG], max_length=40)
    case("z-image-long-prompt", "z_image", size=SIZE, prompt=[LONG, "a cat"], guidance=0.0)
    case("z-image-dynamic", "z_image", size=(60, 36), scheduler="flow-dynamic", steps=6)


def qwen_image() -> None:
    size = {"size": (48, 72)}
    case("qwen-image-plain", "qwen_image", **size)
    case("qwen-image-negative", "qwen_image", negative="blurry, low quality", **size)
    case("qwen-image-two-prompts", "qwen_image", prompt=PROMPTS, negative=" ", **size)
    case("qwen-image-true-cfg", "qwen_image", negative="ugly", true_cfg=2.5, **size)
    case("qwen-image-true-cfg-1", "qwen_image", negative="ugly", true_cfg=1.0, **size)
    case("qwen-image-max-length", "qwen_image", prompt=[LONG], max_length=40, negative="ugly", **size)
    case("qwen-image-long-prompt", "qwen_image", prompt=[LONG, "a cat"], **size)
    case("qwen-image-tall", "qwen_image", size=(80, 32), steps=6)


def sana() -> None:
    exact = {"size": (96, 160), "exact_size": True}
    case("sana-plain", "sana", size=(512, 512), steps=3)
    case("sana-binned", "sana", size=(480, 736), steps=3)
    case("sana-exact", "sana", **exact)
    case("sana-two-prompts", "sana", prompt=PROMPTS, negative="blurry, low quality", **exact)
    case("sana-no-instruction", "sana", prompt=PROMPTS, instruction="none", **exact)
    case("sana-guidance-1", "sana", guidance=1.0, **exact)
    case("sana-max-length", "sana", prompt=[LONG], max_length=30, **exact)
    case("sana-euler", "sana", scheduler="flow-euler", **exact)
    case("sana-dynamic-plain", "sana_dynamic", **exact)


def flux2() -> None:
    size = {"size": SIZE}
    for name in ("flux2", "flux2_klein"):
        shown = name.replace("_", "-")
        case(f"{shown}-plain", name, **size)
        case(f"{shown}-two-prompts", name, prompt=PROMPTS, **size)
        case(f"{shown}-guidance-1", name, guidance=1.0, **size)
        case(f"{shown}-max-length", name, prompt=[LONG], max_length=140, **size)
        case(f"{shown}-few-pads", name, prompt=PROMPTS, max_length=130, **size)
        case(f"{shown}-image", name, references=["photo_large"], steps=3)
        case(f"{shown}-two-images", name, references=["photo_large", "photo_wide"], prompt=PROMPTS, steps=3, **size)
    case("flux2-tall", "flux2", size=(60, 36), steps=9)
    case("flux2-klein-distilled", "flux2_klein_distilled", **size)


def prx() -> None:
    exact = {"size": (64, 96), "exact_size": True}
    case("prx-plain", "prx", size=None, steps=3)
    case("prx-binned", "prx", size=(240, 336), steps=3)
    case("prx-exact", "prx", **exact)
    case("prx-negative", "prx", negative="blurry, low quality", **exact)
    # With guidance diffusers fails for two prompts: it tells the time of two rows, not four.
    case("prx-two-prompts-guidance-1", "prx", prompt=PROMPTS, guidance=1.0, **exact)
    case("prx-guidance-1", "prx", guidance=1.0, **exact)
    case("prx-max-length", "prx", prompt=[LONG], max_length=12, **exact)
    case("prx-cleaned", "prx", prompt=['A "Photo" of cats & dogs.jpg (large), 3x4 http://www.a.com/b  @me #12 -- no-1!'], **exact)


STRANGE = "naïve CAFÉ 😀 <b>&amp;</b>  <|endoftext|> a\tdog </s> (red:1.2)\n漢字 ﬁ½ <bos> <|im_end|>  [INST]"


def edges() -> None:
    """Strange characters for each tokenizer, no prompt, one step, thirty steps."""
    wide = {"pixart_alpha": (64, 96), "pixart_sigma": (64, 96), "lumina2": (64, 96), "qwen_image": (48, 72), "prx": (64, 96)}
    for model in ("pixart_alpha", "pixart_sigma", "flux", "auraflow", "lumina2", "z_image", "qwen_image", "flux2", "prx"):
        exact = {"exact_size": True} if model.startswith(("pixart", "prx")) else {}
        name = model.replace("_", "-")
        case(f"{name}-strange-characters", model, prompt=[STRANGE], size=wide.get(model, SIZE), **exact)
        case(f"{name}-empty-prompt", model, prompt=[""], size=wide.get(model, SIZE), **exact)
    # Qwen-Image's one step is NaN: the stretch to the terminal sigma divides zero by zero.
    for model in ("sd3", "flux_schnell", "z_image", "flux2"):
        case(f"{model.replace('_', '-')}-one-step", model, size=wide.get(model, SIZE), steps=1)
    for model in ("sd35", "flux", "z_image", "qwen_image", "flux2_klein"):
        case(f"{model.replace('_', '-')}-thirty", model, size=wide.get(model, SIZE), steps=30)


def seeds() -> None:
    """PyTorch's own streams, of seed + k for picture k."""
    case("seed-dit", "dit", classes=[207, 88], seed=7)
    case("seed-sd3-image", "sd3", size=SIZE, image="photo", strength=0.6, seed=7)
    case("seed-flux-two-prompts", "flux", size=SIZE, prompt=PROMPTS, seed=0)
    case("seed-flux-fill", "flux_fill", size=SIZE, image="photo", mask="mask_hard", strength=0.7, seed=7)
    case("seed-qwen-image", "qwen_image", size=(48, 72), prompt=PROMPTS, seed=3)
    case("seed-flux2", "flux2", size=SIZE, prompt=PROMPTS, seed=11)


# name: (class, configuration, whether it is laid over the model's own)
FLOW = {"num_train_timesteps": 1000}
DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
FLOW_DPM = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "use_dynamic_shifting": True}
FLOW_DPM |= {"time_shift_type": "exponential", "solver_order": 2}
SCHEDULERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}, True),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}, True),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}, True),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", FLOW | {"shift": 3.0}, False),
    "flow-dynamic": ("FlowMatchEulerDiscreteScheduler", FLOW | DYNAMIC, False),
    "flow-beta": ("FlowMatchEulerDiscreteScheduler", FLOW | DYNAMIC | {"use_beta_sigmas": True}, False),
    "flow-heun": ("FlowMatchHeunDiscreteScheduler", FLOW | {"shift": 3.0}, False),
    "flow-dpmpp-2m": ("DPMSolverMultistepScheduler", FLOW_DPM, False),
}

FLAGS = {"negative": "--negative-prompt", "negative_2": "--negative-prompt-2", "negative_3": "--negative-prompt-3"}
FLAGS |= {"steps": "--steps", "guidance": "--guidance", "true_cfg": "--true-cfg", "max_length": "--max-sequence-length"}
FLAGS |= {"clip_skip": "--clip-skip", "strength": "--strength", "instruction": "--instruction"}


def defaults(options: dict) -> dict:
    """The options with the prompt, if the case says none."""
    return options if "classes" in options else {"prompt": [PROMPT]} | options


def arguments(name: str) -> list:
    """The command line of `generate` but for `--save-latents`, with paths relative to the folder of cases."""
    options = defaults(CASES[name])
    line = ["--model", f"models/{options['model']}"]
    if "scheduler" in options:
        line += ["--scheduler", f"schedulers/{options['model']}-{options['scheduler']}"]
    for key in ("prompt", "prompt_2", "prompt_3"):
        for prompt in options.get(key, []):
            line += [f"--{key.replace('_', '-')}", prompt]
    if "classes" in options:
        line += ["--classes", ",".join(map(str, options["classes"]))]
    for key, flag in FLAGS.items():
        if key in options:
            line += [flag, str(options[key])]
    if options.get("size"):
        line += ["--height", str(options["size"][0]), "--width", str(options["size"][1])]
    line += ["--exact-size"] if options.get("exact_size") else []
    if "redux" in options:
        line += ["--redux", f"models/{options['redux']}"]
    if "redux_scale" in options:
        line += ["--redux-scale", "{}:{}".format(*options["redux_scale"])]
    for key in ("image", "mask"):
        if key in options:
            line += [f"--{key}", f"pictures/{options[key]}.png"]
    for picture in options.get("references", []):
        line += ["--image", f"pictures/{picture}.png"]
    return line + (["--seed", str(options["seed"])] if "seed" in options else ["--noise", f"cases/{name}/noise.safetensors"])


for section in (dit, pixart, sd3, flux, auraflow_chroma, lumina_z_image, qwen_image, sana, flux2, prx, edges, seeds):
    section()

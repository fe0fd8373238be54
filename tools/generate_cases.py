"""The cases on which the program `generate` is compared with diffusers: what is asked for, in `generate`'s words.

`CASES` maps a name to its options; `arguments` writes them as a command line, `generate_run.call` as a call of a pipeline.
A case without `prompt` has PROMPT, without `size` 40x56 pixels, without `steps` 5, without `guidance` 7.5 (5 for SDXL).
"""

PROMPT = "a photo of a cat in the snow"
PROMPTS = ["a painting of a red house", "Dark forest, river; 3 cats & dogs!"]
LONG = "a detailed oil painting of a river and a mountain, " * 9
CASES = {}


def case(name: str, model: str, **options) -> None:
    """Adds a case; the model is a folder of `models`."""
    assert name not in CASES, name
    CASES[name] = {"model": model} | options


def text_to_image() -> None:
    """The model's own scheduler, prompts, guidance, sizes."""
    case("sd1-plain", "sd1")
    case("sd1-fifty-steps", "sd1", steps=50)
    case("sd1-one-step", "sd1", steps=1)
    case("sd1-two-prompts", "sd1", prompt=PROMPTS)
    case("sd1-negative", "sd1", negative="blurry, low quality")
    case("sd1-negative-two-prompts", "sd1", prompt=PROMPTS, negative="ugly")
    case("sd1-negative-empty", "sd1", negative="")
    case("sd1-empty-prompt", "sd1", prompt=[""], negative="a dog")
    case("sd1-long-prompt", "sd1", prompt=[LONG])
    case("sd1-long-negative", "sd1", negative=LONG)
    case("sd1-exactly-77", "sd1", prompt=["cat " * 75])
    case("sd1-78", "sd1", prompt=["cat " * 76 + "dog"])
    case("sd1-strange-characters", "sd1", prompt=["naïve CAFÉ 😀 <b>&amp;</b>  <|endoftext|> a\tdog (red:1.2) 漢字"])
    case("sd1-guidance-1", "sd1", guidance=1.0)
    case("sd1-guidance-half", "sd1", guidance=0.5, negative="ugly")
    case("sd1-guidance-1.01", "sd1", guidance=1.01)
    case("sd1-guidance-12", "sd1", guidance=12.0)
    case("sd1-rescale", "sd1", rescale=0.7, prompt=PROMPTS)
    for skip in (0, 1, 2):
        case(f"sd1-clip-skip-{skip}", "sd1", clip_skip=skip, negative="ugly")
    case("sd1-clip-skip-1-guidance-1", "sd1", clip_skip=1, guidance=1.0)
    case("sd1-default-size", "sd1", size=None)
    case("sd1-odd-latents", "sd1", size=(24, 72))
    case("sd1-tall", "sd1", size=(72, 40))
    case("sd1-one-row", "sd1", size=(8, 64))
    case("sd1-dated-scheduler", "sd1_dated")
    case("sd1-dated-scheduler-image", "sd1_dated", image="photo", strength=0.6)
    dated = {"image": "photo", "mask": "mask_hard", "strength": 0.6}
    case("sd1-dated-scheduler-inpaint4", "sd1_dated", **dated)
    hint = [("controlnet_sd1", "pose", 0.5, (0.0, 1.0))]
    case("sd1-dated-scheduler-control", "sd1_dated", control=hint, guidance=1.5, steps=4)
    case("sd2-plain", "sd2", size=(24, 40))
    case("sd2-two-prompts", "sd2", size=(24, 40), prompt=PROMPTS, negative="blurry")
    case("sd2-rescale", "sd2", size=(24, 40), rescale=0.7)
    case("sd2-guidance-1", "sd2", size=(24, 40), guidance=1.0)
    case("sd2-clip-skip", "sd2", size=(24, 40), clip_skip=1)
    case("sd2-image", "sd2", image="photo_small", strength=0.5, prompt=PROMPTS)


def xl() -> None:
    """Prompts for two encoders, empty prompts, size conditions."""
    case("sdxl-plain", "sdxl")
    case("sdxl-two-prompts", "sdxl", prompt=PROMPTS)
    case("sdxl-prompt-2", "sdxl", prompt_2=["a portrait of a dog"])
    case("sdxl-negative", "sdxl", negative="blurry")
    case("sdxl-negative-two-prompts", "sdxl", prompt=PROMPTS, negative="blurry")
    case("sdxl-negative-2", "sdxl", negative="blurry", negative_2="night sky")
    case("sdxl-only-negative-2", "sdxl", negative_2="night sky")
    case("sdxl-negative-empty", "sdxl", negative="")
    case("sdxl-guidance-1", "sdxl", guidance=1.0)
    case("sdxl-rescale", "sdxl", rescale=0.5, negative="ugly")
    for skip in (0, 1):
        case(f"sdxl-clip-skip-{skip}", "sdxl", clip_skip=skip, negative="ugly")
    case("sdxl-long-prompt", "sdxl", prompt=[LONG], prompt_2=["short"])
    case("sdxl-sizes", "sdxl", original_size=(64, 96), crop=(3, 5), target_size=(48, 32))
    negative = {"negative_original_size": (20, 30), "negative_crop": (7, 2), "negative_target_size": (90, 80)}
    case("sdxl-negative-sizes", "sdxl", **negative)
    both = {"original_size": (64, 96), "crop": (3, 5), "target_size": (48, 32), **negative}
    case("sdxl-all-sizes", "sdxl", negative="ugly", **both)
    case("sdxl-all-sizes-two-prompts", "sdxl", prompt=PROMPTS, negative="ugly", **both)
    case("sdxl-only-negative-crop", "sdxl", original_size=(64, 96), negative_crop=(7, 2))
    case("sdxl-tall", "sdxl", size=(72, 40))
    case("sdxl-default-size", "sdxl", size=None)
    case("sdxl-empty-plain", "sdxl_empty", size=(24, 40))
    case("sdxl-empty-negative", "sdxl_empty", size=(24, 40), negative="", negative_2="ugly")
    case("sdxl-empty-two-prompts", "sdxl_empty", size=(24, 40), prompt=PROMPTS)
    case("refiner-image", "refiner", image="photo", strength=0.3, steps=10)
    case("refiner-negative", "refiner", image="photo", strength=0.6, negative="ugly", prompt=PROMPTS)
    case("refiner-sizes", "refiner", image="photo", strength=0.6, original_size=(64, 96), crop=(3, 5))


KARRAS = {"use_karras_sigmas": True}
TRAILING = {"timestep_spacing": "trailing"}
LEADING = {"timestep_spacing": "leading"}
ZERO_SNR = {"rescale_betas_zero_snr": True, **TRAILING}
# name: (class, changes of the model's scheduler configuration)
SCHEDULERS = {
    "ddim": ("DDIMScheduler", {}),
    "ddim-trailing": ("DDIMScheduler", TRAILING),
    "ddpm": ("DDPMScheduler", {}),
    "ddpm-large": ("DDPMScheduler", {"variance_type": "fixed_large"}),
    "pndm-prk": ("PNDMScheduler", {"skip_prk_steps": False}),
    "pndm-trailing": ("PNDMScheduler", TRAILING),
    "lms": ("LMSDiscreteScheduler", {}),
    "lms-karras": ("LMSDiscreteScheduler", KARRAS),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-leading": ("EulerDiscreteScheduler", LEADING),
    "euler-trailing": ("EulerDiscreteScheduler", TRAILING),
    "euler-karras": ("EulerDiscreteScheduler", KARRAS),
    "euler-exponential": ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}),
    "euler-beta": ("EulerDiscreteScheduler", {"use_beta_sigmas": True}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "euler-a-trailing": ("EulerAncestralDiscreteScheduler", TRAILING),
    "heun": ("HeunDiscreteScheduler", {}),
    "heun-karras": ("HeunDiscreteScheduler", KARRAS),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "kdpm2-karras": ("KDPM2DiscreteScheduler", KARRAS),
    "kdpm2-a": ("KDPM2AncestralDiscreteScheduler", {}),
    "kdpm2-a-karras": ("KDPM2AncestralDiscreteScheduler", KARRAS),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp-2m-karras": ("DPMSolverMultistepScheduler", KARRAS),
    "dpmpp-2m-trailing": ("DPMSolverMultistepScheduler", TRAILING),
    "dpmpp-2m-leading": ("DPMSolverMultistepScheduler", LEADING),
    "dpmpp-2m-lu": ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
    "dpmpp-2m-heun": ("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    "dpmpp-2m-sigma-min": ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp-2m-sde-karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", **KARRAS}),
    "dpmpp-3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "dpmpp-3m-sde": ("DPMSolverMultistepScheduler", {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}),
    "dpm-2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpmpp-1s": ("DPMSolverSinglestepScheduler", {"solver_order": 1}),
    "dpmpp-2s": ("DPMSolverSinglestepScheduler", {}),
    "dpmpp-2s-karras": ("DPMSolverSinglestepScheduler", KARRAS),
    "dpmpp-3s": ("DPMSolverSinglestepScheduler", {"solver_order": 3}),
    "dpm-sde": ("DPMSolverSDEScheduler", {}),
    "dpm-sde-karras": ("DPMSolverSDEScheduler", KARRAS),
    "deis": ("DEISMultistepScheduler", {}),
    "deis-karras": ("DEISMultistepScheduler", KARRAS),
    "unipc": ("UniPCMultistepScheduler", {}),
    "unipc-karras": ("UniPCMultistepScheduler", KARRAS),
    "unipc-3": ("UniPCMultistepScheduler", {"solver_order": 3}),
    "unipc-bh1": ("UniPCMultistepScheduler", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    "sasolver": ("SASolverScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "edm-euler": ("EDMEulerScheduler", {}),
    "edm-dpmpp-2m": ("EDMDPMSolverMultistepScheduler", {}),
    "ipndm": ("IPNDMScheduler", {}),
}
V_ONLY = {
    "ddim-zero-snr": ("DDIMScheduler", ZERO_SNR),
    "ddpm-zero-snr": ("DDPMScheduler", ZERO_SNR),
    "euler-zero-snr": ("EulerDiscreteScheduler", ZERO_SNR),
    "euler-a-zero-snr": ("EulerAncestralDiscreteScheduler", ZERO_SNR),
    "dpmpp-2m-zero-snr": ("DPMSolverMultistepScheduler", ZERO_SNR),
    "unipc-zero-snr": ("UniPCMultistepScheduler", ZERO_SNR),
}
FEW = ["ddim", "euler-a", "heun", "kdpm2", "dpmpp-2m-karras", "dpmpp-2m-sde", "unipc", "lms", "ddpm", "lcm"]


def schedulers() -> None:
    """Every class and grid on sd1 (8 steps: high orders reach their order), some elsewhere, and from a strength."""
    for name in SCHEDULERS:
        case(f"sd1-{name}", "sd1", scheduler=name, steps=8)
    for name in ["ddim", "euler", "euler-a", "heun", "dpmpp-2m-karras", "dpmpp-2m-sde", "unipc", "dpm-sde", "lcm", "tcd"]:
        case(f"sdxl-{name}", "sdxl", scheduler=name, prompt=PROMPTS)
    v_too = ["ddpm", "pndm-prk", "pndm-trailing", "lms", "euler", "euler-karras", "euler-a", "heun", "kdpm2", "kdpm2-a", "deis"]
    v_too += ["dpmpp-2m", "dpmpp-2m-sde", "dpmpp-2s", "unipc", "sasolver", "dpm-sde", "lcm"]
    for name in v_too:
        case(f"sd2-{name}", "sd2", scheduler=name, size=(24, 40), steps=8)
    for name in V_ONLY:
        case(f"sd2-{name}", "sd2", scheduler=name, size=(24, 40), rescale=0.7)
    case("sd2-ddim-zero-snr-thirty", "sd2", scheduler="ddim-zero-snr", size=(24, 40), steps=30, prompt=PROMPTS)
    for name in ["ddim", "euler-a", "dpmpp-2m-karras", "unipc"]:
        case(f"sd1-{name}-thirty", "sd1", scheduler=name, steps=30, prompt=PROMPTS, negative="ugly")
    for name in FEW + ["pndm-prk", "euler", "kdpm2-a", "dpmpp-2s", "dpmpp-3m", "deis", "sasolver", "tcd", "dpm-sde", "edm-euler"]:
        case(f"sd1-image-{name}", "sd1", scheduler=name, image="photo", strength=0.6, steps=10)
    # Twenty steps, twelve of them run: what counts them all does not end at lower orders, which fewer than 15 do.
    for name in ["dpmpp-2m", "dpmpp-2m-sde", "deis", "dpmpp-3s"]:
        case(f"sd1-image-{name}-twenty", "sd1", scheduler=name, image="photo", strength=0.6, steps=20)
    for name in FEW:
        case(f"sdxl-image-{name}", "sdxl", scheduler=name, image="photo", strength=0.6, steps=8)
        case(f"sd1-inpaint4-{name}", "sd1", scheduler=name, image="photo", mask="mask_hard", strength=0.6, steps=8)


def pictures() -> None:
    """Image-to-image and inpainting: strengths, sizes, masks, the draw of the posterior."""
    for strength in (0.05, 0.2, 0.35, 0.5, 0.75, 0.99, 1.0):
        case(f"sd1-image-{strength}", "sd1", image="photo", strength=strength, steps=20 if strength < 0.1 else 7)
    case("sd1-image-posterior", "sd1", image="photo", strength=0.6, posterior=True)
    case("sd1-image-odd", "sd1", image="photo_odd", strength=0.6)
    case("sd1-image-tall", "sd1", image="photo_tall", strength=0.6, prompt=PROMPTS, negative="ugly")
    case("sd1-image-guidance-1", "sd1", image="photo", strength=0.6, guidance=1.0)
    case("sd1-image-clip-skip", "sd1", image="photo", strength=0.6, clip_skip=1)
    case("sdxl-image", "sdxl", image="photo", strength=0.3, steps=10)
    case("sdxl-image-1", "sdxl", image="photo", strength=1.0)
    case("sdxl-image-posterior", "sdxl", image="photo", strength=0.6, posterior=True, prompt=PROMPTS)
    case("sdxl-image-odd", "sdxl", image="photo_odd", strength=0.6, original_size=(64, 96), crop=(3, 5))
    for model in ("sd1", "sdxl"):
        for mask in ("mask_hard", "mask_soft", "mask_odd"):
            shared = {"image": "photo", "mask": mask}
            case(f"{model}-inpaint9-{mask}", f"{model}_inpaint", strength=1.0, **shared)
            case(f"{model}-inpaint4-{mask}", model, strength=1.0, **shared)
        shared = {"image": "photo", "mask": "mask_soft", "strength": 0.6}
        case(f"{model}-inpaint9-strength", f"{model}_inpaint", **shared)
        case(f"{model}-inpaint4-strength", model, **shared)
        case(f"{model}-inpaint9-posterior", f"{model}_inpaint", posterior=True, **shared)
        case(f"{model}-inpaint4-posterior", model, posterior=True, **shared)
        two = {"prompt": PROMPTS, "negative": "ugly"}
        case(f"{model}-inpaint9-two-prompts", f"{model}_inpaint", **shared, **two)
        case(f"{model}-inpaint4-two-prompts", model, **shared, **two)
        case(f"{model}-inpaint9-guidance-1", f"{model}_inpaint", guidance=1.0, **shared)
        odd = {"image": "photo_odd", "mask": "mask_odd", "strength": 0.7}
        case(f"{model}-inpaint9-odd", f"{model}_inpaint", **odd)
        case(f"{model}-inpaint4-odd", model, **odd)
        case(f"{model}-inpaint9-resized", f"{model}_inpaint", size=(32, 48), **odd)
    case("sdxl-inpaint9-default-strength", "sdxl_inpaint", image="photo", mask="mask_hard", strength=0.9999)
    case("sd1-image-vae-tiny", "sd1", image="photo", strength=0.6, vae="taesd")


def adapters() -> None:
    """ControlNet, T2I-Adapter, IP-Adapter, LoRA, textual inversion, alone and together."""
    pose = ("controlnet_sd1", "pose", 1.0, (0.0, 1.0))
    scaled = ("controlnet_sd1", "pose", 0.4, (0.0, 1.0))
    other = ("controlnet_sd1_b", "pose_odd", 0.7, (0.0, 0.6))
    case("sd1-control", "sd1", control=[pose])
    case("sd1-control-two-prompts", "sd1", control=[pose], prompt=PROMPTS, negative="ugly")
    case("sd1-control-scale", "sd1", control=[scaled])
    case("sd1-control-window", "sd1", control=[("controlnet_sd1", "pose", 1.0, (0.2, 0.6))], steps=8)
    case("sd1-control-window-heun", "sd1", control=[("controlnet_sd1", "pose", 1.0, (0.2, 0.6))], scheduler="heun")
    case("sd1-control-odd", "sd1", control=[("controlnet_sd1", "pose_odd", 1.0, (0.0, 1.0))])
    case("sd1-control-guidance-1", "sd1", control=[pose], guidance=1.0)
    case("sd1-control-two", "sd1", control=[scaled, other])
    case("sd1-control-image", "sd1", control=[scaled], image="photo", strength=0.6)
    window = ("controlnet_sd1_b", "pose", 0.7, (0.2, 0.6))
    case("sd1-control-image-window", "sd1", control=[window], image="photo", strength=0.6, steps=10)
    resized = {"image": "photo_odd", "size": (40, 56), "strength": 0.6}
    case("sd1-control-image-resized", "sd1", control=[other], **resized)
    case("sd1-control-inpaint9", "sd1_inpaint", control=[scaled], image="photo", mask="mask_soft", strength=1.0)
    case("sd1-control-inpaint4", "sd1", control=[scaled], image="photo", mask="mask_soft", strength=0.6)
    case("sd1-control-euler-a", "sd1", control=[scaled], scheduler="euler-a")
    xl_pose = ("controlnet_sdxl", "pose", 0.6, (0.0, 0.7))
    case("sdxl-control", "sdxl", control=[("controlnet_sdxl", "pose", 1.0, (0.0, 1.0))])
    case("sdxl-control-window", "sdxl", control=[xl_pose], prompt=PROMPTS)
    case("sdxl-control-image", "sdxl", control=[xl_pose], image="photo", strength=0.6)
    case("sdxl-control-inpaint4", "sdxl", control=[xl_pose], image="photo", mask="mask_soft", strength=0.6)
    case("sd1-t2i", "sd1", t2i=("t2i_sd1", "pose", 1.0), size=(64, 64))
    case("sd1-t2i-scale", "sd1", t2i=("t2i_sd1", "pose_odd", 0.5), size=(32, 64), prompt=PROMPTS)
    case("sdxl-t2i", "sdxl", t2i=("t2i_sdxl", "pose", 0.8), size=(32, 64))
    for model in ("sd1", "sdxl"):
        case(f"{model}-ip", model, ip=[(f"ip_{model}", "style", 1.0)])
        case(f"{model}-ip-scale", model, ip=[(f"ip_{model}", "style_b", 0.5)], prompt=PROMPTS, negative="ugly")
        case(f"{model}-ip-plus", model, ip=[(f"ip_plus_{model}", "style", 0.8)])
        case(f"{model}-ip-plus-two-prompts", model, ip=[(f"ip_plus_{model}", "style", 0.8)], prompt=PROMPTS)
        case(f"{model}-ip-guidance-1", model, ip=[(f"ip_{model}", "style", 0.7)], guidance=1.0)
        case(f"{model}-ip-image", model, ip=[(f"ip_{model}", "style", 0.7)], image="photo", strength=0.6)
        case(f"{model}-ip-two", model, ip=[(f"ip_{model}", "style", 0.7), (f"ip_plus_{model}", "style_b", 0.4)])
    case("sd1-ip-inpaint9", "sd1_inpaint", ip=[("ip_sd1", "style", 0.7)], image="photo", mask="mask_soft", strength=1.0)
    case("sd1-ip-control", "sd1", ip=[("ip_sd1", "style", 0.7)], control=[scaled])
    case("sdxl-ip-control", "sdxl", ip=[("ip_sdxl", "style", 0.7)], control=[xl_pose])
    for form in ("peft", "old", "kohya"):
        case(f"sd1-lora-{form}", "sd1", lora=[(f"lora_{form}", 0.6)])
        case(f"sd1-lora-{form}-weight", "sd1", lora=[(f"lora_{form}", 0.35)], negative="ugly")
    case("sd1-lora-two", "sd1", lora=[("lora_peft", 0.6), ("lora_kohya", 0.3)], prompt=PROMPTS)
    case("sd1-lora-three", "sd1", lora=[("lora_kohya", -0.2), ("lora_old", 0.5), ("lora_peft", 0.4)])
    case("sd1-lora-clip-skip", "sd1", lora=[("lora_peft", 0.5)], clip_skip=1)
    case("sd1-lora-image", "sd1", lora=[("lora_kohya", 0.7)], image="photo", strength=0.6)
    case("sd1-lora-inpaint9", "sd1_inpaint", lora=[("lora_peft", 0.7)], image="photo", mask="mask_hard", strength=1.0)
    case("sd1-lora-control-ip", "sd1", lora=[("lora_peft", 0.7)], control=[scaled], ip=[("ip_sd1", "style", 0.5)])
    case("sdxl-lora-peft", "sdxl", lora=[("lora_peft_xl", 0.4)])
    case("sdxl-lora-kohya", "sdxl", lora=[("lora_kohya_xl", 0.8)], prompt=PROMPTS)
    case("sdxl-lora-kohya-ldm", "sdxl", lora=[("lora_kohya_ldm_xl", 0.4)])
    case("sdxl-lora-two", "sdxl", lora=[("lora_peft_xl", 0.5), ("lora_kohya_xl", 0.4)])
    case("sd1-inversion", "sd1", embedding=[("inversion", None)], prompt=["a photo of a <scribble> cat"])
    case("sd1-inversion-negative", "sd1", embedding=[("inversion", None)], negative="<scribble>, ugly")
    case("sd1-inversion-a1111", "sd1", embedding=[("inversion_a1111", "charturn")], prompt=["charturn of a dog"])
    case("sdxl-inversion", "sdxl", embedding=[("inversion_xl", "xltoken")], prompt=["a xltoken house"])


def single_files() -> None:
    """Files in the original code's layout, which diffusers reads with a folder beside it for what a file lacks."""
    case("single-sd1", "wide_sd1", single="wide_sd1")
    case("scattered-sd1", "sd1_scattered")
    case("single-sd1-half", "wide_sd1", single="wide_sd1_half", prompt=PROMPTS, negative="ugly")
    case("single-sd1-folder", "wide_sd1")
    case("single-sd1-image", "wide_sd1", single="wide_sd1", image="photo", strength=0.6)
    case("single-sd1-inpaint9", "wide_sd1_inpaint", single="wide_sd1_inpaint", image="photo", mask="mask_hard", strength=1.0)
    case("single-sd2", "wide_sd2", single="wide_sd2", size=(24, 40))
    case("single-sdxl", "wide_sdxl", single="wide_sdxl", prompt=PROMPTS)
    case("single-refiner", "wide_refiner", single="wide_refiner", image="photo", strength=0.6)


def seeds() -> None:
    """PyTorch's own streams, of seed + k for picture k, in the order in which diffusers draws; posteriors are samples."""
    case("seed-sd1", "sd1", seed=0)
    case("seed-sd1-two-prompts-euler-a", "sd1", seed=3405691582, scheduler="euler-a", prompt=PROMPTS)
    case("seed-sd1-two-prompts-image", "sd1", seed=7, image="photo", strength=0.6, prompt=PROMPTS)
    case("seed-sd1-image", "sd1", seed=7, image="photo", strength=0.6)
    case("seed-sd1-inpaint9", "sd1_inpaint", seed=7, image="photo", mask="mask_hard", strength=0.6)
    case("seed-sd1-inpaint4-lcm", "sd1", seed=7, image="photo", mask="mask_hard", strength=0.6, scheduler="lcm")
    case("seed-sdxl-image-sde", "sdxl", seed=11, image="photo", strength=0.6, scheduler="dpmpp-2m-sde")


def defaults(options: dict) -> dict:
    """The options with what a case leaves out."""
    guidance = 5.0 if options["model"].removeprefix("wide_").startswith(("sdxl", "refiner")) else 7.5
    size = {} if {"image", "size"} & set(options) and "mask" not in options else {"size": (40, 56)}
    return {"prompt": [PROMPT], "steps": 5, "guidance": guidance, **size} | options


SIZES = ["original_size", "crop", "target_size", "negative_original_size", "negative_crop", "negative_target_size"]
# Options that are one flag with one value.
FLAGS = {"negative": "--negative-prompt", "negative_2": "--negative-prompt-2", "steps": "--steps", "guidance": "--guidance"}
FLAGS |= {"rescale": "--guidance-rescale", "clip_skip": "--clip-skip", "strength": "--strength"}


def arguments(name: str) -> list:
    """The command line of `generate` but for `--save-latents`, with paths relative to the folder of cases."""
    options = defaults(CASES[name])
    line = ["--model", f"models/{options['model']}"]
    if "single" in options:
        line = ["--model", f"single/{options['single']}.safetensors", "--config", f"models/{options['model']}"]
    if "scheduler" in options:
        line += ["--scheduler", f"schedulers/{options['model']}-{options['scheduler']}"]
    for prompt in options["prompt"]:
        line += ["--prompt", prompt]
    for prompt in options.get("prompt_2", []):
        line += ["--prompt-2", prompt]
    for key, flag in FLAGS.items():
        if key in options:
            line += [flag, str(options[key])]
    if options.get("size"):
        line += ["--height", str(options["size"][0]), "--width", str(options["size"][1])]
    for key in SIZES:
        if key in options:
            line += [f"--{key.replace('_', '-')}", "{}x{}".format(*options[key])]
    for key in ("image", "mask"):
        if key in options:
            line += [f"--{key}", f"pictures/{options[key]}.png"]
    drawn = ["--seed", str(options["seed"])] if "seed" in options else ["--noise", f"cases/{name}/noise.safetensors"]
    return line + adapter_arguments(options) + drawn


def adapter_arguments(options: dict) -> list:
    """The flags of everything that is added to a model."""
    line = []
    for net, image, scale, (start, end) in options.get("control", []):
        line += ["--controlnet", f"adapters/{net}", "--control-image", f"pictures/{image}.png"]
        line += ["--control-scale", str(scale), "--control-window", f"{start}:{end}"]
    for file, image, scale in options.get("ip", []):
        line += ["--ip-adapter", f"adapters/{file}.safetensors", "--ip-image", f"pictures/{image}.png", "--ip-scale", str(scale)]
    if "ip" in options:
        line += ["--image-encoder", "adapters/image_encoder", "--feature-extractor", "adapters/feature_extractor"]
    for file, weight in options.get("lora", []):
        line += ["--lora", f"adapters/{file}.safetensors:{weight}"]
    if "t2i" in options:
        adapter, image, scale = options["t2i"]
        line += ["--t2i-adapter", f"adapters/{adapter}", "--adapter-image", f"pictures/{image}.png", "--adapter-scale", str(scale)]
    for file, token in options.get("embedding", []):
        line += ["--embedding", f"adapters/{file}.safetensors" + (f":{token}" if token else "")]
    if "vae" in options:
        line += ["--vae", f"adapters/{options['vae']}"]
    return line


for section in (text_to_image, xl, schedulers, pictures, adapters, single_files, seeds):
    section()

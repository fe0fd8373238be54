"""Writes canvas-sched/tests/fixtures/papers.json: what the published code of SiT, Flow-GRPO and DanceGRPO computes.

Needs clones of their repositories, torch, torchdiffeq, diffusers and numpy:

    git clone https://github.com/willisma/SiT            # made with 947f95b
    git clone https://github.com/yifan123/flow_grpo      # made with ac4c86e
    git clone https://github.com/XueZeyue/DanceGRPO      # made with 15cc71d
    python tools/fixtures_papers.py --sit SiT --flow-grpo flow_grpo --dance-grpo DanceGRPO

Everything runs in f64. The network, the first state and the noise are the formulas of tests/fixtures/README.md, told
1000 times rectified flow's time (1 is noise). SiT's network is asked for the velocity towards the data.
"""

import argparse
import ast
import importlib.util
import json
import math
import pathlib
import sys

import numpy as np
import torch

torch.set_default_dtype(torch.float64)
torch.float32 = torch.float64
np.float32 = np.float64
torch.Tensor.float = torch.Tensor.double  # the published steps cast up from bf16

OUT = pathlib.Path(__file__).parents[1] / "canvas-sched/tests/fixtures/papers.json"
SHAPE = (2, 3, 1, 1)


def six(of):
    return torch.tensor([of(i) for i in range(6)]).reshape(SHAPE)


def net(x, t):
    return 0.6 * torch.sin(1.3 * x + 0.002 * t) + 0.25 * torch.cos(0.003 * t) * x / (1 + 0.1 * x * x)


class Noise:
    """Draw k, number i: sqrt(2) sin(1.7 k + 2.3 i + 0.5)."""

    def __init__(self):
        self.k = -1

    def __call__(self, *_args, **_kwargs):
        self.k += 1
        return six(lambda i: math.sqrt(2) * math.sin(1.7 * self.k + 2.3 * i + 0.5))


def numbers(tensor):
    return [float(f"{value:.12g}") for value in tensor.flatten().tolist()]


def sit(folder):
    """Runs of SiT's SDE and ODE samplers. Its time is 1 - ours, its velocity is minus ours."""
    sys.path.insert(0, str(folder))
    import transport

    start = six(lambda i: math.sqrt(2) * math.sin(0.9 * i + 0.4))
    cases = []

    def velocity(x, t):
        return net(x, 1000 * (1 - t.reshape(-1, 1, 1, 1)))

    for path in ["Linear", "GVP"]:
        flow = transport.create_transport(path_type=path, prediction="velocity")
        sampler = transport.Sampler(flow)
        forms = ["constant", "sigma", "linear", "decreasing", "inccreasing-decreasing"]
        for method in ["Euler", "Heun"]:
            for form in forms:
                for last in ["Mean", "Tweedie", "Euler"]:
                    if last != "Mean" and form != "sigma":
                        continue  # the end does not depend on what came before
                    torch.randn = Noise()
                    run = sampler.sample_sde(
                        sampling_method=method, diffusion_form=form, last_step=last,
                        diffusion_norm=torch.tensor(0.8),  # a float fails for the constant form
                        last_step_size=0.04, num_steps=10,
                    )
                    states = run(start.clone(), velocity)
                    case = {"path": path, "method": method, "form": form, "last": last, "steps": 10}
                    cases.append({**case, "x": [numbers(states[0]), numbers(states[-2]), numbers(states[-1])]})
        for method in ["euler", "dopri5"]:
            run = sampler.sample_ode(sampling_method=method, num_steps=11, atol=1e-9, rtol=1e-9)
            states = run(start.clone(), velocity)
            cases.append({"path": path, "method": method, "steps": 10, "x": [numbers(states[-1])]})
    return cases


def flow_grpo(folder):
    path = folder / "flow_grpo/diffusers_patch/sd3_sde_with_logprob.py"
    spec = importlib.util.spec_from_file_location("sde", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.randn_tensor = Noise()
    scheduler = module.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.8, 0.6, 0.4, 0.2])
    x = six(lambda i: math.sqrt(2) * math.sin(0.9 * i + 0.4))
    steps = []
    for t in scheduler.timesteps[:-1]:  # the last step is left out of training
        x, log_prob, mean, std = module.sde_step_with_logprob(scheduler, net(x, t), t.repeat(2), x, noise_level=0.7)
        steps.append({"x": numbers(x), "mean": numbers(mean), "log_prob": numbers(log_prob)})
    return {"sigmas": numbers(scheduler.sigmas), "noise_level": 0.7, "steps": steps}


def dance_grpo(folder):
    source = (folder / "fastvideo/train_grpo_flux.py").read_text()
    step = next(node for node in ast.parse(source).body if getattr(node, "name", "") == "flux_step")
    names = {"torch": torch, "math": math}
    exec(compile(ast.Module([step], []), "flux_step", "exec"), names)
    draw = Noise()
    torch.randn_like = lambda x: draw()
    sigmas = torch.tensor([1.0, 0.9, 0.7, 0.45, 0.15, 0.0])
    x = six(lambda i: math.sqrt(2) * math.sin(0.9 * i + 0.4))
    steps = []
    for index in range(4):
        output = net(x, 1000 * sigmas[index])
        x, x0, log_prob = names["flux_step"](output, x, 0.3, sigmas, index, None, True, True)
        steps.append({"x": numbers(x), "x0": numbers(x0), "log_prob": numbers(log_prob)})
    return {"sigmas": numbers(sigmas), "eta": 0.3, "steps": steps}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ["sit", "flow-grpo", "dance-grpo"]:
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    args = parser.parse_args()
    found = {
        "flow_grpo": flow_grpo(args.flow_grpo),
        "dance_grpo": dance_grpo(args.dance_grpo),
        "sit": sit(args.sit),
    }
    OUT.write_text(json.dumps(found, separators=(",", ":")).replace('},{"path"', '},\n{"path"') + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(found['sit'])} runs of SiT")


if __name__ == "__main__":
    main()

"""Trains the networks of `docs/autoguidance.md` by the code that the paper's authors published, and measures what they draw as
`autoguidance` does: where both tables agree, what the page says is the recipe's doing and not ours.

    git clone https://github.com/NVlabs/edm2 EDM2
    python3 -m venv VENV && VENV/bin/pip install torch==2.15.0 matplotlib click tqdm requests
    VENV/bin/python tools/check_autoguidance.py EDM2          # half an hour on two busy cores; --steps 64 to try it

Only the exact score is computed in another way, since theirs takes most of a second a step on a CPU; the script compares both first.
"""

import argparse
import pickle
import sys
import tempfile
from pathlib import Path

import torch

SIGMAS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
ALONG = 8  # Gaussians of a branch
CPU = torch.device("cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edm2", type=Path, help="a clone of NVlabs/edm2")
    parser.add_argument("--steps", type=int, default=4096)
    parser.add_argument("--points", type=int, default=16384)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not (options.edm2 / "toy_example.py").exists():
        sys.exit(f"{options.edm2}: there is no toy_example.py in it")
    sys.path.insert(0, str(options.edm2))
    import toy_example as toy

    theirs = toy.GaussianMixture.score
    check(toy, theirs)
    toy.GaussianMixture.score = score
    networks = [
        trained(toy, options, classes, width, steps)
        for classes, width, steps in [("A", 64, options.steps), ("A", 32, options.steps // 8), ("AB", 32, options.steps // 8)]
    ]
    main, worse, both = networks

    print("| score of |" + "".join(f" sigma {sigma} |" for sigma in SIGMAS) + "\n|---|" + "---|" * len(SIGMAS))
    for name, network, classes in [("main", main, "A"), ("worse", worse, "A"), ("both", both, "AB")]:
        print(f"| {name} |" + "".join(f" {error(toy.gt(classes, CPU), network, sigma):.3f} |" for sigma in SIGMAS))

    mixture = toy.gt("A", CPU)
    truth = density(mixture, mixture.sample([options.points], 0.0))
    least = truth[0].sort().values[options.points // 100].item()
    print("| drawn with | scale | log-likelihood | outside | branches | variation |\n|---|---|---|---|---|---|")
    start = mixture.sample([options.points], 5.0)
    ways = [("no guidance", None, 1)]
    ways += [(name, weak, scale) for name, weak in [("CFG", both), ("autoguidance", worse)] for scale in (2, 3, 4)]
    for name, weak, scale in ways:
        drawn = toy.do_sample(main, start, guidance=scale, gnet=weak)[-1].detach()
        print(f"| {name} | {scale} |" + measured(mixture, drawn, least), flush=True)


def trained(toy, options, classes, width, steps):
    """A network, averaged, by the authors' loop."""
    with tempfile.TemporaryDirectory() as folder:
        toy.do_train(
            classes=classes, hidden_dim=width, total_iter=steps, seed=options.seed, viz_iter=None,
            pkl_pattern=f"{folder}/%d.pkl", pkl_iter=steps, device=CPU,
        )
        with open(f"{folder}/{steps}.pkl", "rb") as file:
            return pickle.load(file)


def parts(mixture, x, sigma):
    """Of each Gaussian at each point: its density, and the slope of its logarithm along its two axes."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype).broadcast_to(x.shape[:-1])[..., None]
    mean, axes, variances = (of.to(x.dtype) for of in (mixture.mu, mixture._Q, mixture._L))
    along = [(mean * axes[..., j]).sum(-1) - x @ axes[..., j].T for j in range(2)]
    inverse = [1 / (variances[..., j] + sigma**2) for j in range(2)]
    slopes = [a * i for a, i in zip(along, inverse)]
    cost = 0.5 * (along[0] * slopes[0] + along[1] * slopes[1])
    return mixture.phi * (inverse[0] * inverse[1]).sqrt() / (2 * torch.pi), cost, slopes


def score(mixture, x, sigma=0):
    """The same as `GaussianMixture.score`, by the axes of each Gaussian."""
    weight, cost, slopes = parts(mixture, x, sigma)
    weight = weight * (cost.amin(-1, keepdim=True) - cost).exp()
    total = sum((weight * slope) @ mixture._Q[..., j] for j, slope in enumerate(slopes))
    return total / weight.sum(-1, keepdim=True)


def check(toy, theirs):
    mixture = toy.gt("A", CPU)
    sigma = (torch.randn(256) * 1.5 - 2.3).exp()
    x = mixture.sample([256], sigma)
    apart = ((theirs(mixture, x, sigma) - score(mixture, x, sigma)) * sigma[:, None]).abs().max()
    print(f"exact scores, theirs and the script's: {apart:.1e} apart at most", file=sys.stderr)
    assert apart < 1e-3


def error(mixture, network, sigma):
    """Root mean square of `sigma (score - exact score)`, a coordinate."""
    x = mixture.sample([4096], sigma)
    difference = network.score(x, torch.full([4096], sigma)).detach() - score(mixture, x, sigma)
    return (sigma * difference).square().mean().sqrt().item()


def density(mixture, x):
    """Logarithm of the density at points, and the branch that most likely made each."""
    weight, cost, _ = parts(mixture, x.double(), 0.0)
    least = cost.amin(-1, keepdim=True)
    likely = weight * (least - cost).exp()
    return likely.sum(-1).log() - least[:, 0], likely.argmax(-1) // ALONG


def measured(mixture, drawn, least):
    logs, branch = density(mixture, drawn)
    shares = mixture.phi.reshape(-1, ALONG).sum(-1)
    found = branch.bincount(minlength=len(shares)) / len(drawn)
    outside = (logs < least).double().mean() * 100
    enough = (found >= 0.5 * shares).sum()
    return f" {logs.mean():.3f} | {outside:.2f} % | {enough} | {0.5 * (found - shares).abs().sum():.3f} |"


if __name__ == "__main__":
    main()

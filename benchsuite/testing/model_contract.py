"""Checks of any diffusion model against the contract of `DiffusionModel`."""

from __future__ import annotations

import math

import numpy as np
import torch

from benchsuite.contracts import DiffusionModel
from benchsuite.errors import BenchsuiteError, NotApplicableError
from benchsuite.noise import log_snr_from_sigma
from benchsuite.protocols.common import Taps
from benchsuite.testing.model_case import TOLERANCE, ModelCase
from benchsuite.testing.options import every_option_acts
from benchsuite.testing.results import Checks, Observation, Skip, at_most, findings, said, worst
from benchsuite.testing.state import changed_by

CONTRACT = Checks[ModelCase]()


@CONTRACT.add("loads", "bind and load succeed and set shape, sigma_range, factors and taps")
def _loads(case: ModelCase) -> Observation:
    try:
        case.load(case.model)
    except NotApplicableError as error:
        return findings([said(error)], "a model and a data set that go together")
    case.loaded = True
    model, wrong = case.model, []
    low, high = model.sigma_range
    if not (0 < low < high < math.inf):
        wrong.append(f"sigma_range {model.sigma_range}")
    if not model.shape or any(size < 1 for size in model.shape):
        wrong.append(f"shape {model.shape}")
    names = [factor.name for factor in model.factors]
    if len(set(names)) < len(names):
        wrong.append(f"factors of one name: {names}")
    wrong += [f"no {key}" for key in ("name", "family", "version") if not getattr(model, key, "")]
    return findings(wrong, "0 < sigma_min < sigma_max, a shape, distinct factors, name, family and version")


@CONTRACT.add("shape-dtype", "the result has the shape, dtype and device of x")
def _shape_dtype(case: ModelCase) -> Observation:
    wrong = []
    for dtype in (torch.float32, torch.float64):
        x = case.few.to(dtype)
        out = case.ask(x, case.within(case.std))
        if (out.shape, out.dtype, out.device) != (x.shape, x.dtype, x.device):
            wrong.append(f"{tuple(out.shape)} {out.dtype} on {out.device} for {x.dtype}")
    return findings(wrong, f"{tuple(case.few.shape)}, dtype and device of x")


@CONTRACT.add("finite", "the result is finite at both ends of sigma_range")
def _finite(case: ModelCase) -> Observation:
    case.ready()
    wrong = []
    for sigma in case.model.sigma_range:
        heads = (case.labels(len(case.few), i, case.values(i)[0]) for i in range(len(case.model.factors)))
        for labels in (None, *heads):
            out = case.ask(case.few + sigma * case.noise(case.few), sigma, labels)
            bad = int((~torch.isfinite(out)).sum())
            if bad:
                wrong.append(f"{bad} of {out.numel()} numbers at sigma = {sigma:g}")
    return findings(wrong, "no NaN or infinity")


@CONTRACT.add("deterministic", "the same question gets the same answer")
def _deterministic(case: ModelCase) -> Observation:
    sigma = case.within(case.std)
    x = case.few + sigma * case.noise(case.few)
    gap = (case.denoise(x, sigma) - case.denoise(x, sigma)).abs().max()
    return at_most("difference", float(gap), 1e-6 * max(1.0, sigma))


@CONTRACT.add("input-unchanged", "x, sigma and labels are not modified")
def _input_unchanged(case: ModelCase) -> Observation:
    case.ready()
    x, labels = case.few.clone(), case.labels(len(case.few))
    sigma = x.new_full((len(x),), case.within(case.std))
    given = {"x": x, "sigma": sigma, "labels": labels}
    copies = {name: value.clone() for name, value in given.items()}
    with torch.no_grad():
        case.model.denoise(x, sigma, labels)
    return findings(
        [f"{name} was modified" for name, v in given.items() if not torch.equal(v, copies[name])], "none"
    )


@CONTRACT.add("batch-invariance", "a row's result does not depend on the rows beside it")
def _batch_invariance(case: ModelCase) -> Observation:
    x = case.few
    low, high = case.model.sigma_range
    sigma = torch.logspace(math.log10(low), math.log10(high), len(x)).to(x).clamp(low, high)
    x = x + sigma.view(-1, *[1] * (x.dim() - 1)) * case.noise(x)
    labels = case.labels(len(x))
    if case.model.factors:  # rows of different labels, a null one among them
        values = torch.tensor([-1, *case.values(0)])
        labels[:, 0] = values[torch.arange(len(x)) % len(values)]
    together = case.denoise(x, sigma, labels)
    found = []
    for i in range(0, len(x), 3):
        alone = case.denoise(x[i : i + 1], sigma[i : i + 1], labels[i : i + 1])[0]
        level = float(sigma[i])
        found.append(
            (f"at sigma = {level:.3g}", float((together[i] - alone).abs().max()), TOLERANCE * max(1, level))
        )
    return worst("difference", found)


@CONTRACT.add("no-global-state", "random generators, grad mode and default dtype are left alone")
def _no_global_state(case: ModelCase) -> Observation:
    case.ready()
    x = case.few
    changed = changed_by(lambda: case.model.denoise(x.clone(), x.new_full((len(x),), case.within(case.std))))
    return findings([f"{name} changed" for name in changed], "no change")


@CONTRACT.add("null-labels", "labels of -1 mean the same as no labels")
def _null_labels(case: ModelCase) -> Observation:
    sigma = case.within(case.std)
    x = case.few + sigma * case.noise(case.few)
    gap = (case.denoise(x, sigma) - case.denoise(x, sigma, case.labels(len(x)))).abs().max()
    return at_most("difference", float(gap), TOLERANCE * max(1, sigma))


@CONTRACT.add("label-range", "a label outside its factor's values is refused with a BenchsuiteError")
def _label_range(case: ModelCase) -> Observation:
    case.ready()
    wrong = []
    for index, factor in enumerate(case.model.factors):
        for value in (factor.size, -2):
            try:
                case.ask(case.few, case.within(case.std), case.labels(len(case.few), index, value))
                wrong.append(f"{factor.name} = {value} is accepted")
            except BenchsuiteError:
                pass
            except Exception as error:
                wrong.append(f"{factor.name} = {value} ends in {said(error)}")
    if not case.model.factors:
        raise Skip("the model has no factors")
    return findings(wrong, "UsageError naming factor, label and range")


@CONTRACT.add("labels-used", "conditioning on different values gives different results")
def _labels_used(case: ModelCase) -> Observation:
    sigma, wrong = case.within(case.std), []
    telling = case.telling()
    if not telling:
        raise Skip("no factor of which x says anything")
    x = case.few + sigma * case.noise(case.few)
    for index in telling:
        a, b = (case.denoise(x, sigma, case.labels(len(x), index, k)) for k in case.values(index)[:2])
        if float((a - b).abs().max()) <= 1e-5 * max(1, sigma):
            wrong.append(f"{case.model.factors[index].name} makes no difference")
    return findings(wrong, "a difference for every factor")


@CONTRACT.add("taps-exist", "every tap is a module of the network and gives (B, D) of one width at every level")
def _taps_exist(case: ModelCase) -> Observation:
    case.ready()
    model = case.model
    if not model.taps:
        raise Skip("the model has no taps")
    if model.network is None:
        return findings([f"taps {', '.join(model.taps)} without a network"], "a network that has them")
    wrong: list[str] = []
    widths: dict[str, int] = {}
    for sigma in (case.within(0.1 * case.std), case.within(10 * case.std)):
        taps = Taps(model.network, model.taps)
        with taps.recording():
            case.ask(case.few + sigma * case.noise(case.few), sigma)
        for path in model.taps:
            hidden = taps.pooled.get(path)
            if hidden is None:
                wrong.append(f"{path} takes no part in denoise")
            elif len(hidden) != len(case.few) or not bool(torch.isfinite(hidden).all()):
                wrong.append(f"{path} gives {tuple(hidden.shape)} or non-finite numbers for {len(case.few)} rows")
            elif widths.setdefault(path, hidden.shape[1]) != hidden.shape[1]:
                wrong.append(f"{path} is {widths[path]} wide at one level and {hidden.shape[1]} at another")
    return findings(sorted(set(wrong)), "one finite row per item")


@CONTRACT.add("fingerprint", "the fingerprint is stable, and another one as soon as one weight changes")
def _fingerprint(case: ModelCase) -> Observation:
    case.ready()
    model = case.model
    before = model.fingerprint()
    if not isinstance(before, str) or not before or model.fingerprint() != before:
        return findings([f"{before!r}, then {model.fingerprint()!r}"], "one hex string")
    weights = list(model.network.parameters()) if model.network is not None else []
    if not weights:
        return findings([], "one hex string")
    weight = weights[-1].data.view(-1)
    kept = weight[0].clone()
    weight[0] += 1
    changed = model.fingerprint()
    weight[0] = kept
    return findings(["the same with another weight"] if changed == before else [], "a change with the weight")


@CONTRACT.add("ignored-option", "every option changes the fingerprint, or the value is refused")
def _ignored_option(case: ModelCase) -> Observation:
    case.ready()

    def outcome(model: DiffusionModel) -> str:
        return case.load(model).fingerprint()

    return every_option_acts(type(case.model), case.options, case.alternatives, outcome)


@CONTRACT.add("native-time", "native time runs from 1 (noise) to 0 (clean) and never back as log-SNR rises")
def _native_time(case: ModelCase) -> Observation:
    case.ready()
    high, low = (float(log_snr_from_sigma(sigma)) for sigma in case.model.sigma_range)
    time = case.model.native_time(np.linspace(low, high, 101))
    if time is None:
        raise Skip("the model has no clock of its own")
    wrong = []
    if not (np.isfinite(time).all() and time.min() >= 0 and time.max() <= 1):
        wrong.append(f"values from {time.min():.3g} to {time.max():.3g}")
    if (np.diff(time) > 1e-9).any():
        wrong.append(f"it rises by up to {np.diff(time).max():.3g}")
    if not time[0] > time[-1]:
        wrong.append(f"{time[0]:.3g} at the noisy end and {time[-1]:.3g} at the clean one")
    return findings(wrong, "a falling clock within [0, 1]")


@CONTRACT.add("codec", "encode gives what the model works on; decode gives images of the data set's shape back")
def _codec(case: ModelCase) -> Observation:
    case.ready()
    if case.dataset is None:
        raise Skip("needs a data set")
    images = case.dataset.split("test").images[:4].to(case.device)
    with torch.no_grad():
        x = case.model.encode(images.clone())
        back = case.model.decode(x.clone())
    wrong = []
    if tuple(x.shape[1:]) != tuple(case.model.shape):
        wrong.append(f"encode gives {tuple(x.shape[1:])}")
    if back.shape != images.shape or not bool(torch.isfinite(back).all()):
        wrong.append(f"decode gives {tuple(back.shape)}, {int((~torch.isfinite(back)).sum())} numbers not finite")
    elif case.model.space == "pixels" and not torch.allclose(back, images, atol=1e-5):
        wrong.append(f"pixels come back changed by {float((back - images).abs().max()):.3g}")
    return findings(wrong, f"{tuple(case.model.shape)} and {tuple(images.shape[1:])}, finite")

"""Trained networks kept on disk, each under the hash of its recipe.

The name of a file is a hash of everything that the weights depend on: the numbers of the recipe, the code of the
modules that it is carried out by (not their words), and the version of torch. So a file never has to be looked into to
know whether it is out of date: what changed has another name. Files are written beside their place and then moved
there, so nobody reads half a file, and they carry a hash of their weights, so one that was damaged is noticed and
trained anew.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of a training; its layers and its data are in the source beside it.

    Args:
        steps: Steps of the optimiser.
        batch: Rows of each step.
        rate: Largest learning rate.
        seed: Of the first weights, the data and the noise.
    """

    steps: int
    batch: int
    rate: float
    seed: int = 0


def folder() -> Path:
    """Where trained networks are kept: ``paradrift`` in the user's cache, ``XDG_CACHE_HOME`` or ``~/.cache``.

    Returns:
        The folder, which may not exist yet.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paradrift"


def kept(
    make: Callable[[], Net], name: str, recipe: Recipe, modules: tuple[ModuleType, ...], train: Callable[[Net], object]
) -> Net:
    """The network with the weights of its recipe: read, or trained and written.

    Args:
        make: Makes the network, with any weights.
        name: Word for the file.
        recipe: The numbers of the training.
        modules: The modules whose code decides what the training does.
        train: Trains the network in place, the same way each time.

    Returns:
        The network, in evaluation mode, its weights frozen.
    """
    codes = "".join(code(inspect.getsource(module)) for module in modules)
    key = hashlib.sha256(f"{recipe}{codes}{torch.__version__}".encode()).hexdigest()[:16]
    path = folder() / f"{name}-{key}.safetensors"
    # weights made in inference mode could not be trained, and first weights are no business of the caller's generator
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        net, found = make(), _read(path)
        if found is None or not _fits(net, found):
            train(net)
            _write(path, net.state_dict())
        else:
            net.load_state_dict(found)
    return net.eval().requires_grad_(False)


def code(source: str) -> str:
    """What a source does: without comments, layout and docstrings, so that better words cost no training.

    Args:
        source: Of a module.

    Returns:
        Its syntax tree as text.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _read(path: Path) -> dict[str, Tensor] | None:
    """The weights of a file, None where there is none, or a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            weights = {name: file.get_tensor(name) for name in names}
            told = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return weights if told == _digest(weights) else None


def _write(path: Path, weights: Mapping[str, Tensor]) -> None:
    whole = {name: value.detach().contiguous() for name, value in weights.items()}
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=path.stem, suffix=".partial", dir=path.parent)
        os.close(handle)
        save_file(whole, partial, metadata={"sha256": _digest(whole)})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:  # a network that cannot be kept is still a network
        warnings.warn(f"expected to keep a trained network in {path}, found {error}: set XDG_CACHE_HOME", stacklevel=3)
        if partial is not None:
            Path(partial).unlink(missing_ok=True)


def _fits(net: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    own = net.state_dict()
    return own.keys() == weights.keys() and all(own[name].shape == value.shape for name, value in weights.items())


def _digest(weights: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return total.hexdigest()

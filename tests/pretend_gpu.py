"""A CUDA device that is not there: tensors that live on the CPU, say that they are elsewhere and insist on it.

Within `pretend_gpu` a tensor that is moved to, or made on, "cuda" becomes an `Away`. Operations on it are carried
out by the CPU, but fail where CUDA would: operands on two devices, a generator of the other device, products of
integers, numpy. So that every move that a program forgets is found on a machine without a GPU. Not found: what
kernels of a GPU compute otherwise, its memory, its time.

Any command runs there by hand: `python tests/pretend_gpu.py train ddpm-digits --device cuda --steps 3`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

HERE, THERE = torch.device("cpu"), torch.device("privateuseone", 0)
_aten = torch.ops.aten
#: they move data between devices
_MOVES = (_aten._to_copy, _aten.copy_)
#: they take indices from the CPU too
_INDEXED = (_aten.index, _aten.index_put_, _aten.index_put, _aten._index_put_impl_)
_PRODUCTS = (_aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm, _aten.dot, _aten.mv, _aten.addmv)


class Away(torch.Tensor):
    """A tensor that says it is on the device that is not there."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Away:
        """Wrap a tensor of the CPU."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=THERE,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Away({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})


class _Renamed(TorchFunctionMode):
    """CUDA is the pretended device wherever torch is given a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.tolist, torch.Tensor.untyped_storage) and isinstance(args[0], Away):
            return func(args[0].inner)  # refused for subclasses; CUDA's tensors have it
        if func is torch.device:  # a name; what it is given to is renamed
            return func(*args, **(kwargs or {}))
        named = {name: _renamed(value) for name, value in (kwargs or {}).items()}
        return func(*map(_renamed, args), **named)


def _renamed(value: Any) -> Any:
    return THERE if isinstance(value, str | torch.device) and str(value) in ("cuda", "cuda:0") else value


@contextmanager
def pretend_gpu() -> Iterator[None]:
    """Have one CUDA device for as long as the context lasts; the process keeps what torch has to be told of it."""
    _setup_privateuseone_for_python_backend("pretended")
    lifted = torch._C._only_lift_cpu_tensors()
    overwritten = torch.__future__.get_overwrite_module_params_on_conversion()
    patches = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda device=None: "pretended",
        "empty_cache": lambda: None,
    }
    try:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") passes through the mode
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        with (
            mock.patch.multiple(torch.cuda, **patches),
            mock.patch.object(safetensors.torch, "save_file", _brought_here(safetensors.torch.save_file)),
            mock.patch.object(torch, "save", _brought_here(torch.save)),
            _Renamed(),
            _Mode(),
        ):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
        torch.__future__.set_overwrite_module_params_on_conversion(overwritten)


def _brought_here(save: Callable[..., Any]) -> Callable[..., Any]:
    """A function that reads memory, which CUDA's tensors have and pretended ones have not."""
    return lambda value, *args, **kwargs: save(tree_map_only(Away, _inner, value), *args, **kwargs)


def _carry_out(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    packet = func.overloadpacket
    if packet is _aten._fused_sdp_choice:
        return 0  # by plain products: fused kernels are each of one device
    tensors = list(_tensors((*args, *kwargs.values())))
    away = any(isinstance(value, Away) for value in tensors)
    asked = kwargs.get("device")
    there = away if asked is None else torch.device(asked).type == THERE.type
    _complain(packet, args, tensors, away, there, kwargs)
    inner_kwargs = {name: _inner(value) for name, value in kwargs.items()}
    if asked is not None:
        inner_kwargs["device"] = HERE
    out = func(*map(_inner, args), **inner_kwargs)
    if not there:
        return out
    out = tree_map_only(torch.Tensor, Away, out) if isinstance(out, tuple | list) else _outer(out)
    return return_and_correct_aliasing(func, args, kwargs, out) if _aliases(func) else out


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Tensors among arguments, which may be lists of them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _inner(value: Any) -> Any:
    if isinstance(value, Away):
        return value.inner
    return type(value)(map(_inner, value)) if type(value) in (list, tuple) else value


def _outer(value: Any) -> Any:
    return Away(value) if isinstance(value, torch.Tensor) else value


@functools.cache
def _aliases(func: Any) -> bool:
    """Whether results are arguments, or views of them."""
    return any(returned.alias_info is not None for returned in func._schema.returns)


def _complain(
    packet: Any, args: Any, tensors: list[torch.Tensor], away: bool, there: bool, kwargs: dict[str, Any]
) -> None:
    """Raise what CUDA would."""
    generator = kwargs.get("generator")
    if there and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{packet}: expected a 'cuda' device type for generator but found 'cpu'")
    if away and packet in _PRODUCTS and not all(t.is_floating_point() or t.is_complex() for t in tensors):
        raise RuntimeError(f"{packet}: not implemented on CUDA for {tensors[0].dtype}")
    if packet in _MOVES or not away:
        return
    if packet in _INDEXED:
        indices = list(_tensors(args[1:2]))
        if not isinstance(args[0], Away):
            raise RuntimeError(f"{packet}: indices on cuda:0 into a tensor on cpu")
        tensors = [t for t in tensors if not any(t is index for index in indices)]
    if any(not isinstance(t, Away) and t.dim() > 0 for t in tensors):
        where = [f"{'cuda:0' if isinstance(t, Away) else 'cpu'} {tuple(t.shape)}" for t in tensors]
        raise RuntimeError(f"{packet}: expected all tensors to be on the same device, found {', '.join(where)}")


if __name__ == "__main__":
    from benchsuite.cli import main

    sys.argv[0] = "benchsuite"
    with pretend_gpu():
        main()

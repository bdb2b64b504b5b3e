"""A device that is not the CPU, for machines that have no other.

PyTorch's device ``meta`` lends its name: inside :func:`stand_in_device` a tensor of
it has values, computes on the CPU, and refuses to be mixed with tensors of the CPU, as
one on a GPU does.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ['DEVICE', 'StandInDevice', 'stand_in_device']

DEVICE = torch.device('meta')
aten = torch.ops.aten
_COPIES = {aten._to_copy, aten.copy_}
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
# The host needs their result, or the shape of it. `item` and `bool` are the first.
_WAITING = {
    *(aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select),
    *(aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount),
}


@contextmanager
def stand_in_device() -> Iterator['StandInDevice']:
    """A context in which tensors of :data:`DEVICE` compute."""
    with _Constants(), StandInDevice() as device:
        yield device


class StandInTensor(Tensor):
    """A tensor of :data:`DEVICE`; ``held`` is one of the CPU with its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> 'StandInTensor':
        """Wrap a tensor of the CPU."""
        # In inference mode, PyTorch would take a view of a weight for one of its own.
        with torch.inference_mode(False):
            wrapper = Tensor._make_wrapper_subclass(
                cls, held.shape, held.stride(), dtype=held.dtype, device=DEVICE
            )
        wrapper.held = held
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Nothing is computed where nothing is counted."""
        raise RuntimeError(f'{func} with {cls.__name__} outside of StandInDevice.')

    def __repr__(self) -> str:
        return f'StandInTensor({self.held})'


class StandInDevice(TorchDispatchMode):
    """What its operators do: compute on the CPU, by the rules of a GPU.

    Mixing devices is an error, but for copies, for operands without dimensions, and
    for indices on the CPU.

    Attributes:
        syncs (Counter[str]): Operators for which the host would wait for a GPU:
            reads, blocking copies, and shapes that depend on values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.syncs: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Compute on the CPU; refuse and count what a GPU would."""
        kwargs = dict(kwargs or {})
        with self:  # in inference mode, PyTorch has not taken it apart
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        operator = func.overloadpacket
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        here = [isinstance(tensor, StandInTensor) for tensor in tensors]
        result_here = any(here)
        if kwargs.get('device') is not None:
            result_here = torch.device(kwargs['device']) == DEVICE
            kwargs['device'] = 'cpu'
        if operator in _COPIES:
            source, target = here[-1], here[0] if len(here) > 1 else result_here
            blocking = source or not (kwargs.get('non_blocking') or any(args[2:]))
            self.syncs[str(operator)] += source != target and blocking
        elif any(here):
            indices = args[1] if operator in _INDEXING and here[0] else []
            strangers = [t for t in tensors if not isinstance(t, StandInTensor)]
            of_cpu = [t for t in strangers if any(t is index for index in indices)]
            joins = operator in (aten.cat, aten.stack)
            for tensor in strangers:
                free = any(tensor is t for t in of_cpu) or not (tensor.dim() or joins)
                if not (free and tensor.is_cpu):
                    raise RuntimeError(
                        f'{func}: a tensor of shape {tuple(tensor.shape)} on '
                        f'{tensor.device} among those on the stand-in device.'
                    )
            self.syncs[str(operator)] += _waits(operator, args, kwargs)
            self.syncs['index on the CPU'] += len(of_cpu)
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if func._schema.is_mutable and isinstance(result, Tensor):
            return args[0]
        return tree_map(_wrapped, result) if result_here else result


class _Constants(TorchFunctionMode):
    """Constants of Python on the device: no operator stands for their making."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and 'device' in kwargs:
            device = kwargs.pop('device')
            return func(*args, **kwargs).to(device)
        if isinstance(args[0] if args else None, StandInTensor):
            if func is Tensor.tolist:  # PyTorch has none for subclasses
                return args[0].cpu().tolist()
            if func is Tensor.new_tensor:
                device = kwargs.pop('device', DEVICE)
                kwargs.setdefault('dtype', args[0].dtype)
                return torch.tensor(args[1], **kwargs).to(device)
            if func in (Tensor.__getitem__, Tensor.__setitem__):
                index = args[1] if isinstance(args[1], tuple) else (args[1],)
                index = tuple(
                    torch.tensor(part).to(DEVICE) if isinstance(part, list) else part
                    for part in index
                )
                args = (args[0], index, *args[2:])
        return func(*args, **kwargs)


def _waits(operator: Any, args: tuple, kwargs: dict) -> bool:
    if operator is aten.repeat_interleave:
        return kwargs.get('output_size') is None
    if operator in _INDEXING:
        return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
    return operator in _WAITING


def _held(value: Any) -> Any:
    return value.held if isinstance(value, StandInTensor) else value


def _wrapped(value: Any) -> Any:
    return StandInTensor(value) if isinstance(value, Tensor) else value

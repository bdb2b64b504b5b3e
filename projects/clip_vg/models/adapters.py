"""Adapters: what of a frozen tower of CLIP is trained, at a small part of its size."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from open_clip.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    'LoRA',
    'adapt',
    'find_blocks',
    'is_adapter_weight',
    'merge_adapters',
    'train_adapted',
]


class LoRA(nn.Module):
    """A frozen linear map plus a trained one of low rank (LoRA, arXiv 2106.09685).

    The map W becomes W + scale * B A with A = ``lora_a`` of shape (rank, in) and B =
    ``lora_b`` of shape (out, rank), which begins as 0: nothing changes at first. W
    keeps its name in the state dict, so files of CLIP and checkpoints without the
    adapter load as before.

    Subclasses are linear maps of PyTorch and open_clip, which :meth:`attach` turns into
    them.
    """

    # The parameter that holds W, and the class that it was of.
    adapted: str
    plain: type[nn.Module]

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    lora_scale: float
    lora_dropout: float

    @classmethod
    def attach(
        cls, module: nn.Module, rank: int, alpha: float, dropout: float
    ) -> nn.Module:
        """Turn a linear map into one with an adapter, in place."""
        weight = module.get_parameter(cls.adapted)
        outputs, inputs = weight.shape
        adapted: Any = module
        # The class alone is changed, as torch.nn.utils.parametrize does it: whoever
        # holds the module, and whatever its weights are called, stays right.
        adapted.__class__ = cls
        adapted.lora_a = nn.Parameter(weight.new_empty(rank, inputs))
        adapted.lora_b = nn.Parameter(weight.new_zeros(outputs, rank))
        nn.init.kaiming_uniform_(adapted.lora_a, a=math.sqrt(5))  # as nn.Linear
        adapted.lora_scale, adapted.lora_dropout = alpha / rank, dropout
        return adapted

    def update(self, x: Tensor) -> Tensor:
        """What the adapter adds for inputs of shape (..., in), of shape (..., out)."""
        x = F.dropout(x, self.lora_dropout, self.training)
        # Scaled where it is smallest.
        return F.linear(F.linear(x, self.lora_a) * self.lora_scale, self.lora_b)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapter to the weight, and become what it was attached to."""
        weight = self.get_parameter(self.adapted)
        delta = self.lora_scale * (self.lora_b.double() @ self.lora_a.double())
        weight.copy_(weight.double() + delta)
        del self.lora_a, self.lora_b, self.lora_scale, self.lora_dropout
        module: Any = self
        module.__class__ = self.plain


class LoRALinear(LoRA, nn.Linear):
    """:class:`LoRA` of ``nn.Linear``."""

    adapted, plain = 'weight', nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in) to (..., out)."""
        return F.linear(x, self.weight, self.bias) + self.update(x)


class LoRAAttention(LoRA, Attention):
    """:class:`LoRA` of the queries, keys and values of open_clip's attention.

    Modifications of :class:`open_clip.transformer.Attention`:

    - the one matrix of all three has the adapter; it is no module of its own.
    """

    adapted, plain = 'in_proj_weight', Attention

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Update tokens (B, N, C); the mask (N, N) is added to logits."""
        own: Any = self
        projected = F.linear(x, own.in_proj_weight, own.in_proj_bias) + self.update(x)
        q, k, v = (
            part.unflatten(-1, (own.num_heads, -1)).transpose(1, 2)
            for part in projected.chunk(3, dim=-1)
        )
        if attn_mask is not None:
            attn_mask = attn_mask.to(q.dtype)
        mixed = F.scaled_dot_product_attention(
            own.ln_q(q), own.ln_k(k), v, attn_mask=attn_mask
        )
        return own.out_proj(own.ln_inner(mixed.transpose(1, 2).flatten(2)))


def _is_plain(attention: Any) -> bool:
    """Whether attention is scaled as CLIP's, which :class:`LoRAAttention` repeats."""
    return attention.logit_scale is None and attention.head_scale is None


def _linear_maps(block: nn.Module) -> Iterator[tuple[str, nn.Module, type[LoRA]]]:
    """Name, module and class with an adapter of each linear map of a block."""
    # Maps whose weights attention reads, without calling them: PyTorch's, and timm's
    # where it puts the biases of queries and values together.
    unreachable = set()
    module: Any
    for module in block.modules():
        if isinstance(module, nn.MultiheadAttention):
            unreachable.add(id(module.out_proj))
        elif getattr(module, 'q_bias', None) is not None:
            unreachable.add(id(module.qkv))
    for path, module in block.named_modules():
        if type(module) is Attention and _is_plain(module):
            yield 'in_proj', module, LoRAAttention
        elif type(module) is nn.Linear and id(module) not in unreachable:
            yield path.rpartition('.')[2], module, LoRALinear


def find_blocks(net: nn.Module) -> list[nn.Module]:
    """The blocks that a tower is made of, in order.

    They are the members of its lists and sequences of modules of one class; where there
    are several classes, of the one that has most of the weights.

    Args:
        net (nn.Module): The tower.

    Returns:
        list[nn.Module]: Those of a transformer, or the stages of a hierarchical tower.
    """
    found: dict[type, list[nn.Module]] = {}
    _collect_blocks(net, found)
    sizes = {
        kind: sum(p.numel() for block in blocks for p in block.parameters())
        for kind, blocks in found.items()
    }
    return found[max(sizes, key=lambda kind: sizes[kind])] if found else []


def _collect_blocks(module: nn.Module, found: dict[type, list[nn.Module]]) -> None:
    """Add the outermost blocks of a module to those of their class."""
    members = list(module.children())
    kinds = {type(member) for member in members}
    is_list = isinstance(module, (nn.ModuleList, nn.Sequential)) and len(kinds) == 1
    # A layer without parts, such as an activation, is no block.
    if is_list and any(True for _ in members[0].children()):
        found.setdefault(kinds.pop(), []).extend(members)
        return
    for member in members:
        _collect_blocks(member, found)


def add_lora(
    blocks: Sequence[nn.Module],
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    indices: Sequence[int] | None = None,
) -> None:
    """Give linear maps of transformer blocks a :class:`LoRA`.

    Args:
        blocks (Sequence[nn.Module]): Of a tower; see :func:`find_blocks`.
        rank (int): Defaults to 8.
        alpha (float, optional): The adapter is multiplied by alpha / rank. Defaults to
            None: the rank.
        dropout (float): Dropout on the inputs of the adapter. Defaults to 0.
        targets (Sequence[str], optional): Names of linear maps, such as 'in_proj',
            'out_proj', 'c_fc' and 'c_proj' in CLIP. Defaults to None: all.
        indices (Sequence[int], optional): Numbers of blocks, from 0, or from the last
            as -1. Defaults to None: all.

    Raises:
        ValueError: An option is out of range, or there is no such map or block.
    """
    if rank < 1 or not 0 <= dropout < 1:
        raise ValueError(
            f'adapter: rank={rank}, dropout={dropout}; expected a rank of 1 or more '
            'and a dropout in [0, 1).'
        )
    count = len(blocks)
    chosen = range(count) if indices is None else indices
    if not chosen or not all(-count <= index < count for index in chosen):
        raise ValueError(
            f'adapter: indices={chosen}, but the tower has the blocks 0 to {count - 1}.'
        )
    found = [
        linear
        for index in sorted({index % count for index in chosen})
        for linear in list(_linear_maps(blocks[index]))
    ]
    names = {name for name, _, _ in found}
    unknown = [target for target in targets or () if target not in names]
    if unknown or not found:
        raise ValueError(
            f'adapter: targets={targets}, but the linear maps of these blocks are '
            f'{sorted(names)}.'
        )
    for name, module, kind in found:
        if targets is None or name in targets:
            kind.attach(module, rank, rank if alpha is None else alpha, dropout)


def train_biases(net: nn.Module) -> None:
    """Train the biases of a tower (BitFit, arXiv 2106.10199)."""
    biases = [
        parameter
        for name, parameter in net.named_parameters()
        if name.rpartition('.')[2].endswith('bias')
    ]
    if not biases:
        raise ValueError("adapter=dict(kind='bias'), but the tower has no biases.")
    for parameter in biases:
        parameter.requires_grad_(True)


def train_last_blocks(blocks: Sequence[nn.Module], number: int = 1) -> None:
    """Train the last blocks of a tower; no gradient enters those before."""
    if not 1 <= number <= len(blocks):
        raise ValueError(
            f"adapter=dict(kind='last_blocks', number={number}), but the tower has "
            f'{len(blocks)} blocks.'
        )
    for block in blocks[-number:]:
        block.requires_grad_(True)


_KINDS = ('lora', 'bias', 'last_blocks')


def adapt(net: nn.Module, kind: str = '', **options: Any) -> None:
    """Let a small part of a frozen tower be trained.

    Args:
        net (nn.Module): The tower, frozen.
        kind (str): 'lora' (see :func:`add_lora`), 'bias' (see :func:`train_biases`) or
            'last_blocks' (see :func:`train_last_blocks`).
        options: Of the kind.

    Raises:
        ValueError: The kind is unknown, or an option does not fit the tower.
    """
    if kind == 'lora':
        add_lora(find_blocks(net), **options)
    elif kind == 'last_blocks':
        train_last_blocks(find_blocks(net), **options)
    elif kind == 'bias':
        train_biases(net, **options)
    else:
        raise ValueError(
            f'adapter=dict(kind={kind!r}, ...); expected one of {list(_KINDS)}.'
        )


def is_adapter_weight(name: str) -> bool:
    """Whether an entry of a state dict is of a :class:`LoRA`, and none of CLIP's."""
    return name.rpartition('.')[2] in ('lora_a', 'lora_b')


def train_adapted(net: nn.Module) -> None:
    """Set to training mode what is trained of a tower that is in eval mode.

    What is frozen keeps its statistics, and drops nothing.
    """
    for module in net.modules():
        parameters = list(module.parameters())
        whole = bool(parameters) and all(p.requires_grad for p in parameters)
        if whole or isinstance(module, LoRA):
            module.train()


def merge_adapters(model: nn.Module) -> None:
    """Merge each :class:`LoRA` of a model into the weight that it adapts, in place."""
    for module in list(model.modules()):
        if isinstance(module, LoRA):
            module.merge()

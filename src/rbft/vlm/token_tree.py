"""Token sequences that share their beginnings as the nodes of one row: a trie and what each node sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenTree:
    """Sequences after one prompt, each token of a shared beginning standing once.

    Tree attention as in SpecInfer (Miao et al., arXiv 2305.09781, section 4.2). The last token of a sequence predicts
    nothing and is no node, unless a longer sequence goes on after it.

    Args:
        ids: (N,) token of each node; a node stands after its parent.
        parents: (N,) the node before; -1 is the prompt's last token.
        depths: (N,) nodes between a node and the prompt.
        sources: For each sequence (T,), the node whose logits are about each of its tokens; -1 is the prompt's last
            token.
    """

    ids: Tensor
    parents: Tensor
    depths: Tensor
    sources: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> TokenTree:
        """The tree of some sequences, none of them empty."""
        ids: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        children: dict[tuple[int, int], int] = {}
        sources: list[Tensor] = []
        for sequence in sequences:
            node, path = -1, [-1]
            for depth, token in enumerate(sequence.tolist()[:-1]):
                key = (node, token)
                if key not in children:
                    children[key] = len(ids)
                    ids.append(token)
                    parents.append(node)
                    depths.append(depth)
                node = children[key]
                path.append(node)
            sources.append(torch.tensor(path))
        return cls(
            torch.tensor(ids, dtype=torch.long),
            torch.tensor(parents, dtype=torch.long),
            torch.tensor(depths, dtype=torch.long),
            tuple(sources),
        )

    def lineage(self) -> Tensor:
        """(N, N) bool: whether the column's node is the row's node or stands on its way from the prompt."""
        # a parent comes before its children, so the way to it is known when they are reached
        seen = torch.zeros((len(self), len(self)), dtype=torch.bool)
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                seen[node] = seen[parent]
            seen[node, node] = True
        return seen


def split_by_size(sequences: Sequence[Tensor], most: int) -> list[list[int]]:
    """Indices of the sequences in groups whose trees have at most `most` nodes, or hold one sequence.

    Sequences of common beginnings come together, so that little is read twice.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].tolist())
    groups: list[list[int]] = []
    nodes: set[tuple[int, ...]] = set()
    for index in order:
        tokens = tuple(sequences[index].tolist())
        prefixes = {tokens[:end] for end in range(1, len(tokens))}
        if not groups or len(nodes | prefixes) > most:
            groups.append([])
            nodes = set()
        groups[-1].append(index)
        nodes |= prefixes
    return groups

"""Sequences that share beginnings: each node once, seen by its own line only."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rbft.vlm.token_tree import TokenTree, split_by_size

sequences = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=8)


def lines(tree: TokenTree) -> list[list[int]]:
    """The tokens between the prompt and each node, that node's included, by walking up."""
    found = []
    for node in range(len(tree)):
        line: list[int] = []
        while node >= 0:
            line.insert(0, int(tree.ids[node]))
            node = int(tree.parents[node])
        found.append(line)
    return found


@given(sequences)
def test_every_beginning_is_one_node(given_sequences):
    tree = TokenTree.of([torch.tensor(s) for s in given_sequences])
    expected = {tuple(s[:end]) for s in given_sequences for end in range(1, len(s))}
    assert sorted(map(tuple, lines(tree))) == sorted(expected)
    assert tree.depths.tolist() == [len(line) - 1 for line in lines(tree)]


@given(sequences)
def test_sources_stand_right_before_each_token(given_sequences):
    tree = TokenTree.of([torch.tensor(s) for s in given_sequences])
    line = [*lines(tree), []]  # the last is the prompt itself, addressed by -1
    for sequence, sources in zip(given_sequences, tree.sources, strict=True):
        assert [line[int(node)] for node in sources] == [sequence[:end] for end in range(len(sequence))]


@given(sequences)
def test_a_node_sees_its_own_line(given_sequences):
    tree = TokenTree.of([torch.tensor(s) for s in given_sequences])
    line, seen = lines(tree), tree.lineage()
    for row in range(len(tree)):
        for column in range(len(tree)):
            assert bool(seen[row, column]) == (line[column] == line[row][: len(line[column])])


@given(sequences, st.integers(1, 20))
def test_groups_hold_every_sequence_once_and_no_more_nodes_than_allowed(given_sequences, most):
    tensors = [torch.tensor(s) for s in given_sequences]
    groups = split_by_size(tensors, most)
    assert sorted(i for group in groups for i in group) == list(range(len(tensors)))
    for group in groups:
        assert len(group) == 1 or len(TokenTree.of([tensors[i] for i in group])) <= most


def test_sequences_of_one_beginning_come_into_one_group():
    tensors = [torch.tensor(s) for s in ([1, 1, 1, 2], [5, 5, 5, 2], [1, 1, 1, 3], [5, 5, 5, 3])]
    assert [sorted(group) for group in split_by_size(tensors, 3)] == [[0, 2], [1, 3]]

"""plain() takes a copy that the learner's object has no say in."""

import warnings
from collections import OrderedDict, namedtuple
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
import torch

from slmlab.checking.values import Opaque, as_array, count_numbers, leaves, plain


class Liar:
    """Equal to everything, and claims to be a float."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    __class__ = float  # type: ignore[assignment]

    def __float__(self) -> float:
        return 1.0


class LyingInt(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __int__(self) -> int:
        return 42


class LyingList(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter([1, 2, 3])


class LyingTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *args: Any, **kwargs: Any) -> Any:
        return torch.tensor(True)


class LyingArray(np.ndarray):
    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return np.array([7.0])

    def __eq__(self, other: object) -> Any:
        return True


class Colour(IntEnum):
    RED = 3


def test_a_liar_becomes_opaque() -> None:
    assert plain(Liar()) == Opaque("Liar")


def test_subclasses_lose_their_overrides() -> None:
    number = plain(LyingInt(5))
    assert type(number) is int and number == 5 and number != 6
    assert plain(LyingList([9])) == [9]
    assert type(plain(Colour.RED)) is int
    array = plain(np.array([1.0, 2.0]).view(LyingArray))
    assert type(array) is np.ndarray and array.tolist() == [1.0, 2.0]
    assert plain(torch.ones(2).as_subclass(LyingTensor)) == Opaque("LyingTensor")


def test_a_forged_method_on_a_tensor_is_not_asked() -> None:
    tensor = torch.tensor([1.0])
    for name in ("detach", "clone", "to", "to_dense"):
        setattr(tensor, name, lambda *_, **__: torch.tensor([2.0]))
    assert plain(tensor).tolist() == [1.0]


def test_the_copy_shares_no_memory() -> None:
    tensor, array, nested = torch.zeros(3), np.zeros(3), [[0]]
    copies = plain((tensor, array, nested))
    tensor += 1
    array += 1
    nested[0][0] = 1
    assert copies[0].sum() == 0 and copies[1].sum() == 0 and copies[2] == [[0]]


def test_numpy_scalars_and_named_tuples_are_ordinary() -> None:
    assert type(plain(np.float32(0.5))) is float
    assert type(plain(np.int64(3))) is int
    assert plain(np.bool_(True)) is True
    point = namedtuple("point", "x y")
    assert plain(point(1, [2])) == (1, [2])
    assert plain(OrderedDict(a=(1,))) == {"a": (1,)}


def test_parameters_gradients_and_views_are_detached() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 3))
    result = plain(weight.t())
    assert not result.requires_grad and result.shape == (3, 2)
    assert type(plain(weight)) is torch.Tensor


def test_bfloat16_and_conjugates_reach_numpy() -> None:
    assert as_array(plain(torch.tensor([1.5], dtype=torch.bfloat16))).dtype == np.float32
    assert as_array(plain(torch.tensor([1 + 2j]).conj())).tolist() == [1 - 2j]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ((x for x in [1]), "generator"),
        (len, "builtin_function_or_method"),
        (object(), "object"),
        (np.array([object()]), "array of dtype object"),
        (torch.empty(2, device="meta"), "torch.strided tensor on meta"),
    ],
)
def test_what_is_not_data_is_named(value: Any, name: str) -> None:
    assert plain(value) == Opaque(name)


def test_a_list_that_holds_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "holds itself" in leaves(plain(loop))[0][1].type_name


def test_structures_that_fan_out_end() -> None:
    twice: list[Any] = []
    twice += [twice, {"again": twice}]
    assert plain(twice) == [Opaque("list that holds itself"), {"again": plain(twice)[0]}]
    shared: Any = [0.0]
    for _ in range(18):
        shared = [shared] * 4
    assert plain(shared) == Opaque("list of more than 200000 items")
    one = [1, 2]
    assert plain([one, one]) == [[1, 2], [1, 2]]
    deep: list[Any] = []
    for _ in range(30):
        deep = [deep]
    found = plain(deep)
    while isinstance(found, list):
        found = found[0]
    assert "nested deeper" in found.type_name


def test_rare_tensors_are_named_or_widened() -> None:
    with warnings.catch_warnings():
        # torch warns that these are experimental or on their way out.
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)
        nested = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])
        half = torch.tensor([1 + 2j]).to(torch.complex32)
    assert plain(quantized) == Opaque("quantized torch.Tensor")
    assert plain(nested) == Opaque("nested torch.Tensor")
    assert as_array(plain(half)).tolist() == [1 + 2j]


def test_numbers_are_counted_through_structures() -> None:
    assert count_numbers({"a": torch.zeros(2, 3), "b": [1, (2, None)]}) == 9

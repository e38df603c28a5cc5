"""hypothesis strategies for plain data, and for executions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slmlab.checking import Execution
from slmlab.checking.failure import Failure
from slmlab.checking.values import Opaque
from slmlab.grading.inside.layout import TORCH_DTYPES

texts = st.text(st.characters(), max_size=300) | st.text('ab\ud83d\ude00,[{"\\\n', max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(width=64)
    | st.complex_numbers()
    | texts
    | st.binary(max_size=40)
    | texts.map(Opaque)
)
shapes = st.lists(st.integers(0, 3), max_size=4)
_numpy_dtypes = st.sampled_from(
    [
        *("?", "<i1", "<i8", ">i4", "<u2", ">u8", "<f2", "<f4", ">f8", "<c8", ">c16"),
        *(np.dtype(wide).str for wide in (np.longdouble, np.clongdouble)),
    ]
)
arrays = _numpy_dtypes.flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)


@st.composite
def tensors(draw: Any) -> torch.Tensor:
    """A tensor of any dtype that travels, from random bytes, sometimes transposed."""
    dtype = getattr(torch, draw(st.sampled_from(TORCH_DTYPES)))
    shape = draw(shapes)
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    content = draw(st.binary(min_size=count, max_size=count))
    flat = torch.tensor(list(content), dtype=torch.uint8)
    flat = flat % 2 if dtype == torch.bool else flat
    tensor = flat.view(dtype).reshape(shape)
    return tensor.permute(draw(st.permutations(range(len(shape))))) if shape else tensor


keys = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=4
)
plain_data = st.recursive(
    scalars | arrays | tensors(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.frozensets(keys, max_size=4)
    ),
    max_leaves=12,
)
short = st.text(max_size=60)
failures = st.builds(
    Failure,
    short,
    short,
    st.none() | short,
    st.none() | st.integers(0, 10**6),
    st.none() | short,
)
_common = {"changed": st.lists(short, max_size=3).map(tuple), "printed": st.text(max_size=2000)}
executions = (
    st.builds(Execution, output=plain_data, **_common)
    | st.builds(Execution, failure=failures, **_common)
    | st.builds(Execution, unattempted=st.just(True), **_common)
)

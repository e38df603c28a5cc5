"""Floor 0: weights in few bits: schemes, packed tensors, quantised layers and models."""

from slmlab.quant.allocation import allocate_bits
from slmlab.quant.checkpoint import load_quantized, save_quantized
from slmlab.quant.linear import QuantizedLinear
from slmlab.quant.model import linear_layers, model_bytes, quantize_model
from slmlab.quant.packing import pack_codes, unpack_codes
from slmlab.quant.scheme import Scheme, parse_scheme
from slmlab.quant.tensor import QuantizedTensor, quantize_tensor

__all__ = [
    "QuantizedLinear",
    "QuantizedTensor",
    "Scheme",
    "allocate_bits",
    "linear_layers",
    "load_quantized",
    "model_bytes",
    "pack_codes",
    "parse_scheme",
    "quantize_model",
    "quantize_tensor",
    "save_quantized",
    "unpack_codes",
]

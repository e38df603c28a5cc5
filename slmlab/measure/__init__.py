"""Floor 4: what a model costs and what it knows: bytes, seconds, nats, and their ceilings."""

from slmlab.measure.architecture import Architecture, read_architecture
from slmlab.measure.devices import Device, device, devices
from slmlab.measure.divergence import KLResult, kl_to_reference, position_kl_nats
from slmlab.measure.memory import PeakMemory, current_rss, peak_memory
from slmlab.measure.perplexity import Score, perplexity, score
from slmlab.measure.predict import Prediction, predict_decode, weight_bytes_stored
from slmlab.measure.results import load_result
from slmlab.measure.roofline import Roofline, last_level_cache_bytes
from slmlab.measure.speed import Speed, tokens_per_second
from slmlab.measure.text_score import TextScore, bits_per_byte, score_text
from slmlab.measure.timing import Interleaved, Times, interleaved
from slmlab.quant.scheme import Scheme, parse_scheme

__all__ = [
    "Architecture",
    "Device",
    "Interleaved",
    "KLResult",
    "PeakMemory",
    "Prediction",
    "Roofline",
    "Scheme",
    "Score",
    "Speed",
    "TextScore",
    "Times",
    "bits_per_byte",
    "current_rss",
    "device",
    "devices",
    "interleaved",
    "kl_to_reference",
    "load_result",
    "last_level_cache_bytes",
    "parse_scheme",
    "peak_memory",
    "perplexity",
    "position_kl_nats",
    "predict_decode",
    "read_architecture",
    "score",
    "score_text",
    "tokens_per_second",
    "weight_bytes_stored",
]

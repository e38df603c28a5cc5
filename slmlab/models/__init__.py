"""Floor 0: a readable decoder, its config, and the loaders."""

from slmlab.models.cache import Cache
from slmlab.models.config import ModelConfig, RopeConfig
from slmlab.models.decoder import Decoder
from slmlab.models.loading import model_directory, save_decoder
from slmlab.models.norm import rms_norm
from slmlab.models.rope import apply_rope, rope_inverse_frequencies, rope_tables

__all__ = [
    "Cache",
    "Decoder",
    "ModelConfig",
    "RopeConfig",
    "apply_rope",
    "model_directory",
    "rms_norm",
    "rope_inverse_frequencies",
    "rope_tables",
    "save_decoder",
]

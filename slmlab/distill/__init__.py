"""Floor 3: knowledge distillation. ``python -m slmlab.distill`` runs it from a config file."""

from slmlab.distill.distiller import Distiller
from slmlab.distill.hidden import HiddenStateLoss, uniform_layer_map
from slmlab.distill.history import History, NonFiniteLoss
from slmlab.distill.initialisation import (
    block_influence,
    depth_pruned,
    evenly_spaced_layers,
    loss_increase,
    student_from_layers,
)
from slmlab.distill.losses import (
    DIVERGENCES,
    Divergence,
    LogitsNotFinite,
    distillation_loss,
)
from slmlab.distill.methods import METHODS, Hard, Hidden, Logits, Method, OnPolicy, Sequence, TopK
from slmlab.distill.on_policy import student_sequences
from slmlab.distill.sequence import teacher_sequences
from slmlab.distill.settings import Settings
from slmlab.distill.topk import TopKLogits, top_k_logits, top_k_loss
from slmlab.distill.vocabulary import check_same_tokenizer, check_same_vocabulary

__all__ = [
    "DIVERGENCES",
    "Distiller",
    "Divergence",
    "Hard",
    "Hidden",
    "HiddenStateLoss",
    "History",
    "LogitsNotFinite",
    "Logits",
    "METHODS",
    "Method",
    "NonFiniteLoss",
    "OnPolicy",
    "Sequence",
    "Settings",
    "TopK",
    "TopKLogits",
    "block_influence",
    "check_same_tokenizer",
    "check_same_vocabulary",
    "depth_pruned",
    "distillation_loss",
    "evenly_spaced_layers",
    "loss_increase",
    "student_from_layers",
    "student_sequences",
    "teacher_sequences",
    "top_k_logits",
    "top_k_loss",
    "uniform_layer_map",
]

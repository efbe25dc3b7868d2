"""Process reward models: how a checkpoint is read as a reward in [0, 1] for each step of a solution."""

from prm.checkpoint import PrmConfig
from prm.codec import PrmCodec
from prm.confidence import CONFIDENCES, ConfidenceScorer
from prm.detect import CODECS, detect_prm
from prm.label_tokens import LabelTokenCodec
from prm.scorer import PrmScorer

__all__ = [
    "CODECS",
    "CONFIDENCES",
    "ConfidenceScorer",
    "LabelTokenCodec",
    "PrmCodec",
    "PrmConfig",
    "PrmScorer",
    "detect_prm",
]

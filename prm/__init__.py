"""Process reward models: how a checkpoint is read as a reward in [0, 1] for each step of a solution."""

from prm.checkpoint import PrmConfig
from prm.codec import NamedScorer, PrmCodec, PrmFamily, ScorerParts
from prm.confidence import CONFIDENCES, ConfidenceScorer
from prm.detect import codec_of, detect_prm, family
from prm.label_tokens import LabelTokenCodec
from prm.scorer import PrmScorer

__all__ = [
    "CONFIDENCES",
    "ConfidenceScorer",
    "LabelTokenCodec",
    "NamedScorer",
    "PrmCodec",
    "PrmConfig",
    "PrmFamily",
    "PrmScorer",
    "ScorerParts",
    "codec_of",
    "detect_prm",
    "family",
]

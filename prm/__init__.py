"""Process reward models: how a checkpoint is read as a reward in [0, 1] for each step of a solution."""

from prm.codec import LabelTokenCodec, PrmCodec
from prm.scorer import PrmScorer

__all__ = ["LabelTokenCodec", "PrmCodec", "PrmScorer"]

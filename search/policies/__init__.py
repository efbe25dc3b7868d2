"""Search policies: how a search spends its width on the leaves of its tree. Pure functions of the tree."""

from search.policies.beam import Beam
from search.policies.best_of_n import BestOfN
from search.policies.dvts import Dvts
from search.policies.mcts import Mcts
from search.policies.particle import ParticleFilter
from search.policies.rebase import Rebase
from search.policies.rolling import Rolling

__all__ = ["Beam", "BestOfN", "Dvts", "Mcts", "ParticleFilter", "Rebase", "Rolling"]

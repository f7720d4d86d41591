"""Re-ranking under the names that users look for: TransReID's, and the spectral one."""

from utils.ranking.reranking import re_ranking
from utils.ranking.spectral import spectral_rerank

__all__ = ["re_ranking", "spectral_rerank"]

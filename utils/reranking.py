"""Re-ranking under TransReID's name."""

from utils.ranking.reranking import re_ranking

__all__ = ["re_ranking"]

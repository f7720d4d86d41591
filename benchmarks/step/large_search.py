"""Search a large index in a process that has nothing else: what `benchmarks/large_index.py` starts.

python benchmarks/step/large_search.py INDEX.shards QUERIES.npy TOPK RESULT.json
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.search.large_index import read_large
from tools.search.nearest import nearest_in


def memory(kind: str) -> float:
    """Return VmRSS or VmHWM (its peak) of this process in MB, as Linux tells it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024 / 1e6


def main(index: str, queries: str, topk: str, result: str) -> None:
    """Search the queries one after the other; write what was found, the seconds of each, and the memory."""
    import faiss

    faiss.omp_set_num_threads(1)
    query = np.load(queries, allow_pickle=False)
    before, found, seconds = memory("VmRSS"), [], []
    for one in query:
        start = time.perf_counter()
        names, _ = nearest_in(one[None], read_large(Path(index)), int(topk))
        seconds.append(time.perf_counter() - start)
        found.append([int(name) for name in names[0]])
    content = {"found": found, "seconds": seconds, "before_mb": before, "peak_mb": memory("VmHWM")}
    Path(result).write_text(json.dumps(content))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run every benchmark and print one JSON line each: ``make bench``.

    python benchmarks/run.py [--quick]

Peers and we run in one process per workload, in turn, on the same data; absolute times depend on the machine,
the ratios are what to read. Results go to out/bench/*.json as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
JOBS = {
    "nuts_float64": ["nuts.py", "--dtype", "float64", "--pyro"],
    "nuts_float32": ["nuts.py", "--dtype", "float32"],
    "em": ["em.py"],
    "factor": ["factor.py", "--nuts"],
    "hmm_float64": ["hmm.py"],
    "hmm_nuts": ["hmm_nuts.py"],
    "translation": ["translation.py", "--nuts", "--warm"],
    "nuts_start": ["nuts_start.py"],
    "svi_memory": ["svi_batches.py", "--backends", "numpyro", "--steps", "300", "--full-steps", "0"],
    "svi_known": ["svi_batches.py", "--known"],
    "svi_optimum": ["svi_optimum.py"],
    "nuts_transport": ["nuts_transport.py"],
    "vae": ["vae.py"],
    "compile": ["compile.py"],
}
QUICK = {
    "nuts_float64": ["nuts.py", "--dtype", "float64", "--rounds", "1"],
    "em": ["em.py", "--runs", "1"],
    "factor": ["factor.py", "--runs", "3"],
    "hmm_float64": ["hmm.py"],
    "translation": ["translation.py", "--runs", "3"],
    "nuts_start": ["nuts_start.py", "--seeds", "1", "--case", "eight_schools", "gmm"],
    "vae": ["vae.py", "--rows", "6400", "--rounds", "2"],
    "compile": ["compile.py", "--case", "gmm"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round each, without Pyro")
    jobs = QUICK if parser.parse_args().quick else JOBS
    out = HERE.parent / "out" / "bench"
    out.mkdir(parents=True, exist_ok=True)
    print(json.dumps({"machine": platform.machine(), "cpus": _cpus(), "python": platform.python_version()}))
    failed = 0
    for name, (script, *settings) in jobs.items():
        done = subprocess.run(
            [sys.executable, str(HERE / script), *settings], capture_output=True, text=True, check=False
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            failed += 1
            print(f"{name}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
            continue
        (out / f"{name}.json").write_text(lines[-1] + "\n")
        print(name, lines[-1], flush=True)
    return 1 if failed else 0


def _cpus() -> int:
    import os

    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())

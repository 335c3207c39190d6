"""Tokenize on two small Ray nodes of this machine; prints which were used. Run by test_engines.

python -m tests.data.ray_cluster WORLD OUT
"""

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray._private import services
from ray.cluster_utils import Cluster

from lumoomni.data import engines, tokenize_run
from lumoomni.data.engines import Crew, on_ray
from lumoomni.errors import InputError
from lumoomni.runtime import Progress
from tests.data.shard_world import ROWS

MEMORY = 80 * 1024 * 1024
PATIENCE = 300.0


class Counted(Progress):
    """Counts what bars are told."""

    ticks = 0

    def task(self, name: str, *, total: int, unit: str = "step", start: int = 0) -> Any:
        return self

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, advance: int = 1, **numbers: float) -> None:
        self.ticks += advance


def main(world: Path, out: Path) -> None:
    """Ends with one JSON line."""
    services.get_node = patient(services.get_node)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False,
        },
    )  # fmt: skip
    try:
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        cluster.wait_for_nodes(timeout=PATIENCE)
        ray.init(address=cluster.address, log_to_driver=False)
        progress, marks, real = Counted(silent=True), out.with_name("nodes"), engines._remotely
        marks.mkdir()

        def remotely(space: str, job: Any) -> Any:
            (marks / ray.get_runtime_context().get_node_id()).touch()
            return real(space, job)

        engines._remotely = remotely
        tokenize_run.tokenize(
            world / "data/manifest.jsonl", world / "space", out, engine="ray", max_bad=0.1,
            rows_per_shard=ROWS, progress=progress,
        )  # fmt: skip
        nodes = sum(node["Alive"] for node in ray.nodes())
        engines._remotely = real
        refusal, used = refused(world), {one.name for one in marks.iterdir()}
        print(json.dumps({"nodes": nodes, "used": sorted(used), "ticks": progress.ticks,
                          "refusal": refusal}))  # fmt: skip
    finally:
        ray.shutdown()
        cluster.shutdown()


def patient(real: Any) -> Any:
    """The same call, which waits for a node that starts slowly; Ray itself gives it 30 seconds."""

    def call(*given: Any, **named: Any) -> Any:
        limit = time.monotonic() + PATIENCE
        while True:
            try:
                return real(*given, **named)
            except RuntimeError:
                if time.monotonic() > limit:
                    raise
                time.sleep(1)

    return call


def refused(world: Path) -> str:
    """What a job of another space is told, through the cluster."""
    plan = tokenize_run._plan(world / "data/manifest.jsonl", world / "space", ROWS)
    crew = Crew(space=str(world / "space"), stop=threading.Event(), tick=lambda n: None)
    try:
        list(on_ray([replace(plan.jobs[0], abi="0" * 64)], crew))
    except InputError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

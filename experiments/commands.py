"""The commands: one table of names."""

from __future__ import annotations

import importlib.util

COMMANDS = {
    "cache": "what otfew keeps on disk to be quicker: list it, keep it small, clear it",
    "classify": "your own photos after a few labelled ones: answers with confidence, or unknown, as a file and a page",
    "check": "whether a method, data set, network, solver or nodes of your own are what they must be",
    "compare": "run methods on the same episodes and compare them",
    "ablate-weights": "which weights of the nodes: Table 2 of the DeepEMD paper",
    "cross-domain": "one backbone on several data sets: Table 5 of the DeepEMD paper",
    "device-check": "check and time this machine's GPU: its tests, then kernels, methods and trainings",
    "does-ot-matter": "from the LP to no matching at all: accuracy, time, and where the gain comes from",
    "draw": "the pictures of finished runs again, from their figures alone",
    "folders": 'is method="auto" as good as a method fixed beforehand: 40 folders that had no part in its table',
    "long-tail": "OT re-weighting for long-tailed training against its rivals",
    "episode": "look at an episode of a run: its images, and what each method took them for",
    "extractors": "kinds of nodes with the same methods: Table 3 of the DeepEMD paper",
    "latent-space": "LST beside PT-MAP and other transductive methods: Tables 2 to 4 of the LST paper",
    "metatrain": "train a backbone end to end on episodes, through a method and its transport solver",
    "metric-learning": "compare losses of metric learning on the same batches",
    "pretrain": "train a backbone on base classes",
    "prior": 'renew the table behind the classifier\'s method="auto": candidates on validation classes',
    "regimes": "when does transport pay: a map along nine axes, and advice that is tested on held-back data",
    "reproduce": "the claims of the papers, judged by runs: the reproduction ledger",
    "list": "the names of data sets, backbones, nodes, methods and solvers",
    "retrieve": "find images of the same class, ranked again node by node: Table 8 of the DeepEMD paper",
    "serve": "a page on this machine for your own photos: drop, see why, correct, save",
    "thresholds": "what refusals and near-duplicates of one's own photos go by, measured where nothing is judged",
    "shots": "accuracy against the number of shots: Figure 5 of the DeepEMD paper",
    "show-flows": "the transport plan between two images as pictures, and where it lands on glyphs",
    "transcript": "classify on photos whose classes are known: what it says beside the truth, as a record",
    "transfer": "accuracy against the severity of a shift of the queries, and what transport gains under one",
    "solver-timings": "time every transport solver and compare what they reach",
}
"""Name, with hyphens -> what it does. Each is a file of this folder, or a folder with a file ``command``."""


def module_of(name: str) -> str:
    """Name the module of a command, whose function ``main`` reads ``sys.argv`` unless it is given arguments."""
    module = f"otfew.experiments.{name.replace('-', '_')}"
    spec = importlib.util.find_spec(module)
    return f"{module}.command" if spec and spec.submodule_search_locations is not None else module

"""Any network's maps by onnxruntime in place of torch, on CPUs: ``onnx:NAME``.

The network is exported when it is loaded, once for each image size, and kept in the cache. What onnxruntime makes of it
is compared with torch's own maps before it is used. Maps are not the same bit for bit, so features have a key of their
own; the weights are the same, and so is the fingerprint by which a saved classifier knows its network.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from otfew.backbones.base import Backbone
from otfew.backbones.cards import Card
from otfew.errors import UserError
from otfew.plugins import told
from otfew.runs.files import cache_directory, write_atomically

PREFIX = "onnx:"
"""Before the name of a network."""
TOLERANCE = 1e-4
"""Largest difference of maps from torch's, relative to their largest value."""
OPSET = 17
"""Version of the operators that networks are exported to."""
_FORMAT = 1


def installed() -> bool:
    """Whether networks can be exported and run here."""
    return find_spec("onnxruntime") is not None and find_spec("onnx") is not None


def from_network(backbone: Backbone) -> Backbone:
    """Let onnxruntime compute a network's maps.

    Args:
        backbone: Any.

    Returns:
        The same network with a digest of its own; or, with a note that says why, as it was, where it cannot be exported
        or onnxruntime computes something else.

    Raises:
        UserError: onnxruntime or onnx is missing.
    """
    if not installed():
        raise UserError(f'backbone "{PREFIX}{backbone.name}" needs onnxruntime: run pip install "otfew[onnx]".')
    made = OnnxBackbone(backbone)
    side = backbone.card.resolution
    try:
        made.prepare((side, side))
    except UserError as error:
        said = f"{str(error).rstrip('.')}: torch computes the maps."
        return Backbone(backbone.module, backbone.card, backbone.digest, (*backbone.notes, said))
    return made


class OnnxBackbone(Backbone):
    """A backbone whose maps onnxruntime computes where its weights are on the CPU; elsewhere torch does.

    Args:
        backbone: The network.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._network = backbone
        super().__init__(backbone.module, backbone.card, _digest(backbone), backbone.notes)
        self._sessions: dict[tuple[tuple[int, int], int], Any] = {}

    def with_card(self, card: Card) -> Backbone:
        """Return the same network with a card that says more; see ``Backbone``."""
        return OnnxBackbone(self._network.with_card(card))

    def prepare(self, size: tuple[int, int]) -> None:
        """Load the network for images of a size (height, width), exporting it where that has not been done.

        Raises:
            UserError: It cannot be exported, or onnxruntime does not run it or computes something else.
        """
        key = size, torch.get_num_threads()
        if key not in self._sessions:
            self._sessions[key] = self._checked(size, key[1])

    def _forward(self, images: Tensor) -> Tensor:
        if not images.is_cpu:
            return super()._forward(images)
        height, width = (int(side) for side in images.shape[2:])
        self.prepare((height, width))
        return _run(self._sessions[(height, width), torch.get_num_threads()], images)

    def _checked(self, size: tuple[int, int], threads: int) -> Any:
        """Make a session, and compare what it computes with torch's maps."""
        path = cache_directory() / "onnx" / f"{_key(self.digest, size)}.onnx"
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 4 - 2
        with torch.inference_mode():
            expected = super()._forward(images.contiguous(memory_format=torch.channels_last))
        if not isinstance(expected, Tensor):
            raise UserError(f"backbone {self.name!r} returns no maps that can be exported.")
        reason = ""
        # What was kept may be damaged: then it is exported anew, once.
        for kept in (True, False):
            if kept and not path.is_file():
                continue
            data = path.read_bytes() if kept else self._exported(size)
            try:
                session = _session(data, threads)
                found = _run(session, images)
                apart = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
            except Exception as error:  # onnxruntime raises classes of its own
                reason = told(error)
                continue
            if found.shape == expected.shape and apart <= TOLERANCE:
                if not kept:
                    write_atomically(path, data)
                return session
            reason = f"its maps differ from torch's by {apart:.1g} of their largest"
        raise UserError(f"onnxruntime does not compute backbone {self.name!r} at {size[0]}x{size[1]} ({reason}).")

    def _exported(self, size: tuple[int, int]) -> bytes:
        """Export the network, for any number of images of one size."""
        file = io.BytesIO()
        batch = {0: "images"}
        try:
            # Constants of the graph are made of the weights, which inference tensors could not be.
            with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    self.module,
                    (torch.zeros(2, 3, *size),),
                    file,  # type: ignore[arg-type]  # this exporter writes into it
                    dynamo=False,
                    opset_version=OPSET,
                    input_names=["images"],
                    output_names=["maps"],
                    dynamic_axes={"images": batch, "maps": batch},
                )
        except Exception as error:  # whatever a network's operators come to
            raise UserError(f"backbone {self.name!r} cannot be exported for onnxruntime ({told(error)}).") from error
        return file.getvalue()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the sessions, which copies make again."""
        return {**self.__dict__, "_sessions": {}}


def _session(data: bytes, threads: int) -> Any:
    """Load an exported network."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that wait by spinning take the cores from those that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what is wrong is raised
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _run(session: Any, images: Tensor) -> Tensor:
    return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])


def _digest(backbone: Backbone) -> str:
    """Hash what maps depend on here: the network, and who computes."""
    import onnxruntime

    parts = (_FORMAT, backbone.digest, "onnxruntime", onnxruntime.__version__, OPSET)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _key(digest: str, size: tuple[int, int]) -> str:
    """Name a kept file: torch writes it."""
    return hashlib.sha256(repr((digest, size, torch.__version__)).encode()).hexdigest()[:32]

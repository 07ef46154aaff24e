"""What both sides know: the messages, and a small fixed network, so that the client can check what comes back.

A request is an array, a batch: 1 or more rows of 64 float32. The answer is one too, of as many rows of 10 float32.
Shape and type go along with each, so neither side has to agree on more than that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

INFER = 1  # the msg_type
FEATURES, HIDDEN, CLASSES = 64, 32, 10

Array = npt.NDArray[np.float32]

_generator = np.random.default_rng(seed=1)
W1 = _generator.standard_normal((FEATURES, HIDDEN), dtype=np.float32) / np.float32(FEATURES**0.5)
W2 = _generator.standard_normal((HIDDEN, CLASSES), dtype=np.float32) / np.float32(HIDDEN**0.5)


def forward(batch: Array) -> Array:
    """Two layers: rows of FEATURES in, rows of CLASSES out. The result is a new array, not a view of the batch."""
    return np.maximum(batch @ W1, 0) @ W2

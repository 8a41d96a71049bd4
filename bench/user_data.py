"""User data: its bytes, of the 16,384 that EC2 takes, and what each file adds to them."""

import base64
import zlib

from bench.measure import Results
from teleport_eks.userdata import LIMIT, files, render
from tests.examples import HA_HOST, HOST, HOST_WITH_ALL

SMALL = 200  # bytes; files that add less are one figure


def measure(results: Results) -> None:
    for name, config in {"default": HOST, "all-options": HOST_WITH_ALL, "all-options-ha": HA_HOST}.items():
        results.add(f"user-data.{name}", len(base64.b64decode(render(config))), "bytes", most=LIMIT)
    texts = files(HOST_WITH_ALL)
    everything = _compressed(texts)
    adds = {path: everything - _compressed({k: v for k, v in texts.items() if k != path}) for path in texts}
    small = [adds.pop(path) for path in texts if adds[path] < SMALL]
    for path, added in sorted(adds.items(), key=lambda item: -item[1]):
        results.add(f"user-data.adds.{path}", added, "bytes")
    results.add(f"user-data.adds.{len(small)}-others-together", sum(small), "bytes")


def _compressed(texts: dict[str, str]) -> int:
    return len(zlib.compress("".join(f"{path}\n{text}" for path, text in texts.items()).encode(), 9))

"""What the environment says of how networks run."""

from __future__ import annotations

import pytest
import torch
from stemserve.errors import SettingsError
from stemserve.separation.running import DEMUCS_WINDOW, Running, half_type, running

CPU = torch.device("cpu")


def test_exact_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSERVE_PRECISION", "exact")
    monkeypatch.setenv("STEMSERVE_DEVICE", "cpu")
    assert running() == Running(CPU, None)
    assert "float32" in running().described()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_fast_is_what_the_device_is_faster_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSERVE_DEVICE", "cpu")
    for features, expected in (({"avx512_bf16": True}, torch.bfloat16), ({}, None)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=features: known)
        assert running().half is expected
    assert half_type(torch.device("cuda")) is torch.float16


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STEMSERVE_PRECISION", "double"),
        ("STEMSERVE_DEVICE", "tpu"),
        ("STEMSERVE_CHUNK_SIZE", "0"),
        ("STEMSERVE_CHUNK_SIZE", "much"),
    ],
)
def test_what_cannot_be_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable):
        running()


def test_the_template_chunk_size_limits_windows_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STEMSERVE_CHUNK_SIZE", "1440000")
    how = running()
    assert how.windows_at_once(DEMUCS_WINDOW) == 4
    assert how.windows_at_once(10**9) == 1
    assert "chunk size 1440000: 4 Demucs windows" in how.described()
    assert Running(CPU).windows_at_once(DEMUCS_WINDOW) is None


def test_what_overflows_in_half_precision_is_reckoned_in_float32() -> None:
    calls: list[bool] = []

    def network(batch: torch.Tensor) -> torch.Tensor:
        half = torch.is_autocast_enabled("cpu")
        calls.append(half)
        return torch.full_like(batch, torch.inf) if half and batch.max() > 1 else 2 * batch

    how = Running(CPU, torch.bfloat16)
    assert how.heard(network, torch.ones(3)).tolist() == [2, 2, 2]
    assert how.heard(network, 3 * torch.ones(3)).tolist() == [6, 6, 6]
    assert calls == [True, True, False]
    assert Running(CPU).heard(network, torch.ones(1)).tolist() == [2]
    assert calls[-1] is False

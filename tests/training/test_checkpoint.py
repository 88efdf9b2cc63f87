"""A checkpoint is read bit for bit as it was written, or is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest

from ecg_shock.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@pytest.fixture
def checkpoint(rng):
    """Return a checkpoint with arrays of every kind, more than ten of one, which sort wrongly by name."""
    model = [rng.normal(size=(3, i + 1)).astype(np.float32) for i in range(12)] + [np.array([1, 2], np.uint32)]
    return Checkpoint(
        run={"format": 1, "network": {"filters": [4]}},
        history=[{"epoch": 1, "loss": 0.1 + 0.2}],
        model=model,
        best=[2 * a for a in model],
        optimizer=[np.array(7, np.int64), *model[:3]],
        sampler={"scores": rng.random(20), "rng": np.array('{"state": 123456789012345678901234567890}')},
    )


def assert_same(a, b):
    """Compare two checkpoints bit for bit."""
    assert (a.run, a.history) == (b.run, b.history)
    assert a.sampler.keys() == b.sampler.keys()
    for one, other in [
        (a.model, b.model),
        (a.best, b.best),
        (a.optimizer, b.optimizer),
        (a.sampler.values(), b.sampler.values()),
    ]:
        for x, y in zip(one, other, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_round_trip_is_exact(tmp_path, checkpoint):
    """A checkpoint is read bit for bit and in order, and no other file is left in the folder."""
    save_checkpoint(tmp_path / "c.npz", checkpoint)
    assert_same(load_checkpoint(tmp_path / "c.npz"), checkpoint)
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_truncated_file_is_refused_by_name(tmp_path, checkpoint):
    """A file cut off anywhere is an error that names it and says what to do."""
    path = tmp_path / "c.npz"
    save_checkpoint(path, checkpoint)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"c\.npz is damaged.*delete it"):
            load_checkpoint(path)


def test_changed_byte_never_changes_the_state(tmp_path, checkpoint):
    """A file with one wrong byte is refused, or, where the byte does not matter, read as it was."""
    path = tmp_path / "c.npz"
    save_checkpoint(path, checkpoint)
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 101):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
        try:
            assert_same(load_checkpoint(path), checkpoint)
        except ValueError:
            refused += 1
    assert refused > len(whole) / 101 / 2


def test_pickles_and_other_files_are_refused(tmp_path):
    """A pickled object, a single array and an archive of other arrays are all refused; no code in them is run."""
    path = tmp_path / "c.npz"
    np.savez(path, run=np.array({"a": 1}, dtype=object), history=np.array("[]"))
    with pytest.raises(ValueError, match="damaged or is not a training checkpoint"):
        load_checkpoint(path)
    for save in (lambda f: np.save(f, np.arange(3)), lambda f: np.savez(f, weights=np.arange(3))):
        file = io.BytesIO()
        save(file)
        path.write_bytes(file.getvalue())
        with pytest.raises(ValueError, match="damaged or is not a training checkpoint"):
            load_checkpoint(path)


def test_missing_file_is_an_oserror(tmp_path):
    """A missing file is not called damaged."""
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "c.npz")

"""Tables and arrays give the samples that were written, in mV, or an error that says what is not clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecg_shock.data.readers import read_record


@pytest.fixture
def digital(rng: np.random.Generator) -> np.ndarray:
    """400 samples of two leads."""
    return rng.integers(-100, 100, (400, 2))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("names", [(), ("II", "V5")])
def test_csv(delimiter: str, names: tuple[str, ...], tmp_path: Path, digital: np.ndarray) -> None:
    """CSV with or without names gives the same samples; an empty cell and nan are missing ones."""
    rows = [[f"{value:.2f}" for value in row] for row in digital / 100]
    rows[3][0], rows[4][1] = "", "nan"
    expected = digital / 100
    expected[3, 0] = expected[4, 1] = np.nan
    (tmp_path / "a.csv").write_text("\n".join(delimiter.join(row) for row in [*([names] if names else []), *rows]))
    recording = read_record(tmp_path / "a.csv", fs=200, units="mV")
    np.testing.assert_allclose(recording.signal, expected, atol=1e-6)
    assert recording.leads == (names or ("1", "2"))
    uv = read_record(tmp_path / "a.csv", fs=200, units="uV", leads=recording.leads[1:])
    np.testing.assert_allclose(uv.signal, expected[:, 1:] / 1000, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I,II\n0.1,0.2\n0.1,x\n", "line 3: 'x' is not a number"),
        ("0.1,II\n0.1,0.2\n", "line 1: 'II' is not a number"),
        ("0.1,0.2\n0.1\n", "line 2 has 1 cells instead of 2"),
        ("time,II\n0,0.2\n", "column 'time' is no ECG lead"),
        ("Time (ms),II\n0,0.2\n", r"column 'Time \(ms\)' is no ECG lead"),
        ("time_s,II\n0,0.2\n", "column 'time_s' is no ECG lead"),
        ("I,II\n", "no samples"),
        ("0.1\ninf\n", "infinite"),
        ("  \n", "cannot be read as CSV"),
    ],
)
def test_csv_errors(text: str, message: str, tmp_path: Path) -> None:
    """What is wrong in a CSV is named with file and line."""
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_record(tmp_path / "a.csv", fs=250, units="mV")
    assert "a.csv" in str(error.value)


def test_npy_with_numbers_of_any_size(tmp_path: Path) -> None:
    """Numbers that overflow in mV are refused without a warning, and NaNs that signal are NaN."""
    np.save(tmp_path / "r.npy", [1e308, 0.0])
    with pytest.raises(ValueError, match="infinite values"):
        read_record(tmp_path / "r.npy", fs=250, units="V")
    np.save(tmp_path / "r.npy", np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf4\x7f" + bytes(8), "<f8"))
    assert np.isnan(read_record(tmp_path / "r.npy", fs=250, units="V").signal[:, 0]).tolist() == [True, False]


@pytest.mark.parametrize("fs", [250.0, 360.0, 1000.0])
def test_csv_time_column_without_a_name_is_refused(fs: float, tmp_path: Path, rng: np.random.Generator) -> None:
    """Seconds with three decimals are no lead, whoever asks for them; the lead beside them can be chosen."""
    ecg = rng.standard_normal(500).round(3)
    (tmp_path / "a.csv").write_text("\n".join(f"{i / fs:.3f},{mv}" for i, mv in enumerate(ecg)))
    with pytest.raises(ValueError, match=r"column '1' rises evenly.*leads= \(--lead\) from \['2'\]"):
        read_record(tmp_path / "a.csv", fs=fs, units="mV")
    chosen = read_record(tmp_path / "a.csv", fs=fs, units="mV", leads=["2"])
    np.testing.assert_allclose(chosen.signal[:, 0], ecg, atol=1e-6)
    with pytest.raises(ValueError, match="column '1' rises evenly"):
        read_record(tmp_path / "a.csv", fs=fs, units="mV", leads=["1"])


def test_csv_with_one_column_and_time_left_out(tmp_path: Path) -> None:
    """In the only column nan is a missing sample, and an empty line may be; a time column is excluded by leads=."""
    (tmp_path / "a.txt").write_text("0.5\n\n1.5\n\n")
    with pytest.raises(ValueError, match=r"a\.txt line 2 is empty.*write nan for a missing sample"):
        read_record(tmp_path / "a.txt", fs=1, units="V")
    (tmp_path / "a.txt").write_text("0.5\nnan\n1.5\n\n")
    np.testing.assert_array_equal(read_record(tmp_path / "a.txt", fs=1, units="V").signal, [[500], [np.nan], [1500]])
    (tmp_path / "a.csv").write_text("time,II\n0,0.5\n1,1.5\n")
    np.testing.assert_array_equal(
        read_record(tmp_path / "a.csv", fs=1, units="mV", leads=["II"]).signal, [[0.5], [1.5]]
    )


def test_formats_without_rate_ask_for_it(tmp_path: Path) -> None:
    """CSV and NumPy files need fs and units, and units have to be known."""
    np.save(tmp_path / "a.npy", np.zeros(10))
    for arguments in ({}, {"fs": 250}, {"units": "mV"}):
        with pytest.raises(ValueError, match=r"pass fs= \(--fs\) in Hz and units="):
            read_record(tmp_path / "a.npy", **arguments)
    with pytest.raises(ValueError, match="units 'bananas' are unknown; allowed are"):
        read_record(tmp_path / "a.npy", fs=250, units="bananas")


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", ">f8"])
def test_npy(dtype: str, tmp_path: Path, digital: np.ndarray) -> None:
    """Real numbers of any type and one or two dimensions become float32 mV."""
    array = np.abs(digital).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", array[:, 0])
    two = read_record(tmp_path / "a.npy", fs=250, units="uV")
    np.testing.assert_allclose(two.signal, np.abs(digital) / 1000, rtol=1e-6)
    assert (two.signal.dtype, two.leads) == (np.float32, ("1", "2"))
    one = read_record(tmp_path / "b.npy", fs=250, units="uV")
    np.testing.assert_array_equal(one.signal, two.signal[:, :1])


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.array([object()]), ValueError, "cannot be read as .npy"),
        (np.zeros(10, complex), TypeError, "complex128"),
        (np.array(["a"]), TypeError, "<U1"),
        (np.zeros(10, bool), TypeError, "bool"),
        (np.zeros((2, 3, 4)), ValueError, r"\(2, 3, 4\)"),
        (np.zeros((2, 500)), ValueError, "transpose"),
        (np.zeros((0, 0)), ValueError, "no samples|cannot be read"),
        (np.full(10, np.inf), ValueError, "infinite"),
        (np.full(10, 1e300), ValueError, "infinite"),
    ],
)
def test_npy_errors(array: np.ndarray, error: type[Exception], message: str, tmp_path: Path) -> None:
    """Arrays that are no ECG are refused, and pickles are never loaded."""
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(error, match=message) as caught:
        read_record(tmp_path / "a.npy", fs=250, units="mV")
    assert "a.npy" in str(caught.value)


def test_npy_that_claims_too_much(tmp_path: Path) -> None:
    """A NumPy header that promises terabytes is refused before anything is allocated."""
    np.save(tmp_path / "a.npy", np.zeros(10))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"(10,), }         ", b"(9999999999,), }"[:17].ljust(17)))
    assert (tmp_path / "a.npy").read_bytes() != data
    with pytest.raises(ValueError, match=r"a\.npy cannot be read"):
        read_record(tmp_path / "a.npy", fs=250, units="mV")

"""Tables and arrays give the samples that were written, in mV, or an error that says what is unclear."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from ecg_shock.data.columns import never_falls, why_not_ecg
from ecg_shock.data.readers import read_record

FS = 250
N = 5 * FS
TIME_S = np.arange(N) / FS


def vf() -> np.ndarray:
    """Swing as coarse VF does, in mV, to three decimals."""
    return np.round(np.sin(2 * np.pi * 5 * TIME_S + 2 * np.sin(2 * np.pi * 0.3 * TIME_S) + 0.4), 3)


ECG = [f"{mv:.3f}" for mv in vf()]
ECG_COMMA = [cell.replace(".", ",") for cell in ECG]
ECG_UV = [f"{1000 * mv:.0f}" for mv in vf()]
OTHER = [f"{mv:.3f}" for mv in vf()[::-1]]
TIME = [f"{s:.3f}" for s in TIME_S]


def rows(delimiter: str, *columns: list[str]) -> list[str]:
    """Join columns to lines."""
    return [delimiter.join(cells) for cells in zip(*columns, strict=True)]


def write(path: Path, lines: list[str], end: str = "\n", encoding: str = "utf-8") -> Path:
    """Write lines to a file."""
    path.write_bytes(end.join(lines).encode(encoding))
    return path


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
        ("time,event\n0,1\n0.004,2\n0.008,3\n", "column 'event' rises evenly"),
        ("time\n0\n0.004\n0.008\n", "column 'time' is not an ECG lead; no other column can be an ECG"),
        ("I,II\n", "no samples"),
        ("0.1\ninf\n", "infinite"),
        ("  \n", "cannot be read as CSV"),
    ],
)
def test_csv_errors(text: str, message: str, tmp_path: Path) -> None:
    """Errors in a CSV file name the file and the line."""
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_record(tmp_path / "a.csv", fs=250, units="mV")
    assert "a.csv" in str(error.value)


def test_npy_with_numbers_of_any_size(tmp_path: Path) -> None:
    """Numbers that overflow in mV are refused without a warning, and signalling NaNs are NaN."""
    np.save(tmp_path / "r.npy", [1e308, 0.0])
    with pytest.raises(ValueError, match="infinite values"):
        read_record(tmp_path / "r.npy", fs=250, units="V")
    np.save(tmp_path / "r.npy", np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf4\x7f" + bytes(8), "<f8"))
    assert np.isnan(read_record(tmp_path / "r.npy", fs=250, units="V").signal[:, 0]).tolist() == [True, False]


@pytest.mark.parametrize("fs", [250.0, 360.0, 1000.0])
def test_csv_time_column_without_a_name_is_refused(fs: float, tmp_path: Path, rng: np.random.Generator) -> None:
    """Seconds with three decimals are not a lead, even if asked for; the other column can be chosen."""
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
    with pytest.raises(ValueError, match=r"a\.txt line 2 is empty.*write nan if a sample is missing"):
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
        with pytest.raises(ValueError, match=r"give fs= \(--fs\) in Hz and units="):
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
    """Arrays that cannot be an ECG are refused, and pickles are never loaded."""
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


NO_LEADS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "seconds": lambda rng: TIME_S,
    "rounded to 10 ms": lambda rng: np.round(TIME_S, 2),
    "a stamp for 25 samples": lambda rng: np.repeat(TIME_S[::25], 25),
    "jittered milliseconds": lambda rng: np.cumsum(rng.integers(2, 7, N)),
    "a clock that goes back a little": lambda rng: TIME_S + rng.normal(0, 0.25 / FS, N),
    "a clock that is set back": lambda rng: TIME_S - 0.6 * (TIME_S > 3),
    "a gap": lambda rng: TIME_S + 2 * (TIME_S > 2),
    "epoch in ms": lambda rng: 1.7e12 + 1000 * TIME_S,
    "0 to 255": lambda rng: np.arange(N) % 256,
    "packets, some lost": lambda rng: (np.arange(2 * N) // 9 % 64)[rng.random(2 * N) > 0.2][:N],
    "packets that overtook another": lambda rng: np.arange(N) ^ (np.arange(N) % 20 == 0),
    "seconds of the minute": lambda rng: (TIME_S + 57) % 60,
    "time that is left": lambda rng: TIME_S[::-1],
    "after an event": lambda rng: (TIME_S > 2).astype(float),
}


@pytest.mark.parametrize("kind", NO_LEADS)
@pytest.mark.parametrize("form", ["header", "no header", "npy", "mat"])
def test_time_and_counters_are_no_leads(kind: str, form: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Such a column is refused in every format; another column is read if its name says ECG or if it is chosen."""
    column = NO_LEADS[kind](rng)
    if "header" in form:
        head = ["Unnamed: 0,ECG"] if form == "header" else []
        path = write(tmp_path / "a.csv", head + rows(",", [repr(float(value)) for value in column], ECG))
    else:
        path = tmp_path / f"a.{form}"
        table = np.column_stack([column, vf()])
        np.save(path, table) if form == "npy" else scipy.io.savemat(path, {"data": table})
    ecg, other = ("ECG", "Unnamed: 0") if form == "header" else ("2", "1")
    for leads in ([other],) if form == "header" else ([other], None):
        with pytest.raises(
            ValueError, match=rf"column '{other}' .*; choose a lead with leads= \(--lead\) from \['{ecg}'\]"
        ):
            read_record(path, fs=FS, units="mV", leads=leads)
    for leads in ([ecg], None) if form == "header" else ([ecg],):
        if kind != "a gap":  # which is an error of its own
            found = read_record(path, fs=FS, units="mV", leads=leads)
            assert found.leads == (ecg,)
            np.testing.assert_allclose(found.signal[:, 0], vf(), atol=1e-6)


def test_no_lead_is_taken_for_time(rng: np.random.Generator) -> None:
    """A flat lead, one with spikes or with a drift, a marker and noise can be leads."""
    pulses = (np.arange(N) % 99 < 2).astype(float)
    drift = vf() + 4 * TIME_S
    columns = [
        np.zeros(N),
        np.full(N, np.nan),
        pulses,
        vf(),
        drift,
        rng.normal(size=N),
        np.array([0.1, 0.2]),
        np.round(vf()),
    ]
    assert [why_not_ecg(column) for column in columns] == [""] * len(columns)
    strips = np.array(
        [np.zeros(N), pulses, vf(), drift, rng.normal(size=N), TIME_S > 2, TIME_S, np.cumsum(rng.random(N))]
    )
    assert never_falls(strips).tolist() == [False] * 6 + [True] * 2


def test_leads_are_chosen_by_names_that_say_ecg(tmp_path: Path) -> None:
    """Columns named as ECG leads are the leads; without such names all columns that may be leads are."""
    table = rows(",", OTHER, ECG, OTHER)
    named = write(tmp_path / "a.csv", ["Temp,MLII,acc_x", *table])
    assert read_record(named, fs=FS, units="mV").leads == ("MLII",)
    assert read_record(write(tmp_path / "b.csv", ["a,b,c", *table]), fs=FS, units="mV").leads == ("a", "b", "c")
    assert read_record(named, fs=FS, units="mV", leads=["acc_x", "Temp"]).leads == ("acc_x", "Temp")


READ = {
    "decimal commas between semicolons": ["ECG;b", *rows(";", ECG_COMMA, ECG_COMMA[::-1])],
    "decimal commas between tabs": rows("\t", ECG_COMMA, ECG_COMMA[::-1]),
    "decimal commas in quotes": [f'"{cell}","{cell}"' for cell in ECG_COMMA],
    "decimal commas below a name": ["ECG", *ECG_COMMA],
    "decimal commas without trailing zeros": ["ECG", *(f"{mv:g}".replace(".", ",") for mv in vf())],
    "columns of spaces": [f"{a:>9}  {b:>9} " for a, b in zip(ECG, OTHER, strict=True)],
    "bars": ["ECG | b", *rows(" | ", ECG, OTHER)],
    "each row ends with a delimiter": ["ECG,b,", *(f"{row}," for row in rows(",", ECG, OTHER))],
    "comments, names and units": ["# made by X", "%Sample Rate = 250 Hz", "", "ECG,b", "mV,mV", *rows(",", ECG, OTHER)],
    "names in a comment": ["# ECG", *ECG],
    "remarks in comments": ["# a patient", *ECG],
    "delimiter in the first line": ["sep=;", "ECG;b", *rows(";", ECG, OTHER)],
    "mostly whole numbers": ["ECG", *(f"{mv:g}" if i % 4 == 0 else "0" for i, mv in enumerate(vf()))],
    "mostly missing": ["ECG", *(cell if i % 4 == 0 else "nan" for i, cell in enumerate(ECG))],
    "exponents and signs": [f"{mv:+.3e}" for mv in vf()],
    "words in another column": ["ECG,note", *rows(",", ECG, ["", "", "VF begins", "", ""] * FS)],
}


@pytest.mark.parametrize("form", READ)
def test_forms_that_are_read(form: str, tmp_path: Path) -> None:
    """The delimiter and the decimal sign are those that fit all rows; lines above the numbers are not samples."""
    leads = ["ECG"] if "words" in form else None
    recording = read_record(write(tmp_path / "a.csv", READ[form]), fs=FS, units="mV", leads=leads)
    kept = np.arange(N) % 4 == 0 if "mostly" in form else np.ones(N, dtype=bool)
    np.testing.assert_allclose(recording.signal[kept, 0], vf()[kept], atol=1e-6)
    assert len(recording.signal) == N


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_encodings_and_ends_of_lines(encoding: str, end: str, tmp_path: Path) -> None:
    """Line ends of Windows, Unix and old Macs, and empty lines of some Windows scripts, give one sample per line."""
    path = write(tmp_path / "a.csv", ["ECG (\u00b5V)", *ECG_UV, ""], end, encoding)
    recording = read_record(path, fs=FS, units="uV")
    np.testing.assert_allclose(recording.signal[:, 0], vf(), atol=1e-6)
    assert recording.leads == ("ECG (\u00b5V)",)


DOUBTFUL = {
    "one column or two": (ECG_COMMA, {"decimal": ","}),
    "decimal commas between commas": (rows(", ", ECG_COMMA, ECG_COMMA), {"decimal": ","}),
    "name and unit, or two names": (["ECG, mV", *ECG_COMMA], {"decimal": ","}),
    "whole numbers": (rows(",", [f"{i}" for i in range(N)], [f"{i % 7}" for i in range(N)]), None),
}


@pytest.mark.parametrize("form", DOUBTFUL)
def test_forms_in_doubt_are_asked_for(form: str, tmp_path: Path) -> None:
    """If rows can be read in two ways, the error asks which is right, and the answer is used."""
    lines, answer = DOUBTFUL[form]
    path = write(tmp_path / "a.csv", lines)
    with pytest.raises(ValueError, match=r"in two ways.* delimiter= \(--delimiter\).* decimal= \(--decimal\)"):
        read_record(path, fs=FS, units="mV")
    if answer:
        found = read_record(path, fs=FS, units="mV", **answer)
        np.testing.assert_allclose(found.signal[:, 0], vf(), atol=1e-6)


@pytest.mark.parametrize(
    ("lines", "arguments", "message"),
    [
        (["Device X", "Rate;250", "ECG;b", *rows(";", ECG, OTHER)], {}, "Remove lines 1 to 2, or write # at the start"),
        (["0..1", *ECG], {}, r"line 1: '0\.\.1' is not a number"),
        (["NA", *ECG], {}, "line 1: 'NA' is not a number"),
        (["0,1", *rows(",", ECG, OTHER)], {}, "may be samples or column numbers"),
        (["ECG", *ECG[:9], "", *ECG[9:]], {}, "line 11 is empty"),
        (["ECG", *ECG[:9], "1_0", *ECG[9:]], {}, "line 11: '1_0' is not a number"),
        (["1,5", "1.234", "0,5"], {"decimal": ","}, r"line 2: '1\.234' is not a number"),
        (rows(",", ECG_COMMA, ECG_COMMA), {"delimiter": ","}, "in two ways"),
        (["1.234", "-345", "1.5"], {}, None),
        (["1.234", "-345", "2.345"], {}, "may be a thousands separator"),
        ([",".join(ECG)], {}, "one line per sample"),
        (["ECG", *ECG, "\0" * 5000], {}, "NUL bytes"),
        (["\0" * 5000], {}, "NUL bytes"),
        ([",".join(ECG * 40)], {}, "more than 131072 characters"),
        (ECG, {"delimiter": "x"}, "delimiter is 'x'; allowed are"),
        (ECG, {"decimal": ";"}, "decimal is ';'; allowed are"),
        (ECG, {"leads": ["x" * 5000]}, "has no leads"),
        (["n" * 5000, *ECG], {"leads": ["q"]}, "choose from"),
        (["ECG", *ECG[:9], '"1', *ECG], {}, "cannot be read as CSV|not a number"),
    ],
)
def test_errors_of_tables(lines: list[str], arguments: dict, message: str | None, tmp_path: Path) -> None:
    """The error names the line and the remedy, and quotes little of the file."""
    path = write(tmp_path / "a.csv", lines)
    if message is None:
        assert len(read_record(path, fs=FS, units="mV", **arguments).signal) == len(lines)
        return
    with pytest.raises(ValueError, match=message) as error:
        read_record(path, fs=FS, units="mV", **arguments)
    assert len(str(error.value)) < 500 + len(str(path))


def test_text_that_changes_its_encoding(tmp_path: Path) -> None:
    """Bytes that do not fit the detected encoding are an error with a remedy."""
    path = write(tmp_path / "a.csv", ECG * 20)
    path.write_bytes(path.read_bytes() + "\u00b5".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_record(path, fs=FS, units="mV")


MS = [f"{4 * i}" for i in range(N)]
CLAIMS = {
    "seconds": ("time (s)", TIME),
    "milliseconds": ("t_ms", MS),
    "unnamed": ("", TIME),
    "no unit": ("timestamp", MS),
    "epoch": ("epoch", [f"{1_700_000_000_000 + 4 * i}" for i in range(N)]),
    "text": ("Datum", [f"2024-03-01T12:00:{s:06.3f}" for s in TIME_S]),
    "over midnight": ("clock", [f"23:59:{s + 59:06.3f}" if s < 1 else f"00:00:{s - 1:06.3f}" for s in TIME_S]),
    "packets": ("Time [s]", [f"{s:.3f}" for s in np.repeat(TIME_S[::25], 25)]),
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_time_has_to_agree_with_the_rate(kind: str, tmp_path: Path) -> None:
    """A column of times at 250 Hz is accepted with fs=250, and refused with fs=500."""
    name, column = CLAIMS[kind]
    path = write(tmp_path / "a.csv", [f"{name};ECG"] * bool(name) + rows(";", column, ECG))
    leads = ["ECG" if name else "2"]
    np.testing.assert_allclose(read_record(path, fs=250, units="mV", leads=leads).signal[:, 0], vf(), atol=1e-6)
    with pytest.raises(ValueError, match=r"says 25\d(\.\d+)? Hz, but fs= \(--fs\) is 500 Hz"):
        read_record(path, fs=500, units="mV", leads=leads)


def test_gaps_in_time_are_named(tmp_path: Path) -> None:
    """A jump of two seconds in a column of times is reported as missing samples."""
    late = [f"{s + 2 * (s >= 2):.3f}" for s in TIME_S]
    path = write(tmp_path / "a.csv", ["time,ECG", *rows(",", late, ECG)])
    with pytest.raises(ValueError, match=r"jumps from 1\.996 to 4 at line 502"):
        read_record(path, fs=FS, units="mV", leads=["ECG"])


@pytest.mark.parametrize("comment", ["%Sample Rate = 500 Hz", "# fs: 500", "# Sampling frequency (kHz): 0,5 kHz"])
def test_comments_have_to_agree_with_the_rate(comment: str, tmp_path: Path) -> None:
    """A comment may say the sampling rate."""
    path = write(tmp_path / "a.csv", [comment, "ECG", *ECG])
    assert read_record(path, fs=500, units="mV").fs == 500
    with pytest.raises(ValueError, match="line 1 says 500 Hz, but fs= .--fs. is 250 Hz"):
        read_record(path, fs=250, units="mV")


@pytest.mark.parametrize("head", [["ECG (mV)"], ["ECG [mV]"], ["ECG_mV"], ["ECG mV"], ["ECG", "mV"], ["ECG", "(mV)"]])
def test_units_have_to_agree(head: list[str], tmp_path: Path) -> None:
    """A header with mV is accepted with units="mV", and refused with another unit."""
    path = write(tmp_path / "a.csv", head + ECG)
    np.testing.assert_allclose(read_record(path, fs=FS, units="mV").signal[:, 0], vf(), atol=1e-6)
    for units in ("uV", "V"):
        with pytest.raises(ValueError, match="is in mV according to its header, but units= .--units. is"):
            read_record(path, fs=FS, units=units)


def test_a_long_table_needs_little_memory(tmp_path: Path) -> None:
    """Reading a lead and a column of times needs less than four times the memory of the file."""
    lines = [f"{i / FS:.3f},{mv:.3f}" for i, mv in enumerate(np.tile(vf(), 160))]
    path = write(tmp_path / "a.csv", ["time,ECG", *lines])
    read_record(write(tmp_path / "b.csv", lines[:99]), fs=FS, units="mV", leads=["2"])  # loads what is loaded once
    size = path.stat().st_size
    tracemalloc.start()
    recording = read_record(path, fs=FS, units="mV", leads=["ECG"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert recording.signal.shape == (len(lines), 1)
    chunk = 15e6  # of cells that are read at once, whatever the size of the file
    assert peak < 4 * size + chunk


def test_matlab_files(tmp_path: Path) -> None:
    """One array of numbers, as row, column or columns, is read; a scalar may give the sampling rate."""
    path = tmp_path / "a.mat"
    for array in (vf(), vf()[:, None], np.column_stack([vf(), vf()[::-1]])):
        scipy.io.savemat(path, {"val": array, "Fs": FS, "name": "x"}, do_compression=True)
        np.testing.assert_allclose(read_record(path, fs=FS, units="mV").signal[:, 0], vf(), atol=1e-6)
    scipy.io.savemat(path, {"ecg": np.round(1000 * vf()).astype(np.int16)})
    np.testing.assert_allclose(read_record(path, fs=FS, units="uV").signal[:, 0], vf(), atol=1e-6)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"ecg": vf(), "resp": vf()},
            r"holds the variables \['ecg: double \(1, 1250\)', 'resp: double \(1, 1250\)'\]; save exactly one array",
        ),
        ({"ecg": vf(), "fs": 500}, "'fs' is 500 Hz, but fs= .--fs. is 250 Hz"),
        ({"ecg": np.ones((2, 500))}, "transpose"),
        ({"ecg": {"a": 1}}, "save exactly one array"),
        ({"ecg": "text"}, "save exactly one array"),
        ({}, "save exactly one array"),
        ({"t": TIME_S}, "column '1' rises evenly.*no other column"),
    ],
)
def test_matlab_files_in_doubt(variables: dict, message: str, tmp_path: Path) -> None:
    """A file without a single array of numbers is refused."""
    scipy.io.savemat(tmp_path / "a.mat", variables)
    with pytest.raises(ValueError, match=message) as error:
        read_record(tmp_path / "a.mat", fs=FS, units="mV")
    assert "a.mat" in str(error.value)


@pytest.mark.parametrize(
    "content", [b"MATLAB 7.3 MAT-file" + bytes(500), b"MATLAB 5.0 MAT-file" + bytes(500), b"x" * 300, b"1"]
)
def test_matlab_files_that_cannot_be_read(content: bytes, tmp_path: Path) -> None:
    """HDF5 files and damaged files are errors with a remedy."""
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match="'-v7'" if b"7.3" in content else r"a\.mat"):
        read_record(tmp_path / "a.mat", fs=FS, units="mV")


def test_complex_matlab_file(tmp_path: Path) -> None:
    """Complex numbers are refused."""
    scipy.io.savemat(tmp_path / "a.mat", {"ecg": vf() * 1j})
    with pytest.raises(TypeError, match="real numbers"):
        read_record(tmp_path / "a.mat", fs=FS, units="mV")


def test_delimiters_are_of_tables_alone(tmp_path: Path) -> None:
    """Delimiter and decimal sign are refused for other formats."""
    np.save(tmp_path / "a.npy", vf())
    with pytest.raises(ValueError, match=r"remove delimiter= \(--delimiter\) and decimal="):
        read_record(tmp_path / "a.npy", fs=FS, units="mV", decimal=",")

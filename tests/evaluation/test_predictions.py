"""Predictions: what goes in comes out, and nothing malformed goes in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecg_shock.evaluation.predictions import Predictions

HEADER = "database,record,lead,patient,start_s,duration_s,rhythm,aha_class,probability,shock,fold"
GOOD = [
    "vfdb,418,ECG,vfdb/418,0,5,vf,coarse_vf,0.9,true,0",
    "vfdb,418,ECG,vfdb/418,5,5,normal_sinus,normal_sinus,0.1,false,0",
    "cudb,cu01,ECG,cudb/cu01,0.5,5,vt,rapid_vt,0.7,true,1",
]


def columns(predictions: Predictions) -> dict[str, list]:
    """Give the columns as lists, which compare as a whole."""
    return {field.name: getattr(predictions, field.name).tolist() for field in dataclasses.fields(predictions)}


def write(tmp_path: Path, *lines: str) -> Path:
    """Write the lines of a file of predictions."""
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_csv_round_trip(make_predictions: Callable[..., Predictions], tmp_path: Path) -> None:
    """Every value comes back with every digit, and no unfinished file is left."""
    predictions = make_predictions(200)
    path = tmp_path / "predictions.csv"
    predictions.write_csv(path)
    assert columns(Predictions.read_csv(path)) == columns(predictions)
    assert list(tmp_path.iterdir()) == [path]


@example(name="\r", start_s=0.1, probability=1.0)
@settings(max_examples=40, deadline=None)  # each writes and reads a file
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    start_s=st.floats(0, 1e9),
    probability=st.floats(0, 1),
)
def test_any_name_and_number_survives(
    name: str, start_s: float, probability: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Commas, quotes, line breaks and any script in names, and any float, come back as they were."""
    one = [name], [name], [name], [name], [start_s], [5], ["vf"], ["fine_vf"], [probability], [True], [2]
    predictions = Predictions(*(np.array(column) for column in one))
    path = tmp_path_factory.mktemp("any") / "predictions.csv"
    predictions.write_csv(path)
    assert columns(Predictions.read_csv(path)) == columns(predictions)


def test_columns_in_any_order_and_excel_marks(tmp_path: Path) -> None:
    """Another order of the columns, a byte order mark, CRLF and TRUE/FALSE are all the same table."""
    plain = Predictions.read_csv(write(tmp_path, HEADER, *GOOD))
    reversed_lines = [",".join(line.split(",")[::-1]) for line in (HEADER, *GOOD)]
    text = "\r\n".join(reversed_lines).replace("true", "TRUE").replace("false", "FALSE")
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert columns(Predictions.read_csv(path)) == columns(plain)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("0.7", "nan", "line 4: probability is nan; allowed: 0 to 1"),
        ("0.7", "1.2", "line 4: probability is 1.2; allowed: 0 to 1"),
        ("0.7", "-0.1", "line 4: probability is -0.1"),
        ("0.7", "high", "line 4: probability is 'high'"),
        ("0.7", "", "line 4: probability is ''"),
        ("0.5,5,", "nan,5,", "line 4: start_s is nan"),
        ("0.5,5,", "-1,5,", "line 4: start_s is -1.0"),
        ("0.5,5,", "0.5,0,", "line 4: duration_s is 0.0"),
        ("0.5,5,", "0.5,inf,", "line 4: duration_s is inf"),
        ("vt,", "tachycardia,", "line 4: rhythm is 'tachycardia'; allowed: vf, vt"),
        ("vt,rapid_vt", "vt,vt", "line 4: aha_class is 'vt'; allowed: coarse_vf"),
        ("vt,", "noise,", "line 4: rhythm is 'noise'"),
        ("true,1", "yes,1", "line 4: shock is 'yes'; allowed: true or false"),
        ("true,1", "true,1.5", "line 4: fold is '1.5'; allowed: whole numbers"),
        ("cudb,cu01,", "cudb,,", "line 4: record is ''"),
        (",cudb/cu01,", ",,", "line 4: patient is ''"),
        (",cudb/cu01,", ",vfdb/418,", "line 4: patient 'vfdb/418' is in fold 1 and in fold 0"),
        ("0.7,true,1", "0.7,true", "line 4: there are 10 values; the header names 11"),
        ("0.7,true,1", "0.7,true,1,", "line 4: there are 12 values"),
    ],
)
def test_malformed_line_is_named(tmp_path: Path, old: str, new: str, match: str) -> None:
    """Each malformed value is refused with its line, its value, and what is allowed."""
    assert old in GOOD[2]
    path = write(tmp_path, HEADER, GOOD[0], GOOD[1], GOOD[2].replace(old, new, 1))
    with pytest.raises(ValueError, match=match):
        Predictions.read_csv(path)


def test_duplicates_are_named(tmp_path: Path) -> None:
    """The second line of one window is refused, whatever it predicts; another lead or duration is no duplicate."""
    repeated = GOOD[0].replace("0.9,true", "0.2,false")
    with pytest.raises(ValueError, match="line 5: 'vfdb', record '418', lead 'ECG', 0 s, 5 s stands twice"):
        Predictions.read_csv(write(tmp_path, HEADER, *GOOD, repeated))
    other_lead, longer = GOOD[0].replace("ECG", "II"), GOOD[0].replace(",5,", ",8,")
    assert len(Predictions.read_csv(write(tmp_path, HEADER, *GOOD, other_lead, longer))) == 5


def test_lines_are_counted_over_quoted_line_breaks(tmp_path: Path) -> None:
    """A name that runs over two lines does not shift the line that is named."""
    broken = GOOD[0].replace("418,", '"4\n18",', 1)
    with pytest.raises(ValueError, match="line 4: probability is 7.0"):
        Predictions.read_csv(write(tmp_path, HEADER, broken, GOOD[2].replace("0.7", "7")))


def test_faults_are_counted(tmp_path: Path) -> None:
    """The error says how many more lines have the same fault."""
    lines = [line.replace(",0.", ",2.") for line in (GOOD[0], GOOD[1].replace(",5,5,", ",6,5,"))]
    with pytest.raises(ValueError, match=r"line 2: probability is 2.9.*and 1 more like it"):
        Predictions.read_csv(write(tmp_path, HEADER, *lines))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "line 1: the header is ''; it must be"),
        (b"record,probability\n", "line 1: the header is 'record,probability'"),
        (HEADER.encode() + b",threshold\n", "line 1: the header is"),
        (HEADER.encode() + b'\n"vfdb', "line 2: .*UTF-8 text with commas"),
        (HEADER.encode() + b"\n\xff\xfe", "UTF-8 text with commas"),
        (HEADER.encode() + b"\n\n", "line 2: there are 0 values"),
    ],
)
def test_unreadable_file(tmp_path: Path, content: bytes, match: str) -> None:
    """A file that is no such table is refused with its name and line."""
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"other.csv, {match}" if match.startswith("line") else match):
        Predictions.read_csv(path)


def test_columns_of_the_wrong_kind(make_predictions: Callable[..., Predictions]) -> None:
    """Arrays of another kind, shape or length are refused and not converted."""
    predictions = make_predictions(3)
    with pytest.raises(TypeError, match="shock has dtype .*; allowed are true or false"):
        dataclasses.replace(predictions, shock=np.array(["false", "false", "true"]))
    with pytest.raises(TypeError, match="fold has dtype float64; allowed are whole numbers"):
        dataclasses.replace(predictions, fold=np.array([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="lead has shape"):
        dataclasses.replace(predictions, lead=np.array([["I", "II", "III"]]))
    with pytest.raises(ValueError, match="differ in length"):
        dataclasses.replace(predictions, lead=np.array(["I"]))
    with pytest.raises(ValueError, match="row 1: rhythm is 'VF'"):
        dataclasses.replace(predictions, rhythm=np.array(["vf", "VF", "vf"]))


def test_concatenate_undoes_select(make_predictions: Callable[..., Predictions]) -> None:
    """What is taken apart by duration and joined again is the same; what overlaps or leaks is refused."""
    short, long = make_predictions(30, 3.0), make_predictions(30, 8.0)
    joined = Predictions.concatenate([short, long])
    assert columns(joined.select(joined.duration_s == 8)) == columns(long)
    assert len(joined.select(joined.duration_s == 2)) == 0
    with pytest.raises(ValueError, match="stands twice"):
        Predictions.concatenate([short, short])
    with pytest.raises(ValueError, match="is in fold"):
        Predictions.concatenate([short, dataclasses.replace(long, fold=long.fold + 1)])
    with pytest.raises(ValueError, match="at least one"):
        Predictions.concatenate([])
    for mask in (np.array([0, 1]), np.array([True])):
        with pytest.raises(ValueError, match=r"allowed is bool and \(30,\)"):
            short.select(mask)

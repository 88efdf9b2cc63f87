"""Predictions are written and read without loss, and malformed ones are refused."""

from __future__ import annotations

import dataclasses
import unicodedata
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
    """Return the columns as lists, with NaN as None."""
    lists = {field.name: getattr(predictions, field.name).tolist() for field in dataclasses.fields(predictions)}
    return {name: [None if value != value else value for value in values] for name, values in lists.items()}


def write(tmp_path: Path, *lines: str) -> Path:
    """Write the lines of a file of predictions."""
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_csv_round_trip(make_predictions: Callable[..., Predictions], tmp_path: Path) -> None:
    """Every value is read back with every digit, and no temporary file remains."""
    predictions = make_predictions(200)
    path = tmp_path / "predictions.csv"
    predictions.write_csv(path)
    assert columns(Predictions.read_csv(path)) == columns(predictions)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text(encoding="utf-8").splitlines()[0] == HEADER


def test_csv_round_trip_of_what_is_optional(make_predictions: Callable[..., Predictions], tmp_path: Path) -> None:
    """Rates and amplitudes, missing ones too, are read back, and so are predictions without probabilities."""
    predictions = make_predictions(200)
    measured = dataclasses.replace(
        predictions,
        probability=np.full(200, np.nan),
        rate_bpm=np.where(predictions.rhythm == "vt", np.arange(200) / 3 + 100, np.nan),
        amplitude_mv=np.where(predictions.rhythm == "vf", np.arange(200) / 700, np.nan),
    )
    path = tmp_path / "predictions.csv"
    measured.write_csv(path)
    back = Predictions.read_csv(path)
    assert columns(back) == columns(measured)
    assert predictions.has_probability
    assert not back.has_probability
    assert "probability" not in path.read_text(encoding="utf-8").splitlines()[0]
    assert not np.isnan(back.rate_bpm).all()


@example(name="a\rb", start_s=0.1, probability=1.0)
@settings(max_examples=40, deadline=None)  # each writes and reads a file
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=64).filter(
        lambda name: unicodedata.normalize("NFC", name.strip()) == name
    ),
    start_s=st.floats(0, 172_800),
    probability=st.floats(0, 1),
)
def test_any_name_and_number_survives(
    name: str, start_s: float, probability: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Names with commas, quotes, line breaks and any script, and any float, are read back unchanged."""
    one = [name], [name], [name], [name], [start_s], [5], ["vf"], ["fine_vf"], [probability], [True], [2]
    predictions = Predictions(*(np.array(column) for column in one))
    path = tmp_path_factory.mktemp("any") / "predictions.csv"
    predictions.write_csv(path)
    assert columns(Predictions.read_csv(path)) == columns(predictions)


def test_columns_in_any_order_and_excel_marks(tmp_path: Path) -> None:
    """The order of columns, a byte order mark, CRLF and TRUE/FALSE do not matter."""
    plain = Predictions.read_csv(write(tmp_path, HEADER, *GOOD))
    reversed_lines = [",".join(line.split(",")[::-1]) for line in (HEADER, *GOOD)]
    text = "\r\n".join(reversed_lines).replace("true", "TRUE").replace("false", "FALSE")
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert columns(Predictions.read_csv(path)) == columns(plain)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("0.7", "nan", "line 4: probability is 'nan'; allowed: numbers"),
        ("0.7", "1.2", "line 4: probability is 1.2; allowed: 0 to 1"),
        ("0.7", "-0.1", "line 4: probability is -0.1"),
        ("0.7", "high", "line 4: probability is 'high'"),
        ("0.7", "", "line 4: probability is ''"),
        ("0.5,5,", "nan,5,", "line 4: start_s is 'nan'; allowed: numbers"),
        ("0.5,5,", "-1,5,", "line 4: start_s is -1.0"),
        ("0.5,5,", "500000,5,", r"line 4: start_s is 500000.0; allowed: 0 to 172800 s \(48 h\); give seconds"),
        ("0.5,5,", "0.5,0,", "line 4: duration_s is 0.0"),
        ("0.5,5,", "0.5,inf,", "line 4: duration_s is inf"),
        ("0.5,5,", "0.5,5000,", "line 4: duration_s is 5000.0; allowed: 1 to 60 s; give seconds"),
        ("vt,", "tachycardia,", "line 4: rhythm is 'tachycardia'; allowed: vf, vt"),
        ("vt,rapid_vt", "vt,vt", "line 4: aha_class is 'vt'; allowed: coarse_vf"),
        ("vt,", "noise,", "line 4: rhythm is 'noise'"),
        ("true,1", "yes,1", "line 4: shock is 'yes'; allowed: true, false or none"),
        ("true,1", "true,1.5", "line 4: fold is '1.5'; allowed: whole numbers"),
        ("cudb,cu01,", "cudb,,", "line 4: record is ''"),
        (",cudb/cu01,", ",,", "line 4: patient is ''"),
        (",cudb/cu01,", ",vfdb/418,", "line 4: patient 'vfdb/418' is in fold 1 and in fold 0"),
        ("0.7,true,1", "0.7,true", "line 4: there are 10 values, but the header names 11"),
        ("0.7,true,1", "0.7,true,1,", "line 4: there are 12 values"),
        ("0.7", "1_0", "line 4: probability is '1_0'; allowed: numbers"),
        ("true,1", "true,1_0", "line 4: fold is '1_0'; allowed: whole numbers"),
        ("true,1", f"true,1{'0' * 30}", "line 4: fold is '10+'; allowed: whole numbers"),
        # Python 3.10 itself refuses the line.
        (
            "cu01",
            "c\0",
            r"line 4: (record is 'c.x00'; allowed: text of .*, without|line contains) NUL",
        ),
        ("cu01", "c" * 65, "line 4: record is 'c+'; allowed: text of at most 64"),
        (
            "rapid_vt",
            "normal_sinus",
            "line 4: aha_class is 'normal_sinus' and rhythm is 'vt'; allowed for this rhythm: rapid_vt, other_vt",
        ),
        ("rapid_vt", "", "line 4: rhythm is 'vt' and aha_class is empty; give the aha_class rapid_vt or other_vt"),
        ("vt,rapid_vt", ",", "line 4: rhythm and aha_class are both empty"),
        ("vt,rapid_vt", ",vt", "line 4: aha_class is 'vt'; allowed: coarse_vf"),
        ("vt,rapid_vt", "tachy,", "line 4: rhythm is 'tachy'; allowed: vf"),
    ],
)
def test_malformed_line_is_named(tmp_path: Path, old: str, new: str, match: str) -> None:
    """Each malformed value is refused with its line, its value, and what is allowed."""
    assert old in GOOD[2]
    path = write(tmp_path, HEADER, GOOD[0], GOOD[1], GOOD[2].replace(old, new, 1))
    with pytest.raises(ValueError, match=match):
        Predictions.read_csv(path)


def test_duplicates_are_named(tmp_path: Path) -> None:
    """A repeated window is refused; another lead or duration is a different window."""
    repeated = GOOD[0].replace("0.9,true", "0.2,false")
    with pytest.raises(ValueError, match="line 5: .*database 'vfdb', record '418', lead 'ECG', 0 s, 5 s appears twice"):
        Predictions.read_csv(write(tmp_path, HEADER, *GOOD, repeated))
    other_lead, longer = GOOD[0].replace("ECG", "II"), GOOD[0].replace(",5,", ",8,")
    assert len(Predictions.read_csv(write(tmp_path, HEADER, *GOOD, other_lead, longer))) == 5


def test_lines_are_counted_over_quoted_line_breaks(tmp_path: Path) -> None:
    """A name that runs over two lines does not shift the line that is named."""
    broken = GOOD[0].replace("418,", '"4\n18",', 1)
    with pytest.raises(ValueError, match="line 4: probability is 7.0"):
        Predictions.read_csv(write(tmp_path, HEADER, broken, GOOD[2].replace("0.7", "7")))


def test_all_faulty_lines_are_named(tmp_path: Path) -> None:
    """Faults of all kinds are reported together, by line, each line once."""
    lines = [
        GOOD[0].replace("0.9,true", "high,maybe"),  # two faults, of which the first is named
        GOOD[1],
        GOOD[1],  # appears twice
        GOOD[0].replace("0,5,", "20,5,").replace(",0.9", ",1.9"),
        GOOD[2].replace("rapid_vt", ""),
        GOOD[0].replace("0,5,", "30,5,").replace("true,0", "true,3"),  # another fold
        "too,few",
    ]
    with pytest.raises(ValueError, match="6 lines are not allowed") as refusal:
        Predictions.read_csv(write(tmp_path, HEADER, *lines))
    title, *named = str(refusal.value).split("\n")
    assert title.endswith("predictions.csv, 6 lines are not allowed:")
    expected = [
        "line 2: probability is 'high'; allowed: numbers",
        "line 4: the window of database 'vfdb', record '418', lead 'ECG', 5 s, 5 s appears twice",
        "line 5: probability is 1.9; allowed: 0 to 1",
        "line 6: rhythm is 'vt' and aha_class is empty",
        "line 7: patient 'vfdb/418' is in fold 3 and in fold 0",
        "line 8: there are 2 values, but the header names 11",
    ]
    assert [found.strip()[: len(start)] for found, start in zip(named, expected, strict=True)] == expected


def test_many_faulty_lines_are_counted(tmp_path: Path) -> None:
    """A column that is wrong in many lines is named once, with their number; of other faults twenty are named."""
    good = [GOOD[1].replace(",5,5,", f",{2 * i},5,") for i in range(60_000)]
    bad = [line.replace("0.1", text) for text in ("x", "2") for line in good[:50]]
    with pytest.raises(ValueError, match="100 lines are not allowed") as refusal:
        Predictions.read_csv(write(tmp_path, HEADER, *good[50:], *bad))
    assert [line.strip() for line in str(refusal.value).split("\n")[1:]] == [
        "line 59952 and 49 more: probability is 'x'; allowed: numbers",
        "line 60002 and 49 more: probability is 2.0; allowed: 0 to 1",
    ]
    with pytest.raises(ValueError, match="and 5 more$") as refusal:
        Predictions.read_csv(write(tmp_path, HEADER, *good[:25], *good[:25]))
    named = [line.split(":")[0].strip() for line in str(refusal.value).split("\n")[1:-1]]
    assert named == [f"line {27 + i}" for i in range(20)]
    predictions = Predictions.read_csv(write(tmp_path, HEADER, *good))
    assert predictions.start_s.tolist() == [2.0 * i for i in range(60_000)]


def test_foreign_file_of_decisions(tmp_path: Path) -> None:
    """A file with only the required columns gets the documented defaults."""
    path = write(
        tmp_path,
        "shock,aha_class,duration_s,start_s,patient,record",
        *("1,fine_vf,4,0,p1,a", "0,other_nonshockable,4,4,p1,a", "0,asystole,4,8,p1,a", "1,other_vt,4,0,p2,b"),
    )
    found = columns(Predictions.read_csv(path))
    assert found["rhythm"] == ["vf", "organised", "asystole", "vt"]
    assert found["aha_class"] == ["fine_vf", "other_nonshockable", "asystole", "other_vt"]
    assert found["shock"] == [True, False, False, True]
    assert (found["database"], found["lead"], found["fold"]) == (["unnamed"] * 4, [""] * 4, [0] * 4)
    assert found["probability"] == found["rate_bpm"] == found["amplitude_mv"] == [None] * 4


def test_foreign_file_of_rhythms_and_probabilities(tmp_path: Path) -> None:
    """A class may be empty if the rhythm decides it; a shock is advised at the threshold or above."""
    path = write(
        tmp_path,
        "record,patient,start_s,duration_s,rhythm,aha_class,probability,rate_bpm,amplitude_mv",
        *("a,p,0,4,vf,coarse_vf,0.3,,0.31", "a,p,4,4,paced,,0.2999,,", "a,p,8,4,,normal_sinus,1,nan,"),
        "a,p,12,4,asystole,asystole,0,,0.05",
    )
    found = columns(Predictions.read_csv(path, threshold=0.3))
    assert found["aha_class"] == ["coarse_vf", "other_nonshockable", "normal_sinus", "asystole"]
    assert found["rhythm"] == ["vf", "paced", "normal_sinus", "asystole"]
    assert found["shock"] == [True, False, True, False]
    assert found["amplitude_mv"] == [0.31, None, None, 0.05]
    with pytest.raises(ValueError, match="has no column shock; give the threshold"):
        Predictions.read_csv(path)


def test_threshold_is_not_guessed(tmp_path: Path) -> None:
    """A threshold is refused if the file has decisions, or if it is not a probability or no number at all."""
    path = write(tmp_path, HEADER, *GOOD)
    with pytest.raises(ValueError, match="has a column shock, so no threshold is allowed"):
        Predictions.read_csv(path, threshold=0.5)
    for threshold in (True, "0.5", float("nan"), float("inf")):
        with pytest.raises(ValueError, match="threshold is .*; give a number"):
            Predictions.read_csv(path, threshold=threshold)
    undecided = write(
        tmp_path, *(line.replace(",shock", "").replace(",true", "").replace(",false", "") for line in (HEADER, *GOOD))
    )
    for threshold in (0, 1, 50):
        with pytest.raises(ValueError, match="threshold is .*; allowed is a probability between 0 and 1"):
            Predictions.read_csv(undecided, threshold=threshold)


def test_scores_of_any_range(tmp_path: Path) -> None:
    """A shock is advised at the threshold of the score or above, whatever its range; scores are no probabilities."""
    header = "record,patient,start_s,duration_s,aha_class,score"
    rows = [f"a,p,{5 * i},5,coarse_vf,{score}" for i, score in enumerate(("-3e4", "-12", "-11.99", "0", "870", "inf"))]
    path = write(tmp_path, header, *rows)
    found = Predictions.read_csv(path, threshold=-11.99)
    assert found.shock.tolist() == [False, False, True, True, True, True]
    assert not found.has_probability
    with pytest.raises(ValueError, match="has no column shock; give the threshold of the score"):
        Predictions.read_csv(path)
    with pytest.raises(ValueError, match="line 2: score is 'nan'; allowed: numbers"):
        Predictions.read_csv(write(tmp_path, header, rows[0].replace("-3e4", "nan")), threshold=1)
    both = write(tmp_path, f"{header},probability", f"{rows[0]},0.5")
    with pytest.raises(ValueError, match="has the columns probability and score; remove the one"):
        Predictions.read_csv(both, threshold=0.3)


def test_no_decision_is_the_wrong_advice(make_predictions: Callable[..., Predictions], tmp_path: Path) -> None:
    """Windows without a decision count as wrong from a file and from Python, and survive being written."""
    lines = [
        line.replace(decision, ",none,") for line, decision in zip(GOOD, (",true,", ",false,", ",1,"), strict=True)
    ]
    found = Predictions.read_csv(write(tmp_path, HEADER, *lines))
    assert found.no_decision.tolist() == [True, True, False]
    assert found.shock.tolist() == [False, True, True]
    predictions = make_predictions(200)
    undecided = dataclasses.replace(predictions, no_decision=np.arange(200) % 3 == 0)
    path = tmp_path / "undecided.csv"
    undecided.write_csv(path)
    assert columns(Predictions.read_csv(path)) == columns(undecided)
    nonshockable = np.isin(predictions.aha_class, ["normal_sinus", "other_nonshockable", "asystole"])
    assert (undecided.shock[::3] == nonshockable[::3]).all()
    assert (undecided.shock == predictions.shock)[~undecided.no_decision].all()


@pytest.mark.parametrize(
    ("cell", "match"),
    [
        ("fast", "line 2: rate_bpm is 'fast'; allowed: numbers"),
        ("0", "line 2: rate_bpm is 0.0; allowed: 10 to 1000 bpm, or empty"),
        ("2.5", "line 2: rate_bpm is 2.5"),
        ("-150", "line 2: rate_bpm is -150.0"),
        ("inf", "line 2: rate_bpm is inf"),
    ],
)
def test_malformed_measurement(tmp_path: Path, cell: str, match: str) -> None:
    """A rate that is given must be a positive number."""
    with pytest.raises(ValueError, match=match):
        Predictions.read_csv(write(tmp_path, f"{HEADER},rate_bpm", f"{GOOD[2]},{cell}"))


def test_microvolts_are_refused(tmp_path: Path) -> None:
    """An amplitude of 310 is not in mV."""
    with pytest.raises(ValueError, match="line 2: amplitude_mv is 310.0; allowed: 0 to 100 mV, or empty"):
        Predictions.read_csv(write(tmp_path, f"{HEADER},amplitude_mv", f"{GOOD[0]},310"))


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("", "line 1: the header must name the columns.*missing: 'record', 'patient'"),
        ("record,probability", "missing: 'patient', 'start_s', 'duration_s', 'aha_class or rhythm'"),
        (f"{HEADER},threshold", "unknown: 'threshold'. Allowed columns are database, record"),
        (HEADER.replace(",", ";"), "line 1: the header must name the columns, separated by commas"),
        (f"{HEADER},fold", "repeated: 'fold'"),
        (HEADER.replace("start_s", "start"), "missing: 'start_s'; unknown: 'start'"),
        (HEADER.replace("probability,shock", "lead").replace("lead,", "", 1), "missing: 'shock, probability or score'"),
        (GOOD[0], "unknown: 'vfdb', '418'"),
    ],
)
def test_header_must_be_known(tmp_path: Path, header: str, match: str) -> None:
    """The error names missing, unknown and repeated columns, and all known ones."""
    with pytest.raises(ValueError, match=match):
        Predictions.read_csv(write(tmp_path, header, *GOOD))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "line 1: the header must name the columns"),
        (HEADER.encode() + b'\n"vfdb', "line 2: .*UTF-8 text with commas"),
        (HEADER.encode() + b"\n" + b"a" * 200_000, "line 2: .*UTF-8 text with commas"),
        (HEADER.encode() + b"\n\xff\xfe", "line 2: .*UTF-8 text with commas"),
        (HEADER.encode("utf-16"), "line 1: .*UTF-8 text with commas"),
        ("\n".join([HEADER, *GOOD, "cudb,Müller"]).encode("latin-1"), "line 5: .*UTF-8 text with commas"),
        (HEADER.encode() + b"\n\n", "line 2: there are 0 values"),
    ],
)
def test_unreadable_file(tmp_path: Path, content: bytes, match: str) -> None:
    """An unreadable file is refused with its name and line."""
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"other.csv, {match}"):
        Predictions.read_csv(path)


def test_header_alone_is_an_empty_table(tmp_path: Path) -> None:
    """A file without rows has no predictions, and a folder or no file at all is an error of its own."""
    assert len(Predictions.read_csv(write(tmp_path, HEADER))) == 0
    with pytest.raises(OSError, match="nowhere"):
        Predictions.read_csv(tmp_path / "nowhere.csv")


def test_probabilities_are_there_or_not(make_predictions: Callable[..., Predictions]) -> None:
    """A single missing probability is refused; predictions without any are allowed."""
    predictions = make_predictions(3)
    with pytest.raises(ValueError, match="row 1: probability is nan"):
        dataclasses.replace(predictions, probability=np.array([0.1, np.nan, 0.2]))
    assert not dataclasses.replace(predictions, probability=np.full(3, np.nan)).has_probability


def test_columns_of_the_wrong_kind(make_predictions: Callable[..., Predictions]) -> None:
    """Arrays with another data type, shape or length are refused, not converted."""
    predictions = make_predictions(3)
    with pytest.raises(TypeError, match="shock has dtype .*; allowed are true or false, in an array of dtype bool"):
        dataclasses.replace(predictions, shock=np.array(["false", "false", "true"]))
    with pytest.raises(
        TypeError, match="fold has dtype float64; allowed are whole numbers, in an array of dtype int64"
    ):
        dataclasses.replace(predictions, fold=np.array([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="lead has shape"):
        dataclasses.replace(predictions, lead=np.array([["I", "II", "III"]]))
    with pytest.raises(ValueError, match="differ in length"):
        dataclasses.replace(predictions, lead=np.array(["I"]))
    with pytest.raises(ValueError, match="row 1: rhythm is 'VF'"):
        dataclasses.replace(predictions, rhythm=np.array(["vf", "VF", "vf"]))


def test_concatenate_undoes_select(make_predictions: Callable[..., Predictions]) -> None:
    """Predictions split by duration and joined again are the same; repeated windows and shared patients are refused."""
    short, long = make_predictions(30, 3.0), make_predictions(30, 8.0)
    joined = Predictions.concatenate([short, long])
    assert columns(joined.select(joined.duration_s == 8)) == columns(long)
    assert len(joined.select(joined.duration_s == 2)) == 0
    with pytest.raises(ValueError, match="appears twice"):
        Predictions.concatenate([short, short])
    with pytest.raises(ValueError, match="is in fold"):
        Predictions.concatenate([short, dataclasses.replace(long, fold=long.fold + 1)])
    with pytest.raises(ValueError, match="one or more Predictions"):
        Predictions.concatenate([])
    for mask in (np.array([0, 1]), np.array([True])):
        with pytest.raises(ValueError, match=r"allowed are bool and \(30,\)"):
            short.select(mask)


@pytest.mark.parametrize("name", [" p", "p ", "p\t", "e\u0301"])
@pytest.mark.parametrize("column", ["database", "record", "lead", "patient"])
def test_names_that_look_alike_are_refused(
    column: str, name: str, make_predictions: Callable[..., Predictions]
) -> None:
    """A space around a name, or another encoding of an accent, is refused: it would count one patient twice."""
    good = make_predictions(20)
    values = getattr(good, column).astype("U20")
    values[7] = name
    with pytest.raises(ValueError, match=f"row 7: {column} is .*; allowed: names in Unicode form NFC, without spaces"):
        dataclasses.replace(good, **{column: values})


def test_a_record_is_of_one_patient(make_predictions: Callable[..., Predictions]) -> None:
    """A record with two patients is refused, such as one with row numbers in place of the patient."""
    good = make_predictions(30)
    with pytest.raises(ValueError, match="record '.+' belongs to patient 'p.+' and to patient 'p.+'"):
        dataclasses.replace(good, patient=np.array([f"p{i}" for i in range(30)]), fold=np.zeros(30, int))


def test_lengths_that_are_meant_to_be_one_are_refused(make_predictions: Callable[..., Predictions]) -> None:
    """Durations that differ by a rounding error are refused; a difference of ten milliseconds is allowed."""
    good = make_predictions(6)
    with pytest.raises(ValueError, match="duration_s is 5.0001; allowed: durations that are equal"):
        dataclasses.replace(good, duration_s=np.array([5, 5, 5.0001, 5, 5, 5]))
    assert len(dataclasses.replace(good, duration_s=np.array([5, 5, 5.01, 5, 5, 5]))) == 6

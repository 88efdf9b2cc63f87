"""The cases of the fuzz, and the process that tries them: ``python cases.py TARGET SEED FIRST LAST FOLDER``.

It writes a line for each case: its index and ``returned``, the name of an allowed error, or ``FAULT`` and why. A
process that ends before its last case died of the one after its last line; so a crash or a hang costs that case alone.
Every case depends on (target, seed, index) and on nothing else; ``Case.generator`` gives its random numbers.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import io
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.lead import open_lead
from ecg_shock.data.readers import read_record
from ecg_shock.data.recordings import Recording
from ecg_shock.inference.advisor import DEFAULT_BUNDLE, Advice, Advisor, predict, predict_many
from ecg_shock.inference.scanning import scan
from ecg_shock.inference.streaming import AlarmRule, Stream
from ecg_shock.models.bundle import load_bundle

ALLOWED = (ValueError, TypeError, OSError)
CASE_LIMIT_S = 20  # then the kernel ends the process
EXTRA_BYTES = 2**30  # of address space over what the process has before its first case
NUMBERS = (0, 1, 2, -1, 3, 7, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**30)
TOKENS = (b"", b" ", b"\x00", b"\n", b"\r\n", b"nan", b"inf", b"-inf", b"1e999", b"-0", b"1e-320", b"0x10", b"\xff\xfe")
TOKENS += (b"../x", b"/etc/passwd", b"..\\x", b"\xc2\xb5V", b"mV", b"uV", b"{}", b"[]", b'"', b"'''", b"=", b"#", b";")
SOURCE_FS = 250


def main(target: str, seed: str, first: str, last: str, folder: str) -> None:
    """Try some cases of one target."""
    warnings.simplefilter("error", RuntimeWarning)
    attempt = TARGETS[target](Path(folder))
    vm_pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if vm_pages is not None:
        limit = vm_pages * resource.getpagesize() + EXTRA_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for index in range(int(first), int(last)):
        signal.alarm(CASE_LIMIT_S)
        rng = np.random.default_rng([sorted(TARGETS).index(target), int(seed), index])
        print(index, outcome(attempt, rng), sep="\t", flush=True)


def outcome(attempt: Callable[[np.random.Generator], None], rng: np.random.Generator) -> str:
    """Say how a case ended."""
    try:
        attempt(rng)
    except ALLOWED as error:
        return type(error).__name__
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"FAULT {type(error).__name__}: {error!s:.200} ({Path(frame.filename).name}:{frame.lineno})".replace(
            "\n", " "
        )
    return "returned"


def choose(rng: np.random.Generator, options: Any) -> Any:
    """Choose one of some options, of whatever type."""
    return options[int(rng.integers(len(options)))]


def some_rate(rng: np.random.Generator) -> Any:
    """Return a sampling rate, mostly one that is allowed."""
    if rng.random() < 0.75:
        return choose(
            rng, (100, 125, 125.0, 128, 200.0, 249.97, 250, 250.0, 360, 500, 1000, np.float32(250), np.int64(257))
        )
    odd = (0, -1, -250.0, np.nan, np.inf, "250", None, True, 99.99, 2000.0, 2000.1, 1e308, 5e-324, 250j, [250])
    return choose(rng, (*odd, np.array(250.0), np.array([250.0]), Fraction(250), Decimal(250), np.uint8(255), 10**400))


def some_units(rng: np.random.Generator) -> Any:
    """Return a unit, mostly one that is allowed."""
    if rng.random() < 0.8:
        return choose(rng, ("mV", "mV", "uV", "V", "\u00b5V", "\u03bcV"))
    return choose(rng, ("mv", "", None, 1, ["mV"], b"mV", "kV", "mV\x00", np.str_("mV"), float("nan"), {}))


def some_samples(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return samples that an ECG may have, or none can."""
    t = np.arange(n) / SOURCE_FS
    kind = int(rng.integers(12))
    if kind == 0:
        x = np.sin(2 * np.pi * rng.uniform(2, 8) * t) + 0.05 * rng.standard_normal(n)
    elif kind == 1:
        x = rng.standard_normal(n) * 10.0 ** rng.integers(-320, 300)
    elif kind == 2:
        x = np.full(n, choose(rng, (0.0, -0.0, 1.0, 1e308, -1e308, 5e-324, np.nan, np.inf, -np.inf)))
    elif kind == 3:
        x = np.frombuffer(rng.bytes(8 * n), dtype="<f8").copy()
    elif kind == 4:
        x = rng.integers(-(2**15), 2**15, n).astype(float)
    elif kind == 5:
        x = np.where(rng.random(n) < 0.5, 1, -1) * choose(rng, (1.0, 25.0, 1e9, 1.7e308, 5e-324))
    elif kind == 6:
        x = np.cumsum(rng.standard_normal(n))
    elif kind == 7:
        x = np.where(rng.random(n) < 0.01, choose(rng, (5.0, 1e9, 1e300, np.inf, np.nan)), 0.5)
    elif kind == 8:
        x = np.sign(np.sin(2 * np.pi * rng.uniform(0.5, 60) * t))
    elif kind == 9:
        x = np.linspace(-1, 1, n) * 10.0 ** rng.integers(-10, 12)
    elif kind == 10:
        x = np.zeros(n)
        x[rng.integers(0, n, 3) if n else []] = choose(rng, (1.0, 1e9, 1e-320, -0.0, np.nan))
    else:
        x = np.clip(3 * np.sin(2 * np.pi * rng.uniform(2, 8) * t), -1, 1)
    pattern = int(rng.integers(8)) if n else 0
    if pattern == 1:
        x[rng.random(n) < rng.random()] = choose(rng, (np.nan, np.inf, -np.inf))
    elif pattern == 2:
        first = int(rng.integers(n))
        x[first : first + int(rng.integers(n))] = np.nan
    elif pattern == 3:
        x[:: int(rng.integers(1, 5))] = np.nan
    elif pattern == 4:
        x[choose(rng, (0, -1, n // 2))] = choose(rng, (np.nan, np.inf, 1e300, -0.0))
    return x


def some_array(rng: np.random.Generator, n: int) -> Any:
    """Return samples in one of the many ways to hold them, mostly one that is allowed."""
    x: Any = some_samples(rng, n)
    with np.errstate(all="ignore"):
        if rng.random() < 0.5:
            kinds = ["f2", ">f4", "<f4", ">f8", "<f8", "f16", "i1", "u1", "<i2", ">i2", "<u4", ">i8", "<u8"]
            x = x.astype(np.dtype(choose(rng, kinds)))
        elif rng.random() < 0.2:
            x = choose(rng, (x.astype(bool), x.astype(complex), x.astype(object), x.astype(str), x.astype("S8")))
    if rng.random() < 0.01:
        x = np.full(n, np.longdouble(choose(rng, ("1e4000", "-1e-4900", "1e308"))))
    layout = int(rng.integers(24))
    if layout == 1:
        x = np.ma.masked_array(x, mask=rng.random(n) < choose(rng, (0.0, 0.05, 0.5, 1.0)))
    elif layout == 2:
        x.flags.writeable = False
    elif layout == 3:
        x = np.repeat(x, 2)[::2]
    elif layout == 4:
        x = x[::-1]
    elif layout == 5:
        x = np.broadcast_to(x[:1], (n,)) if n else x
    elif layout == 6:
        x = x.tolist()
    elif layout == 7:
        x = tuple(x.tolist())
    elif layout == 8:
        x = x[None]
    elif layout == 9:
        x = x[:, None]
    elif layout == 10:
        x = np.stack([x, x, x], axis=int(rng.integers(2)))
    elif layout == 11:
        x = choose(rng, (None, "ecg", b"ecg", {}, {"a": 1}, 3, 1.5, object(), [[1, 2], [3]], [None] * 9, ["1"] * 700))
    elif layout == 12:
        x = choose(rng, (np.array(1.0), np.empty(0), np.empty((0, n)), np.empty((n, 0)), np.empty((2, 3, 4))))
    elif layout == 13:
        x = array.array("d", np.asarray(some_samples(rng, n)))
    elif layout == 14:
        x = memoryview(np.asarray(some_samples(rng, n)))
    elif layout == 15:
        x = [10**400] * n if rng.random() < 0.5 else [float("1e308")] * n
    elif layout == 16:
        x = np.zeros(n, dtype=choose(rng, ("M8[s]", "m8[s]", "V8", "i4,f4", "U3")))
    elif layout == 17:
        x = some_samples(rng, n).view(np.recarray) if n else x
    elif layout == 18:
        x = (value for value in np.asarray(some_samples(rng, 5)))
    return x


def some_length(rng: np.random.Generator) -> int:
    """Return a length: mostly one that some rate allows, near the limits or far beyond them."""
    if rng.random() < 0.8:
        return int(choose(rng, (250, 500, 625, 720, 1000, 1250, 1800, 2500)) + rng.integers(-2, 3))
    return int(choose(rng, (0, 1, 2, 3, 10, 100, 249, 3000, 20_000)))


def check_advice(advice: Advice) -> None:
    """Check an advice against what it promises."""
    if advice.usable:
        assert 0 <= advice.probability <= 1, advice
        assert advice.shock == (advice.probability >= advice.threshold), advice
        assert advice.reason == "", advice
    else:
        assert np.isnan(advice.probability), advice
        assert not advice.shock, advice
        assert advice.reason, advice


def try_predict(folder: Path) -> Callable[[np.random.Generator], None]:
    """One strip."""
    predict(np.zeros(625), 125)  # what is loaded once is no part of a case

    def attempt(rng: np.random.Generator) -> None:
        n = some_length(rng)
        if rng.random() < 0.05:
            with np.errstate(all="ignore"):
                signal_ = some_samples(rng, n)[:, None].astype(choose(rng, ("f2", "f4", ">f8", "f8")))
            recording = Recording(np.repeat(signal_, 2, axis=1)[:, : int(rng.integers(1, 3))], some_rate(rng), ("II",))
            check_advice(predict(recording))
            return
        check_advice(predict(some_array(rng, n), some_rate(rng), units=some_units(rng)))

    return attempt


def try_predict_many(folder: Path) -> Callable[[np.random.Generator], None]:
    """Several strips."""
    predict(np.zeros(625), 125)

    def attempt(rng: np.random.Generator) -> None:
        n = some_length(rng)
        rows: Any = [some_array(rng, n + int(rng.random() < 0.02)) for _ in range(rng.integers(0, 5))]
        if rng.random() < 0.7:
            rows = np.array([some_samples(rng, n) for _ in range(rng.integers(0, 7))])
            rows = choose(rng, (rows, np.asfortranarray(rows), rows[::-1, ::-1] if rows.ndim == 2 else rows, rows.T))
        if rng.random() < 0.1:
            rows = some_array(rng, n)
        advice = predict_many(rows, some_rate(rng), units=some_units(rng))
        assert len(advice) == len(rows)
        for one in advice:
            check_advice(one)

    return attempt


def try_stream(folder: Path) -> Callable[[np.random.Generator], None]:
    """Pieces, times and settings of a stream; after a refusal it still works."""
    advisor = Advisor()

    def attempt(rng: np.random.Generator) -> None:
        settings: dict[str, Any] = {"model": advisor}
        if rng.random() < 0.3:
            settings["units"] = some_units(rng)
        if rng.random() < 0.5:
            settings["step_s"] = choose(rng, (0.1, 0.5, 1, 2.5, 10, 0, -1, np.nan, np.inf, "1", None, True, 1e-9, 11))
        if rng.random() < 0.5:
            settings["window_s"] = choose(rng, (2, 2.004, 3.3, 5.0, 10, 1.99, 0, np.nan, "5", 10.1, np.float32(4), 1j))
        if rng.random() < 0.2:
            settings["alarm"] = choose(
                rng, (None, AlarmRule(1, 1), AlarmRule(2, 9), AlarmRule(5, 5), 3, "3 of 5", (3, 5))
            )
        stream = Stream(some_rate(rng), **settings)
        clock = float(rng.uniform(-1e6, 1e6))
        allowed = 0
        for _ in range(rng.integers(1, 7)):
            before = stream.received_s
            at_s: Any = clock + stream.received_s + float(choose(rng, (0, 0, 0.01, -0.05, 0.5, -0.5, 20, -20, 4e3)))
            if rng.random() < 0.2:
                at_s = choose(rng, (np.nan, np.inf, "0", True, 1e308, -1e308, 5e-324, np.float32(1), 10**400, 1j))
            try:
                steps = stream.push(
                    some_array(rng, int(choose(rng, (0, 1, 7, 125, 250, 1250, 4000)))), choose(rng, (None, at_s))
                )
            except ALLOWED:
                allowed += 1
                assert stream.received_s == before
                continue
            for step in steps:
                check_advice(step.advice)
                assert step.end_s <= stream.received_s + 1 / stream.fs + 0.01
            assert stream.state in ("filling", "running", "lead off")
        assert all(not step.advice.shock for step in stream.push(np.zeros(round(11 * stream.fs)))[-1:])
        assert stream.state == "running"
        if allowed:
            raise ValueError("a push was refused, as it may be")

    return attempt


def try_scan(folder: Path) -> Callable[[np.random.Generator], None]:
    """Arrays, recordings and settings of a scan."""
    advisor = Advisor()

    def attempt(rng: np.random.Generator) -> None:
        settings: dict[str, Any] = {"model": advisor}
        if rng.random() < 0.3:
            settings["step_s"] = choose(rng, (0.25, 1, 2.5, 10, 0, np.nan, "1", None, 1e-9))
        if rng.random() < 0.3:
            settings["window_s"] = choose(rng, (2, 3.3, 10, 1.99, np.nan, "5", True))
        if rng.random() < 0.2:
            settings["alarm"] = choose(rng, (None, AlarmRule(1, 1), AlarmRule(4, 4), 3, "x"))
        if rng.random() < 0.2:
            settings["lead"] = choose(rng, ("1", "II", "", None, 0, ["1"]))
        n = int(choose(rng, (0, 1, 400, 1249, 1250, 2500, 5000, 9000)))
        kind = rng.random()
        if kind < 0.7:
            source, rate = some_array(rng, n), some_rate(rng)
            settings["units"] = choose(rng, (None, some_units(rng)))
        elif kind < 0.95:
            columns = np.stack([some_samples(rng, max(n, 1)) for _ in range(rng.integers(1, 3))], axis=1)
            with np.errstate(all="ignore"):
                columns = columns.astype(choose(rng, ("f2", "f4", "f8", ">f4")))
            source, rate = Recording(columns, some_rate(rng), ("II", "V5")[: columns.shape[1]]), None
        else:
            source, rate = choose(rng, ("", ".", "/", "nowhere", "\x00", Path(), 5, b"x", "a" * 5000)), some_rate(rng)
        result = scan(source, rate, **settings)
        lengths = {
            len(values) for values in (result.start_s, result.probability, result.reason, result.shock, result.alarm)
        }
        assert lengths == {len(result.start_s)}
        assert not (result.shock & ~result.usable).any()
        assert (np.isnan(result.probability) == ~result.usable).all()
        for episode in result.episodes:
            assert 0 <= episode.onset_s < episode.end_s <= result.duration_s + result.step_s, episode

    return attempt


def mutate(rng: np.random.Generator, content: bytes) -> bytes:
    """Change bytes: bits, runs, numbers in text, tokens, cuts, doublings."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        n = len(data)
        at, until = (sorted(int(i) for i in rng.integers(0, n + 1, 2))) if n else (0, 0)
        kind = int(rng.integers(9))
        if kind == 0 and n:
            data[at % n] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data += rng.bytes(int(rng.integers(1, 300)))
        elif kind == 3:
            data[at : at + int(rng.integers(0, 8))] = choose(rng, TOKENS)
        elif kind == 4:
            data[at : at + 4] = int(choose(rng, NUMBERS) % 2**32).to_bytes(4, choose(rng, ("little", "big")))
        elif kind == 5:
            del data[at : min(until, at + 40)]
        elif kind == 6:
            data[at:at] = data[until : until + int(rng.integers(1, 40))]
        elif kind == 7:
            data[at : at + 16] = rng.bytes(16)
        else:
            digits = [i for i, byte in enumerate(data[:4000]) if 48 <= byte <= 57]
            if digits:
                i = choose(rng, digits)
                data[i : i + 1] = str(choose(rng, (*NUMBERS, "-1", "1e400", "nan", "."))).encode()
    return bytes(data)


def check_recording(recording: Recording) -> None:
    """Check a recording against what it promises."""
    assert recording.signal.dtype == np.float32
    assert recording.signal.shape[1] == len(recording.leads) > 0
    assert not np.isinf(recording.signal).any()
    assert len(set(recording.leads)) == len(recording.leads)


def read_somehow(rng: np.random.Generator, path: Path, **arguments: Any) -> None:
    """Read a file whole, or one lead of it in pieces."""
    if rng.random() < 0.2:
        arguments["fs"] = some_rate(rng)
    if rng.random() < 0.2:
        arguments["units"] = some_units(rng)
    if rng.random() < 0.5:
        leads = {"leads": choose(rng, (["1"], ["II"], [], ["nowhere"], "II", [3]))} if rng.random() < 0.2 else {}
        check_recording(read_record(path, **leads, **arguments))
        return
    lead = open_lead(path, **({"lead": choose(rng, ("1", "II", "", 3))} if rng.random() < 0.2 else {}), **arguments)
    pieces = list(lead.pieces())
    assert sum(map(len, pieces)) == lead.n_samples
    assert not any(np.isinf(piece).any() for piece in pieces)


def try_wfdb(folder: Path) -> Callable[[np.random.Generator], None]:
    """Headers and signal files of records in five formats."""
    import wfdb

    rng = np.random.default_rng(0)
    sources = []
    for fmt in ("80", "212", "16", "24", "32"):
        digital = rng.integers(-100, 100, (600, 2))
        wfdb.wrsamp(
            f"r{fmt}", SOURCE_FS, ["mV", "uV"], ["II", "V5"], d_signal=digital, fmt=[fmt] * 2, adc_gain=[200.0, 2.0],
            baseline=[0, 3], write_dir=str(folder), comments=["a comment"],
        )  # fmt: skip
        header, content = ((folder / f"r{fmt}.{suffix}").read_bytes() for suffix in ("hea", "dat"))
        # Without checksums, damage of the samples is taken for samples.
        unsure = re.sub(rb"(\.dat \S+ \S+ \S+ \S+ \S+) \S+", rb"\1 0", header)
        sources += [(f"r{fmt}", header, content), (f"r{fmt}", unsure, content)]

    def attempt(rng: np.random.Generator) -> None:
        name, header, content = choose(rng, sources)
        which = rng.random()
        (folder / f"{name}.hea").write_bytes(header if which > 0.7 else mutate(rng, header))
        (folder / f"{name}.dat").write_bytes(content if which < 0.6 else mutate(rng, content))
        read_somehow(rng, folder / choose(rng, (name, f"{name}.hea", f"{name}.dat")))

    return attempt


def try_edf(folder: Path) -> Callable[[np.random.Generator], None]:
    """EDF files."""
    import edfio

    wave = np.sin(np.arange(1000) / 10)
    signals = [edfio.EdfSignal(wave, SOURCE_FS, label=name, physical_dimension="mV") for name in ("II", "V5")]
    edfio.Edf(signals).write(folder / "source.edf")
    content = (folder / "source.edf").read_bytes()

    def attempt(rng: np.random.Generator) -> None:
        part = int(choose(rng, (768, 768, len(content))))  # the header, mostly
        (folder / "r.edf").write_bytes(mutate(rng, content[:part]) + content[part:])
        read_somehow(rng, folder / "r.edf")

    return attempt


def try_csv(folder: Path) -> Callable[[np.random.Generator], None]:
    """Tables of numbers in text."""
    values = np.random.default_rng(0).normal(size=(40, 2)).round(3).tolist()
    sources = [
        "\n".join([head, *(delimiter.join(map(str, row)) for row in values)]).strip().encode(encoding)
        for delimiter in ",;\t"
        for head in ("", f"II{delimiter}V5", f"time{delimiter}II")
        for encoding in ("utf-8", "utf-8-sig", "utf-16")
    ]

    def attempt(rng: np.random.Generator) -> None:
        path = folder / choose(rng, ("r.csv", "r.tsv", "r.txt"))
        path.write_bytes(mutate(rng, choose(rng, sources)))
        arguments = {"fs": SOURCE_FS, "units": "mV"}
        if path.suffix == ".csv" and rng.random() < 0.02:
            path.write_bytes(rng.bytes(500))
        read_somehow_with(rng, path, arguments)

    return attempt


def read_somehow_with(rng: np.random.Generator, path: Path, arguments: dict[str, Any]) -> None:
    """Read a file that does not say its rate and units; now and then they are missing or odd."""
    if rng.random() < 0.2:
        arguments = {"fs": some_rate(rng), "units": some_units(rng)}
    if rng.random() < 0.5:
        leads = {"leads": choose(rng, (["1"], ["II"], [], ["nowhere"], "II", [3]))} if rng.random() < 0.2 else {}
        check_recording(read_record(path, **leads, **arguments))
        return
    pieces = list(open_lead(path, **arguments).pieces())
    assert not any(np.isinf(piece).any() for piece in pieces)


def try_npy(folder: Path) -> Callable[[np.random.Generator], None]:
    """NumPy files of every kind of array, with pickles and headers that claim too much."""

    def attempt(rng: np.random.Generator) -> None:
        path = folder / "r.npy"
        kind = rng.random()
        buffer = io.BytesIO()
        saved = np.asarray(some_samples(rng, 60))
        if kind < 0.3:
            with np.errstate(all="ignore"):
                saved = saved.astype(
                    choose(rng, ("f2", ">f4", "f8", "f16", "i1", "<u8", "?", "c8", "O", "U9", "S3", "M8[s]", "V4"))
                )
        if rng.random() < 0.5:
            saved = saved.reshape(choose(rng, ((30, 2), (2, 30), (60, 1), (3, 4, 5), (1, 60), (20, 3))))
        np.save(buffer, np.asfortranarray(saved) if rng.random() < 0.1 else saved)
        content = buffer.getvalue()
        if rng.random() < 0.3:
            shapes = (
                "(10**12,) (1000000000000,) (-1,) (0,) (0,3) (2**70,) (1e3,) (True,) [60] (99999999999999999999999,)"
            )
            shape = choose(rng, shapes.split())
            start = content.index(b"'shape': ") + 9
            end = content.index(b")", start) + 1
            header = content[10:start] + shape.encode() + content[end : content.index(b"\n", end)]
            content = content[:8] + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + saved.tobytes()
        path.write_bytes(mutate(rng, content) if rng.random() < 0.8 else content)
        read_somehow_with(rng, path, {"fs": SOURCE_FS, "units": "mV"})

    return attempt


def copy_of_bundle(folder: Path) -> Path:
    """Copy the bundle that comes with the package."""
    shutil.copytree(DEFAULT_BUNDLE, folder / "bundle")
    return folder / "bundle"


def try_toml(folder: Path) -> Callable[[np.random.Generator], None]:
    """Descriptions of a bundle: as bytes, and as values of other types."""
    import tomli_w

    bundle = copy_of_bundle(folder)
    source = (bundle / "bundle.toml").read_bytes()
    source = source[: source.index(b"[card.data]")]
    text = source.decode()
    lines = [i for i, line in enumerate(text.splitlines()) if "=" in line]
    odd = ("0", "-1", "1", "3", "9" * 20, "-" + "9" * 20, "0x7fffffffffffffff", "1e400", "nan", "-inf")
    odd += ("true", '""', '"same"', '"\\u0000"', '"../../etc/passwd"', "[]", "[[]]", "[0]", "[1e9]", "[-1, 2]", "{}")
    odd += ("{a = {b = [1, {c = 2}]}}", "2026-01-01", "07:32:00", "[" * 200 + "]" * 200, "[999999999, 999999999]")
    odd += ("'''\n'''", "1" * 5000, "0b" + "1" * 9000, "[" * 5000, '"' + "x" * 10000 + '"', "{" * 3000)
    odd += ("[10, 10, 10, 10, 10, 10, 10]",)

    def attempt(rng: np.random.Generator) -> None:
        changed = mutate(rng, source)
        if rng.random() < 0.6:
            rows = text.splitlines()
            for _ in range(int(rng.integers(1, 3))):
                row = choose(rng, lines)
                key = rows[row].split("=")[0]
                name = choose(rng, ("depth", "a.b", "folder", "card", "__class__", "sos", "network.filters"))
                extra = f"{rows[row]}\n{name} = 1"
                rows[row] = choose(rng, ("", f"{key}= {choose(rng, odd)}", f"{key}= {choose(rng, odd)}", extra))
            changed = "\n".join(rows).encode()
        (bundle / "bundle.toml").write_bytes(changed)
        loaded = load_bundle(bundle)
        assert 0 < loaded.threshold < 1
        assert tomli_w.dumps(dataclasses.asdict(loaded.spec))
        if rng.random() < 0.1:
            advisor = Advisor(loaded)
            check_advice(advisor.predict(np.sin(np.arange(625) / 5), 125))

    return attempt


def fit_digest(bundle: Path, name: str, content: bytes, text: str) -> None:
    """Write a changed model, and its digest, as one would who can change both."""
    old = hashlib.sha256((DEFAULT_BUNDLE / name).read_bytes()).hexdigest()
    (bundle / name).write_bytes(content)
    (bundle / "bundle.toml").write_text(text.replace(old, hashlib.sha256(content).hexdigest()))


def try_litert(folder: Path) -> Callable[[np.random.Generator], None]:
    """Flatbuffers with a digest that fits (nine of ten) or does not: where the graph is, and anywhere."""
    bundle = copy_of_bundle(folder)
    text = (bundle / "bundle.toml").read_text()
    source = (bundle / "model.tflite").read_bytes()
    graph_at = source.rindex(b"serving_default_ecg")  # names of tensors, then operators, lie behind the weights
    graph_at = min(graph_at, len(source) - 12_000)
    strips = {n: np.sin(np.arange(n) / 5) for n in (625, 250, 333, 1250)}

    def attempt(rng: np.random.Generator) -> None:
        data = bytearray(source)
        kind = rng.random()
        if kind < 0.15:
            data = bytearray(mutate(rng, source))
        elif kind < 0.75:  # whole numbers of the graph
            for _ in range(int(rng.integers(1, 3))):
                at = int(rng.integers(graph_at, len(data) - 4)) // 4 * 4
                near = int.from_bytes(data[at : at + 4], "little") + int(choose(rng, (-1, 1, 2, -2)))
                data[at : at + 4] = int(choose(rng, (*NUMBERS, near, near, near)) % 2**32).to_bytes(4, "little")
        elif kind < 0.9:
            for _ in range(int(rng.integers(1, 4))):
                data[int(rng.integers(graph_at, len(data)))] ^= 1 << int(rng.integers(8))
        else:
            at, other = (int(i) // 4 * 4 for i in rng.integers(graph_at, len(data) - 16, 2))
            data[at : at + 8] = data[other : other + 8]
        if rng.random() < 0.9:
            fit_digest(bundle, "model.tflite", bytes(data), text)
        else:
            (bundle / "bundle.toml").write_text(text)
            (bundle / "model.tflite").write_bytes(bytes(data))
        advisor = Advisor(bundle)
        for strip in strips.values():
            check_advice(advisor.predict(strip))

    return attempt


def try_keras(folder: Path) -> Callable[[np.random.Generator], None]:
    """Keras files with a digest that fits."""
    bundle = copy_of_bundle(folder)
    text = (bundle / "bundle.toml").read_text()
    source = (bundle / "model.keras").read_bytes()
    load_bundle(bundle).load_keras()

    def attempt(rng: np.random.Generator) -> None:
        content = mutate(rng, source)
        if rng.random() < 0.5:  # the configuration, which is in the archive as it is
            at = source.index(b'"config"') if b'"config"' in source else 0
            content = source[:at] + mutate(rng, source[at : at + 6000]) + source[at + 6000 :]
        fit_digest(bundle, "model.keras", content, text)
        load_bundle(bundle).load_keras()

    return attempt


TARGETS: dict[str, Callable[[Path], Callable[[np.random.Generator], None]]] = {
    "predict": try_predict,
    "predict_many": try_predict_many,
    "stream": try_stream,
    "scan": try_scan,
    "wfdb": try_wfdb,
    "edf": try_edf,
    "csv": try_csv,
    "npy": try_npy,
    "toml": try_toml,
    "litert": try_litert,
    "keras": try_keras,
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(*sys.argv[1:5], sys.argv[5] if len(sys.argv) > 5 else scratch)

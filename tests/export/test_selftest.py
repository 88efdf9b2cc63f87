"""``selftest.c`` passes on correct code, finds wrong code, and compiles for a device without an operating system."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ecg_shock.export.export import ExportResult, export
from ecg_shock.models.bundle import Bundle

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing: the C code cannot be compiled"),
]
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wdouble-promotion")
ARM_GCC = "arm-none-eabi-gcc"
CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
MAY_BE_MISSING = {"memcpy", "memset", "memmove"}  # what any C compiler may call
COUNT = 4
QEMU = next(filter(None, map(shutil.which, ("qemu-arm-static", "qemu-arm"))), None)
# Begins without a library, and ends with a Linux system call, which QEMU turns into its own exit status.
START = """
#include "ecg_shock.h"
static ecg_shock lead;
__attribute__((used)) static void run(void)
{
    register int status __asm("r0") = ecg_shock_selftest(&lead);
    register int call __asm("r7") = 1;
    __asm volatile("svc 0" : : "r"(status), "r"(call));
}
__attribute__((naked)) void _start(void) { __asm volatile("bl run"); }
"""


def wrong_vectors(folder: Path, *flags: str) -> int:
    """Compile the self-test as the page says, with strict warnings, and return what its main returns."""
    sources = [str(folder / name) for name in ("ecg_shock.c", "selftest.c")]
    command = ["gcc", *STRICT, *flags, "-DECG_SHOCK_SELFTEST_MAIN", *sources, "-o", str(folder / "selftest")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return subprocess.run([str(folder / "selftest")], check=False).returncode


@pytest.fixture
def code(exports: Callable[[str], ExportResult], tmp_path: Path) -> Path:
    """Copy the exported C code of the small bundle."""
    for file in exports("c").files:
        shutil.copy(file, tmp_path)
    return tmp_path


@pytest.mark.parametrize("flags", [(), ("-O2",), ("-O1", "-fsanitize=address,undefined"), ("-DECG_SHOCK_STEP=50",)])
def test_correct_code_has_no_wrong_vector(flags: tuple[str, ...], code: Path) -> None:
    """The return value is 0, without undefined behaviour, and for another step from advice to advice."""
    assert wrong_vectors(code, *flags) == 0


@pytest.mark.parametrize("logit", [-50.0, 1.5, 50.0])
def test_threshold_of_the_compiler_is_used(logit: float, code: Path) -> None:
    """The threshold of the header can be defined from outside, and the expected decisions follow from it."""
    flag = f"-DECG_SHOCK_THRESHOLD_LOGIT={logit}f"
    assert wrong_vectors(code, flag) == 0
    shock = "advice->shock = advice->quality == ECG_SHOCK_USABLE && logit >= ECG_SHOCK_THRESHOLD_LOGIT;"
    change(code / "ecg_shock.c", shock, shock.replace(" && ", " && !(").replace(";", ");"))
    assert wrong_vectors(code, flag) == 2  # the usable ones


def change(path: Path, old: str, new: str) -> None:
    """Replace a text that occurs once."""
    text = path.read_text(encoding="ascii")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="ascii")


@pytest.mark.parametrize(
    ("file", "old", "new", "wrong"),
    [
        ("ecg_shock.c", "float logit = ECG_SHOCK_DENSE_BIAS;", "float logit = ECG_SHOCK_DENSE_BIAS + 0.1f;", COUNT),
        ("ecg_shock.c", "float logit = ECG_SHOCK_DENSE_BIAS;", "float logit = (0.0f / 0.0f);", COUNT),
        ("ecg_shock.c", "return ECG_SHOCK_MISSING;", "return ECG_SHOCK_USABLE;", 1),
        ("ecg_shock.c", "return ECG_SHOCK_FLAT;", "return ECG_SHOCK_USABLE;", 1),
        ("ecg_shock.c", "const float held = valid ? mv : s->history[s->newest];", "const float held = mv;", 2),
    ],
)
def test_wrong_code_is_found(file: str, old: str, new: str, wrong: int, code: Path) -> None:
    """A wrong bias, NaN, a missing check and unheld samples give the number of vectors that they change."""
    change(code / file, old, new)
    assert wrong_vectors(code) == wrong


def test_step_that_does_not_end_with_a_vector_does_not_compile(code: Path) -> None:
    """With a step of 0.8 s no advice comes with the last sample, so the compiler refuses."""
    command = ["gcc", "-std=c99", "-DECG_SHOCK_STEP=100", "-c", str(code / "selftest.c"), "-o", str(code / "out.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ECG_SHOCK_STEP that divides 250" in done.stderr


@pytest.mark.parametrize(("fs", "window_s"), [(300.0, None), (360.0, 10.0), (2000.0, 10.0)])
def test_size_of_the_vectors(fs: float, window_s: float | None, bundle: Bundle, tmp_path: Path) -> None:
    """The stated bytes are those of the constants: about 16 kB for each second and kHz, at most 200 kB."""
    result = export(bundle, "c-int8", tmp_path, fs=fs, window_s=window_s)
    text = result.files[-2].read_text(encoding="ascii")
    (stated,) = re.findall(r"The constants have (\d+) bytes", text)
    subprocess.run(["gcc", "-std=c99", "-c", str(result.files[-2]), "-o", str(tmp_path / "selftest.o")], check=True)
    symbols = subprocess.run(["nm", "-S", tmp_path / "selftest.o"], capture_output=True, text=True, check=True).stdout
    (size,) = re.findall(r"^\w+ (\w+) r vectors$", symbols, re.MULTILINE)
    assert int(stated) == int(size, 16) <= 200_000
    assert wrong_vectors(tmp_path) == 0


@pytest.mark.skipif(shutil.which(ARM_GCC) is None, reason=f"{ARM_GCC} is missing: install gcc-arm-none-eabi")
def test_cortex_m4_needs_only_the_code(code: Path) -> None:
    """For a Cortex-M4 the self-test calls ecg_shock.c and nothing else, writes no data, and has no main."""
    command = [ARM_GCC, *CORTEX_M4, *STRICT, "-O2", "-ffreestanding", "-fstack-usage", "-c", "selftest.c"]
    done = subprocess.run([*command, "-o", "m4.o"], cwd=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    symbols = subprocess.run(["arm-none-eabi-nm", "m4.o"], cwd=code, capture_output=True, text=True, check=True).stdout
    found = [line.split()[-2:] for line in symbols.splitlines()]
    assert {name for kind, name in found if kind == "U"} <= {"ecg_shock_init", "ecg_shock_push", *MAY_BE_MISSING}
    assert not [name for kind, name in found if kind in "BbDdC"]
    assert {name for kind, name in found if kind == "T"} == {"ecg_shock_selftest"}
    (stack,) = re.findall(r"ecg_shock_selftest\t(\d+)\t", (code / "m4.su").read_text())
    assert int(stack) <= 100


@pytest.mark.skipif(QEMU is None or shutil.which(ARM_GCC) is None, reason="qemu-user or gcc-arm-none-eabi is missing")
@pytest.mark.parametrize(("bias", "wrong"), [("", 0), (" + 0.1f", COUNT)])
def test_code_for_a_cortex_m4_in_an_emulator(bias: str, wrong: int, code: Path) -> None:
    """The machine code for a Cortex-M4 has no wrong vector, and with a wrong bias only wrong ones."""
    change(code / "ecg_shock.c", "logit = ECG_SHOCK_DENSE_BIAS;", f"logit = ECG_SHOCK_DENSE_BIAS{bias};")
    (code / "start.c").write_text(START, encoding="ascii")
    command = [ARM_GCC, *CORTEX_M4, "-std=gnu99", "-O2", "-ffreestanding", "-nostartfiles"]
    command += ["start.c", "ecg_shock.c", "selftest.c", "-o", "selftest.elf"]
    subprocess.run(command, cwd=code, check=True)
    # This core runs all instructions of a Cortex-M4; some versions of QEMU cannot emulate a Cortex-M4 without a board.
    assert subprocess.run([str(QEMU), "-cpu", "cortex-a15", "selftest.elf"], cwd=code, check=False).returncode == wrong


def test_header_has_the_threshold(exports: Callable[[str], ExportResult], bundle: Bundle) -> None:
    """The header defines the logit of the bundle's threshold, unless it is defined already."""
    text = exports("c").files[0].read_text(encoding="ascii")
    guarded = r"#ifndef ECG_SHOCK_THRESHOLD_LOGIT\n#define ECG_SHOCK_THRESHOLD_LOGIT (\S+)f\n#endif\n"
    (value,) = re.findall(guarded, text)
    assert float(value) == pytest.approx(math.log(bundle.threshold / (1 - bundle.threshold)), rel=1e-6)
    assert text.count("#define ECG_SHOCK_THRESHOLD_LOGIT") == 1

"""What the station must not import, asked of fresh interpreters."""

import subprocess
import sys

HEAVY = ("tensorflow", "keras", "scipy", "matplotlib", "training")


def imported_by(statement):
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_command_line_imports_nothing_heavy():
    modules = imported_by("import device.cli; device.cli.make_parser()")
    assert not modules & {*HEAVY, "numpy", "cv2", "paho", "ai_edge_litert", "tflite_runtime"}


def test_what_reads_a_field_imports_neither_scipy_nor_tensorflow():
    modules = imported_by("import device.analysis.assess, device.classifier, device.models, device.fields")
    assert not modules & set(HEAVY)


def test_a_station_that_starts_pays_for_no_other_command():
    run = "import device.cli as c; c.main(['run', '--config', '/nowhere'])"
    code = f"{run}; import os, sys; print(' '.join(sys.modules), os.environ['OPENBLAS_NUM_THREADS'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *modules, threads = done.stdout.split()
    assert "device.station" in modules, done.stderr
    assert {name for name in modules if name.startswith("device.cli.")} <= {"device.cli.run"}
    assert threads == "1"

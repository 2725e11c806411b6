"""tools/install into the files of a system that is not there: only its chroot is made up."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROOT = """#!/usr/bin/env bash
root=$1; shift
echo "$*" >>"$root/calls"
case "$*" in
    "python3 -c"*maxsize*) exit "$BITS_64" ;;
    "python3 -c"*) ;;
    "python3 -m venv"*)
        folder="$root${!#}"
        mkdir -p "$folder/bin"
        printf '#!/bin/sh\\n' >"$folder/bin/nanotox"
        chmod +x "$folder/bin/nanotox" ;;
    *" model verify "*) exit "$BROKEN" ;;
    "systemctl --version") echo "systemd $SYSTEMD" ;;
    *" --version") echo "nanotox 1.2.3" ;;
    "id nanotox") exit 1 ;;
esac
"""


@pytest.fixture
def system(tmp_path, monkeypatch):
    """The root of a system, and a chroot that only writes down what it is asked for."""
    if os.geteuid() != 0:
        pytest.skip("tools/install wants root")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "chroot").write_text(CHROOT)
    (programs / "chroot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, value in {"SYSTEMD": "252", "BROKEN": "0", "BITS_64": "1"}.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "system"
    root.mkdir()
    return root


def install(system, command, *options):
    done = subprocess.run(
        [ROOT / "tools" / "install", command, "--root", system, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    calls = (system / "calls").read_text() if (system / "calls").exists() else ""
    return done, calls


def releases(system):
    return sorted(path.name for path in (system / "opt/nanotox-releases").glob("*"))


def units(system):
    return sorted(path.name for path in (system / "etc/systemd/system").glob("*.service"))


def test_it_lays_out_a_station_and_again_changes_nothing_of_the_labs(system):
    done, calls = install(system, "install")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nanotox 1.2.3 is installed\n"
    assert "[litert]" in calls
    assert "systemctl enable --quiet nanotox.service" in calls
    assert "restart" not in calls, "nothing is started in a system that does not run"
    assert units(system) == ["nanotox-alarm.service", "nanotox-collect.service", "nanotox.service"]
    assert (system / "opt/nanotox").readlink() == Path("/opt/nanotox-releases", *releases(system))
    assert (system / "etc/credstore").stat().st_mode & 0o777 == 0o700
    config = system / "etc/nanotox/station.toml"
    assert config.read_text() == (ROOT / "systemd/station.toml").read_text()
    config.write_text("of the lab")
    assert install(system, "install")[0].returncode == 0
    assert config.read_text() == "of the lab"
    assert len(releases(system)) == 2, "the version before is kept"
    assert install(system, "upgrade")[0].returncode == 0
    assert len(releases(system)) == 2


def test_a_version_that_does_not_give_its_golden_scores_changes_nothing(system, monkeypatch):
    install(system, "install")
    before = (system / "opt/nanotox").readlink(), releases(system)
    monkeypatch.setenv("BROKEN", "1")
    done, _ = install(system, "upgrade")
    assert done.returncode == 1
    assert "does not give its golden scores here; nothing was changed" in done.stderr
    assert ((system / "opt/nanotox").readlink(), releases(system)) == before


@pytest.mark.parametrize("purge", [False, True])
def test_uninstall_keeps_what_the_lab_made_unless_told_otherwise(system, purge):
    install(system, "install")
    kept = ["etc/nanotox/station.toml", "var/lib/private/nanotox/journal.db", "etc/credstore/nanotox.key"]
    for name in kept:
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).touch()
    (system / "etc/credstore/of-others").touch()
    for _ in range(2):  # the second time there is nothing to do
        done, _ = install(system, "uninstall", *["--purge"] * purge)
        assert done.returncode == 0, done.stderr
    assert [name for name in kept if (system / name).exists()] == ([] if purge else kept)
    assert (system / "etc/credstore/of-others").exists()
    assert units(system) == []
    assert list((system / "opt").iterdir()) == []


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("245", ["DynamicUser=no", "User=nanotox", "Environment=CREDENTIALS_DIRECTORY=/etc/credstore"]),
        ("249", ["LoadCredential=nanotox.key:/etc/credstore/nanotox.key"]),
        ("257", None),
    ],
)
def test_an_old_systemd_gets_the_keys_in_its_own_way(system, monkeypatch, version, expected):
    monkeypatch.setenv("SYSTEMD", version)
    (system / "etc/credstore").mkdir(parents=True)
    (system / "etc/credstore/nanotox.key").touch()
    _, calls = install(system, "install")
    dropin = system / "etc/systemd/system/nanotox.service.d/credentials.conf"
    assert dropin.exists() is (expected is not None)
    assert expected is None or dropin.read_text().splitlines()[1:] == expected
    assert ("chown nanotox /etc/credstore/nanotox.key" in calls) is (version == "245")


def test_the_platform_chooses_runtime_and_devices(system, monkeypatch):
    monkeypatch.setenv("BITS_64", "0")
    (system / "etc").mkdir()
    (system / "etc/nv_tegra_release").touch()
    (system / "usr/lib/python3/dist-packages/libcamera").mkdir(parents=True)
    _, calls = install(system, "install")
    assert "[tflite]" in calls
    assert "venv --system-site-packages" in calls
    assert "nvmap" in (system / "etc/systemd/system/nanotox.service.d/jetson.conf").read_text()


def test_a_collector_is_enabled_instead_of_a_station(system):
    _, calls = install(system, "install", "--collector")
    assert [line for line in calls.splitlines() if "enable" in line] == [
        "systemctl enable --quiet nanotox-collect.service"
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("upgrade",), "nothing to upgrade; run install"), (("install", "--speed"), "unknown option --speed")],
)
def test_what_cannot_be_done_is_said(system, arguments, expected):
    done, _ = install(system, *arguments)
    assert done.returncode == 1
    assert expected in done.stderr

"""What users type: the README's commands, the wheel, the pinned requirements."""

import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]


def readme_commands():
    text = (REPOSITORY / "README.md").read_text()
    return re.findall(r"^    (python3 .+)$", text, re.MULTILINE)


def test_continuous_integration_runs_the_readmes_own_test_command():
    train, test = readme_commands()[:2]
    assert "--config quickstart" in train
    assert test in (REPOSITORY / ".ci" / "run").read_text().splitlines()


README = (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.+?)```", README, re.DOTALL))
def test_the_readmes_python_runs(block):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_readmes_links_lead_somewhere():
    text = (REPOSITORY / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links and all((REPOSITORY / link).exists() for link in links)


def test_every_requirement_has_both_bounds():
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    named = [line for line in lines if line and not line.startswith("#")]
    loose = [line for line in named if ">=" not in line or "<" not in line]
    assert loose == ["importlib_resources>=6.4"]


@pytest.mark.slow
def test_the_wheel_carries_the_configs(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, "."],
        cwd=REPOSITORY,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in (REPOSITORY / "configs").glob("*.py"):
        assert f"sgmae_jax/configs/{file.name}" in names
    assert "sgmae_jax/py.typed" in names

"""A run that goes on with other devices, or with batches of another size."""

import shutil

import pytest

from sgmae_jax.main import main
from tests import tiny
from tests.tiny import arguments, losses


@pytest.mark.fault(19)
@pytest.mark.slow
def test_one_two_and_eight_devices_go_on_with_each_other_s_run(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code, output = tiny.run(whole, devices=1, eval__limit=1)
    assert code == 0, output
    shutil.copytree(whole, parts)
    expected = losses(whole)
    for devices, step in ((2, 4), (8, 6)):
        for folder in (parts / "checkpoints").iterdir():
            if int(folder.name) > step:
                shutil.rmtree(folder)
        code, output = tiny.run(parts, devices=devices, eval__limit=1)
        assert code == 0 and f"resuming at step {step}" in output
        assert f"{devices} x " in output
        found = losses(parts)
        assert found == pytest.approx(expected, rel=1e-5) and len(found) == 8


@pytest.mark.slow
@pytest.mark.fault(19)
def test_another_batch_size_goes_on_at_the_same_example_if_allowed(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(arguments(folder, steps=4, eval__limit=1)) == 0
    changed = {"steps": 6, "data__batch_size": 8, "eval__limit": 1}
    assert main(arguments(folder, **changed)) == 2
    error = capsys.readouterr().err
    assert "batch_size" in error and error.count("\n") == 1
    allowed = {"checkpoint__allow_data_change": True, **changed}
    assert main(arguments(folder, **allowed)) == 0
    assert "data.batch_size 16 -> 8" in capsys.readouterr().out
    assert len(losses(folder)) == 6

"""The soak, in small."""

import pytest

from tests.fault.soak import soak


@pytest.mark.slow
@pytest.mark.fault(23)
def test_a_minute_of_faults_changes_no_loss(tmp_path):
    found = soak(tmp_path / "soak", minutes=1, steps=400)
    assert found.equal and found.void == 2
    assert found.kills + found.signals > 0

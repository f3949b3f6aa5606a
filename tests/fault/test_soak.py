"""The soak, in small."""

import pytest

from tests.fault.soak import soak


@pytest.mark.slow
@pytest.mark.fault(23)
def test_a_minute_of_faults_changes_no_loss(tmp_path):
    found = soak(tmp_path / "soak", minutes=1)
    assert found.equal and 150 < found.steps <= found.alone
    assert found.void == (found.steps - 1) // 150
    assert found.kills + found.signals > 0

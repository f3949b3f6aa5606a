"""The faults F1 to F23, what passes, and the table at the end of `pytest -m fault`."""

from __future__ import annotations

import collections

PASS = {
    1: "kill -9: no wrong restore, losses bit-equal to an unbroken run",
    2: "SIGTERM: exit 0, the last step saved, the next run goes on at +1",
    3: "truncated file: the step before it is used, one line",
    4: "flipped byte: 100 % detected",
    5: "deleted or stray files, empty steps: passed over, the path is named",
    6: "a link in a checkpoint is never followed",
    7: "full disk: the run goes on, older steps stay, failures are counted",
    8: "no permission: exit 2 at the start, a failed save later",
    9: "other shape, type, name or schema: refused, the differences listed",
    10: "bad config: exit 2 in 3 s, one line with field, value and what is allowed",
    11: "odd images equal a reference; bad ones counted, named, bounded",
    12: "one NaN batch: one void step, the rest as if it had been left out by hand",
    13: "NaN for ever: exit 4 within the budget, the capture replays",
    14: "a spike of the gradient: clipped or skipped, recovered in 5 steps",
    15: "degenerate affinity: exact masks, counted, nothing but finite",
    16: "a dead process: the others exit in 30 s, the next start is bit-equal",
    17: "hosts that differ: exit 2 before step 1, the difference is shown",
    18: "a reader that fails, dies or hangs: an error in time, never a hang",
    19: "other devices or batch size: the same masks, refused unless allowed",
    20: "clock set back, two runs in a place: order by number, the second refused",
    21: "malicious files: nothing is executed, the error names the file",
    22: "slow disk: steps go on, the next save waits, a time-out is a failed save",
    23: "soak: the exact steps and losses of a clean run, memory flat",
}


def pytest_collection_modifyitems(items):
    """A report, of whatever worker, knows the faults that its test is about."""
    for item in items:
        for mark in item.iter_markers("fault"):
            item.user_properties.append(("fault", mark.args[0]))


def pytest_terminal_summary(terminalreporter, config):
    """One line a fault, where faults were asked for."""
    if "fault" not in config.option.markexpr:
        return
    counts: dict[int, collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            for name, number in getattr(report, "user_properties", ()):
                if name == "fault":
                    counts[number][outcome] += 1
    terminalreporter.section("faults")
    for number in sorted(counts):
        found = ", ".join(f"{count} {what}" for what, count in counts[number].items())
        terminalreporter.write_line(f"F{number:<3} {found:<24} {PASS[number]}")

import base64
import io
import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sgmae_jax.analysis.report import write_report

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "circle"}


class Page(HTMLParser):
    """Collects what a test asks about, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def png(level=0, size=(4, 3)):
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def run(tmp_path):
    """A run directory as training leaves it."""
    config = {
        "method.name": "mae",
        "model.preset": "vit_tiny",
        "data.source": "synthetic",
        "data.mean": [0.5, 0.5, 0.5],
        "mask.options": {},
        "optim.clip_norm": None,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    lines = []
    for step in range(10, 101, 10):
        row = {"step": step, "epoch": step / 50, "loss": 2 - step / 100, "lr": 1e-3}
        row |= {"images_per_second": 800 + step, "skipped": 0.0, "grad_norm": 1.5}
        lines.append(row)
        if step % 50 == 0:
            scores = {"eval/knn": 0.3 + step / 1000, "eval/probe": 0.5}
            lines.append({"step": step, **scores})
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(x) + "\n" for x in lines)
    )
    scores = {
        "raw pixels": {"knn": 0.31, "probe": 0.28},
        "untrained encoder": {"knn": 0.295, "probe": 0.4},
        "trained encoder": {"knn": 0.4, "probe": 0.5},
    }
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    (tmp_path / "pictures").mkdir()
    for step in (50, 100):
        path = tmp_path / "pictures" / f"reconstruction_{step:08d}.png"
        path.write_bytes(png(step))
    return tmp_path


def page(run):
    path = write_report(run)
    assert path == run / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_everything_is_there(run):
    found = page(run)
    assert "mae · vit_tiny · synthetic" in found.text
    for heading in ("Scores", "Curves", "Pictures", "Configuration"):
        assert heading in found.text
    assert "trained encoder 40 % 50 %" in found.text
    assert "untrained encoder 29.5 % 40 %" in found.text
    assert "steps 100 epochs 2 final loss 1 images/s, median 855" in found.text
    assert "Accuracy on held-out images kNN 40 % probe 50 %" in found.text
    for title in ("Loss", "Learning rate", "Images per second", "grad_norm"):
        assert title in found.text
    assert "data.mean [0.5, 0.5, 0.5]" in found.text
    assert "optim.clip_norm –" in found.text


def test_it_needs_nothing_from_outside_and_runs_no_script(run):
    found = page(run)
    text = (run / "report.html").read_text()
    assert not found.all("script") and not found.all("link")
    assert "http" not in text and "url(" not in text and "@import" not in text
    for image in found.all("img"):
        assert image["src"].startswith("data:image/png;base64,") and image["alt"]
    assert [m for m in found.all("meta") if m.get("name") == "viewport"]
    assert "prefers-color-scheme" in text


def test_pictures_newest_first_with_their_bytes_and_words(run):
    images = page(run).all("img")
    assert [i["alt"] for i in images] == [
        "reconstruction, step 100",
        "reconstruction, step 50",
    ]
    data = base64.b64decode(images[0]["src"].split(",")[1])
    assert data == png(100)


def test_many_pictures_are_thinned_evenly(run):
    for step in range(1, 100):
        (run / "pictures" / f"reconstruction_{step:08d}.png").write_bytes(png())
    alts = [image["alt"] for image in page(run).all("img")]
    assert len(alts) == 8
    assert alts[0].endswith("step 100") and alts[-1].endswith("step 1")


def test_a_damaged_picture_is_left_out(run):
    (run / "pictures" / "reconstruction_00000100.png").write_bytes(b"half")
    assert [i["alt"] for i in page(run).all("img")] == ["reconstruction, step 50"]


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ("config.json", "Configuration"),
        ("metrics.jsonl", "Curves"),
        ("scores.json", "Scores"),
        ("pictures", "Pictures"),
    ],
)
def test_what_is_missing_is_left_out(run, missing, gone):
    os.rename(run / missing, run / "elsewhere")
    found = page(run)
    assert gone not in found.text
    others = {"Configuration", "Curves", "Scores", "Pictures"} - {gone}
    assert all(heading in found.text for heading in others)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"{}"]
)
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "scores.json"])
def test_damaged_files_do_not_stop_the_report(run, name, content):
    (run / name).write_bytes(content)
    assert "Pictures" in page(run).text


def test_an_empty_directory_still_gives_a_page(tmp_path):
    assert "nothing to report yet" in page(tmp_path).text


def test_numbers_that_are_not_finite(run):
    lines = [
        '{"step": 1, "loss": 1.0, "lr": null}',
        '{"step": 2, "loss": NaN, "lr": Infinity}',
        '{"step": 3, "loss": "oops", "lr": null}',
        '{"step": NaN, "loss": 77.0}',
        '{"step": 4, "loss": 0.5, "big": 1' + "0" * 400 + "}",
        '{"step": 5, "loss": 0.25, "lo',
    ]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    (run / "scores.json").write_text('{"trained encoder": {"knn": NaN, "probe": null}}')
    found = page(run)
    assert "final loss 0.5" in found.text and "2 not finite" in found.text
    assert "Learning rate" not in found.text
    assert "trained encoder – –" in found.text


def test_lines_written_again_after_a_resume_count_once(run):
    lines = [
        {"step": s, "loss": v} for s, v in ((1, 9.0), (2, 8.0), (2, 3.0), (1, 4.0))
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = page(run)
    assert "final loss 3" in found.text
    assert "last: 4 at step 1 to 3 at step 2" in found.all("svg")[0]["aria-label"]


def test_skipped_steps_and_bad_images_are_told(run):
    lines = [
        {"step": 1, "loss": 1, "skipped": 2, "bad_images": 1, "mfu": 0.25},
        {"step": 2, "loss": 1, "skipped": 1, "bad_images": 4, "mfu": 0.35},
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    text = page(run).text
    assert "steps skipped 3" in text and "bad images 4" in text
    assert "of peak, median 30 %" in text


def test_text_cannot_become_markup(run):
    attack = "<script>alert('x')</script>\"&"
    (run / "config.json").write_text(
        json.dumps({"method.name": attack, attack: {"inner": attack}})
    )
    (run / "scores.json").write_text(json.dumps({attack: {attack: 0.5}}))
    (run / "metrics.jsonl").write_text(
        json.dumps({"step": 1, attack: 1.0, f"eval/{attack}": 0.5})
    )
    name = "<b onload=x>\"'_00000001.png"
    (run / "pictures" / name).write_bytes(png())
    found = page(run)
    assert not found.all("script") and not found.all("b onload")
    assert "alert('x')" in found.text
    assert any(i["alt"].startswith("<b onload=x>") for i in found.all("img"))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/home/alice/data/cifar10.zip", "…/cifar10.zip"),
        ("/home/alice/my data/cifar10.zip", "…/cifar10.zip"),
        ("/home/alice", "…"),
        ("~/alice/x", "…"),
        ("~alice/x.zip", "…/x.zip"),
        ("../../home/alice/x.tar", "…/x.tar"),
        ("C:\\Users\\alice\\x.zip", "…/x.zip"),
        ("file:///home/alice/x.zip", "…/x.zip"),
        (["/home/alice/a.zip", "/srv/alice/"], '["…/a.zip", "…"]'),
        ({"deep": {"er": "see /home/alice/notes.txt now"}}, "see …/notes.txt now"),
    ],
)
def test_no_directory_and_no_user_name_of_the_machine(run, value, kept):
    (run / "config.json").write_text(json.dumps({"data.path": value}))
    found = page(run)
    assert kept in found.text
    text = (run / "report.html").read_text()
    for word in ("alice", "/home", str(run), run.name):
        assert word not in text


@pytest.mark.parametrize(
    "value",
    ["img/s", "3/4", "tfds:cifar10", "train[:90%]", "pkg.module:function", "a / b"],
)
def test_what_is_no_path_stays(run, value):
    (run / "config.json").write_text(json.dumps({"x": value}))
    assert value in page(run).text


def test_nested_config_is_flattened(run):
    (run / "config.json").write_text(
        '{"model": {"width": 192, "depth": 12}, "seed": 3}'
    )
    text = page(run).text
    assert "model.width 192" in text and "seed 3" in text and "3 fields" in text


def test_written_again_in_place_with_nothing_left_over(run):
    before = {path.name for path in run.iterdir()}
    write_report(run)
    write_report(run)
    assert {path.name for path in run.iterdir()} == before | {"report.html"}

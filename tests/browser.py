"""A page as a real browser lays it out; the browser is driven by its command line."""

from __future__ import annotations

import html
import json
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Runs before the page does, and writes what it finds into the page when it is loaded.
_PROBE = """<script>
const said = [];
addEventListener("error", e => said.push(String(e.message || e.target.src)), true);
console.error = (...words) => said.push(words.join(" "));
addEventListener("load", () => {
  const folds = document.querySelectorAll("details");
  folds.forEach(fold => fold.open = true);
  const wide = document.documentElement.clientWidth;
  const inside = node => node.closest(".scroll, svg");
  const out = [...document.querySelectorAll("body *")].filter(
    node => !inside(node) && node.getBoundingClientRect().right > wide + 1);
  const images = [...document.images];
  const found = {
    said, wide,
    scroll: document.documentElement.scrollWidth,
    out: out.slice(0, 5).map(node => node.outerHTML.slice(0, 120)),
    images: images.length,
    broken: images.filter(image => !image.complete || !image.naturalWidth).length,
    unnamed: images.filter(image => !image.alt.trim()).length
      + [...document.querySelectorAll("svg")].filter(
        node => !node.getAttribute("aria-label")).length,
    outside: [...document.querySelectorAll("[src],[href]")].filter(
      node => !/^(data:|#)/.test(node.getAttribute("src")
        || node.getAttribute("href"))).length,
  };
  const note = document.createElement("pre");
  note.id = "found-by-the-test";
  note.textContent = JSON.stringify(found);
  document.body.append(note);
});
</script>"""


def browser() -> str:
    """A browser's command; skips where there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")


def laid_out(page: pathlib.Path, folder: pathlib.Path, width: int) -> dict[str, Any]:
    """What a browser `width` pixels wide finds in a page, all folds open."""
    text = page.read_text(encoding="utf-8")
    probed = folder / f"probed_{width}.html"
    # A frame has the width asked for; windows are never narrower than 500 pixels.
    probed.write_text(text.replace("<title>", f"{_PROBE}<title>", 1), "utf-8")
    frame = folder / f"frame_{width}.html"
    frame.write_text(
        f'<!doctype html><body style="margin:0"><iframe id=f src="{probed.name}" '
        f'style="border:0;width:{width}px;height:3000px"></iframe><script>'
        'addEventListener("load", () => { document.title = "-"; '
        'const f = document.getElementById("f"); '
        "document.body.dataset.found = f.contentDocument.getElementById("
        '"found-by-the-test").textContent; });</script></body>',
        "utf-8",
    )
    done = subprocess.run(
        [
            browser(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={max(width, 600)},3000",
            "--virtual-time-budget=5000",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))

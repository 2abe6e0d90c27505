"""Pages of the report as headless Chromium shows them."""

import json
import re
import subprocess
from pathlib import Path

_PROBE = """
<pre id="probe"></pre>
<script>
const said = {errors: [], figures: [], sorted: [], wide: document.documentElement.scrollWidth > innerWidth};
const luminance = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
  .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, channel) => sum + part * [0.2126, 0.7152, 0.0722][channel], 0);
const page = luminance(getComputedStyle(document.body).backgroundColor);
said.first = document.querySelector('figure svg, .pictures')?.getBoundingClientRect().top;
said.dark = page < 0.2;
said.contrasts = [...document.querySelectorAll("p, h1, h2, th, td, small, figcaption")]
  .map((part) => luminance(getComputedStyle(part).color))
  .map((ink) => (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05));
window.addEventListener("error", (event) => said.errors.push(event.message));
for (const drawing of document.querySelectorAll("figure svg")) {
  if (!drawing.checkVisibility()) continue;
  const box = drawing.getBoundingClientRect();
  said.figures.push([Math.round(box.width), Math.round(box.height), drawing.querySelectorAll("path, text").length]);
}
for (const table of document.querySelectorAll("table.sortable")) {
  if (!table.checkVisibility()) continue;
  const values = (head) => [...table.tBodies[0].rows].map((row) => row.cells[head.cellIndex].dataset.number)
    .map((number) => Number(number || "-1e99"));
  const head = [...table.tHead.rows[0].cells]
    .find((head) => head.cellIndex && head.classList.contains("number") && new Set(values(head)).size > 1);
  head.querySelector("button").click();
  const down = values(head);
  head.querySelector("button").click();
  said.sorted.push([down, values(head), head.getAttribute("aria-sort")]);
}
document.getElementById("probe").textContent = JSON.stringify(said);
</script>
"""


def check_page(browser: list[str], page: Path, *, narrow: bool, least_height: int = 100) -> tuple[int, int]:
    """Fail unless figures are seen, tables sort, text is legible and nothing is too wide; dark if narrow, else light.

    Returns:
        How many figures and sortable tables were in sight.
    """
    probe = page.with_name(f"probe-{page.name}")
    probe.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{_PROBE}</body>"), encoding="utf-8")
    look = [f"--window-size={390 if narrow else 1280},900", f"--blink-settings=preferredColorScheme={int(not narrow)}"]
    done = subprocess.run([*browser, *look, probe.as_uri()], capture_output=True, text=True, check=True, timeout=60)
    assert "CONSOLE" not in done.stderr
    said = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, flags=re.DOTALL)[1])  # type: ignore[index]
    assert said["errors"] == []
    assert said.get("first", 0) < 800  # the first figure begins on the first screen
    for wide, high, num_marks in said["figures"]:
        assert wide > 300
        assert high > least_height
        assert num_marks > 20
    for down, up, order in said["sorted"]:
        assert len(set(down)) > 1
        assert down == sorted(down, reverse=True)
        assert up == sorted(down)
        assert order == "ascending"
    assert said["dark"] == narrow
    assert min(said["contrasts"]) > 4.5  # WCAG AA, of text on the page
    assert not said["wide"]  # wide tables scroll in their own frames
    return len(said["figures"]), len(said["sorted"])

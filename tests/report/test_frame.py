from pathlib import Path

import pytest

from lasem.errors import StorageError
from lasem.metrics import PairedDifference, statistic
from lasem.report.frame import (
    Cell,
    Column,
    Frame,
    difference_cells,
    keep_together,
    mean_cell,
    number_cell,
    to_csv,
    write_text,
)
from lasem.report.numbers import DASH, percent

from .pages import printed

FRAME = Frame(
    columns=(
        Column(heading="#", console=False),
        Column(heading="Method", keys=("method", "num_seeds"), numeric=False),
        Column(heading="Peak %", keys=("peak", "deviation")),
    ),
    rows=(
        (Cell(text="1", number=1), Cell(text="a|b", second=2), mean_cell(statistic([0.5, 0.6]), percent, strong=True)),
        (Cell(text="2", number=2), Cell(text="[red]", below="1 of 2"), number_cell(float("nan"), percent)),
    ),
    footer=(Cell(text=""), Cell(text="Mean"), Cell(text="55.0")),
)


def test_a_frame_as_csv_and_markdown() -> None:
    number, deviation = FRAME.rows[0][2].number, FRAME.rows[0][2].second
    assert FRAME.csv() == f"method,num_seeds,peak,deviation\na|b,2,{number},{deviation}\n[red],1 of 2,,\n"
    assert FRAME.markdown() == ("| Method | Peak % |\n|---|---:|\n| a\\|b | 55.0 ± 7.1 |\n| \\[red\\] (1 of 2) | – |\n")


def test_a_frame_in_a_terminal() -> None:
    text = printed(FRAME.console("title", "caption"))
    assert all(shown in text for shown in ("title", "caption", "[red] (1 of 2)", "55.0 ± 7.1", "Mean"))
    assert "#" not in text


def test_differences_have_signs_and_the_reference_has_dashes() -> None:
    difference = PairedDifference(mean=0.008, p_value=0.0312, num_pairs=6, num_seeds=2, num_seeds_above=1)
    mean, p = difference_cells(difference)
    assert (mean.line, p.line) == ("+0.8 (1 of 2 seeds)", "0.031 (6 pairs)")
    assert [cell.text for cell in difference_cells(None)] == [DASH, DASH]


def test_a_number_and_its_unit_stay_in_one_line() -> None:
    assert keep_together("62.3 ± 0.4 % of 3 tasks") == "62.3\xa0±\xa00.4\xa0% of 3 tasks"


def test_in_csv_floats_keep_every_bit_and_no_text_is_a_formula() -> None:
    assert to_csv(["a", "b"], [[0.1 + 0.2, None], ["x,y", 1]]) == 'a,b\n0.30000000000000004,\n"x,y",1\n'
    assert to_csv(["a"], [["=1+1"], ["@x"], ["-2"], [-2.5], ["\x1b[2J"]]) == "a\n'=1+1\n'@x\n-2\n-2.5\n\\x1b[2J\n"


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_text(path, "old")
    assert write_text(path, "new\nwith \ud800 half a pair") == path
    assert path.read_bytes() == b"new\nwith ? half a pair"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        write_text(tmp_path / "file" / "page.html", "")

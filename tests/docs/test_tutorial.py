"""The tutorial: its forms are in step, no output of a run is kept in the notebook, and it runs in a new kernel."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parents[2] / "docs"
TIMEOUT = 1800  # seconds for a cell: a guard, on a machine that may be busy
FULL_TIMEOUT = 4 * 3600


@pytest.fixture
def notebook():
    return nbformat.read(DOCS / "tutorial.ipynb", as_version=4)


def test_the_notebook_and_its_text_are_in_step(notebook):
    text = jupytext.read(DOCS / "tutorial.py")
    # If they differ: jupytext --update --to ipynb docs/tutorial.py
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]
    assert notebook.metadata.jupytext.formats == text.metadata.jupytext.formats == "ipynb,py:percent"


def test_the_rendered_page_has_the_cells_of_the_notebook_and_its_pictures(notebook):
    page = (DOCS / "tutorial.md").read_text()
    # If a cell differs, the results may, too: jupyter nbconvert --to markdown --execute docs/tutorial.ipynb
    end = 0
    for cell in notebook.cells:
        assert cell.source in page[end:]
        end = page.index(cell.source, end) + len(cell.source)
    assert set(re.findall(r"tutorial_files/\S+\.png", page)) == {
        path.relative_to(DOCS).as_posix() for path in (DOCS / "tutorial_files").iterdir()
    }


def test_no_output_is_kept(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not [cell.source for cell in code if cell.outputs or cell.execution_count is not None]


def test_it_runs_in_a_new_kernel_and_nothing_is_written_to_stderr(notebook, tmp_path, monkeypatch, request):
    for name in ("TMPDIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    full = request.config.option.full
    if full:
        monkeypatch.setenv("LENET_KERAS_FULL", "1")
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=FULL_TIMEOUT if full else TIMEOUT,
        resources={"metadata": {"path": str(DOCS)}},
    )
    client.execute()  # raises the error of a cell
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    # The classes, the curves of four variants, the comparison, the curves of a long training, and the photo.
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    assert len(list(tmp_path.glob("lenet-keras-tutorial-*/runs/*/*/metrics.json"))) == 8

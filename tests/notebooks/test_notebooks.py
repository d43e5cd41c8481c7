"""If a test here fails, a notebook does not run, or what is rendered beside it is not its own."""

import os
import pathlib

import jupytext
import nbclient
import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"
NAMES = ("relative_entropy", "convergence", "curriculum", "text")


def test_no_notebook_is_forgotten() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCURR_SMALL", "1")
    monkeypatch.delenv("XLA_FLAGS")  # one device, as its reader has
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))  # the package is found, as where it is installed
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()


@pytest.mark.parametrize("name", NAMES)
def test_rendered_as_written(name: str) -> None:
    """The outputs kept in the .ipynb are of the text beside it: of its very cells, run in order, without an error."""
    text, rendered = jupytext.read(NOTEBOOKS / f"{name}.py"), jupytext.read(NOTEBOOKS / f"{name}.ipynb")
    assert [cell.source for cell in text.cells] == [cell.source for cell in rendered.cells], (
        f"where diffcurr is installed, render again: "
        f"jupytext --to ipynb notebooks/{name}.py; jupyter execute --inplace notebooks/{name}.ipynb"
    )
    assert "sys.path" not in "".join(cell.source for cell in text.cells)
    code = [cell for cell in rendered.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output.output_type in ("stream", "display_data", "execute_result") and output.get("name") != "stderr"
        assert os.sep + "home" not in str(output.get("text", "")) and "site-packages" not in str(output.get("text", ""))

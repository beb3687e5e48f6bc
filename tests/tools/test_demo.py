"""The demo, from image files to a classifier, as a newcomer runs it."""

from __future__ import annotations

import re

import pytest

from cortado.tools import cli, demo


@pytest.mark.slow
def test_demo_learns_and_shows(tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    try:
        assert cli.main(["demo", "--out", "here"]) == 0
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    last = re.fullmatch(r"demo: test accuracy = (0\.\d+|1\.0+), \d+ s", out.splitlines()[-1])
    assert last
    assert float(last[1]) >= 0.98
    assert "██" in out
    for picture in ("learning_curve.png", "net.png"):
        assert (tmp_path / "here" / picture).read_bytes().startswith(b"\x89PNG")


def test_the_demo_spares_folders_of_others(tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    assert cli.main(["demo", f"--out={tmp_path}"]) == 2
    assert "no demo made it" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def test_a_second_demo_replaces_the_first(tmp_path):
    folder = demo.prepare_folder(tmp_path / "demo")
    (folder / "old").touch()
    demo.prepare_folder(folder)
    assert not (folder / "old").exists()
    assert {path.name for path in folder.glob("*.prototxt")} == {
        "deploy.prototxt",
        "solver.prototxt",
        "train_val.prototxt",
    }

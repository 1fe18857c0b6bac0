"""README and docs: their commands run over the phantom or say why not; links and trainers' names are right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TRAINERS
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_semcl.commands.doctor import trainer_classes
from nnunet_semcl.commands.path import EXT_TRAINER

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]  # in this order their commands run
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
DATASET = "Dataset017_BTCV"  # the pages' example

# The trainers of the pages, over in seconds; nnU-Net finds them before the package's own.
SHORT_TRAINERS = """
import forked_pools
from nnunet_semcl.commands.doctor import trainer_classes
from nnunet_semcl.pretraining import phase

phase.HELD_OUT_BATCHES = 1
SHORT = {"num_epochs": 3, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1}
globals().update({name: type(name, (trainer,), SHORT) for name, trainer in trainer_classes().items()})
"""

# What a reader types, except for the length of a training, the device, and the number of processes.
SHELL = """
PS4='+ $SECONDS s: '
set -euxo pipefail
with_short_trainers() { nnUNet_extTrainer="$SHORT_TRAINERS:$nnUNet_extTrainer" command "$@"; }
nnUNetv2_train() { with_short_trainers nnUNetv2_train "$@" -device cpu; }
nnUNetv2_predict() { with_short_trainers nnUNetv2_predict "$@" -device cpu -npp 0 -nps 0; }
"""
KINDS_RUN = ("path", "doctor", "plan", "label-budget", "unlabelled", "export")


def blocks(page: Path) -> list[tuple[str | None, str]]:
    """Marker (None where there is none) and lines of each bash block."""
    found = re.findall(r"(?:^<!-- (.*) -->\n)?^```bash\n((?:.*\n)*?)^```", page.read_text(), re.MULTILINE)
    return [(marker or None, lines) for marker, lines in found]


def inline_code(page: Path) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


@pytest.fixture
def your_data(prepared, tmp_path: Path) -> dict[str, str]:
    """The environment of someone whose data set 17 is preprocessed: the phantom, under small plans."""
    raw, preprocessed = (tmp_path / kind / DATASET for kind in ("raw", "preprocessed"))
    shutil.copytree(prepared.raw, raw)
    shutil.copytree(prepared.preprocessed, preprocessed)
    tiny = json.loads((preprocessed / "nnUNetTinyPlans.json").read_text())
    for plans in preprocessed.glob("nnUNet*Plans.json"):
        plans.unlink()
    own = {"plans_name": "nnUNetPlans", "dataset_name": DATASET, "configurations": tiny["configurations"]}
    plans = {key: value for key, value in tiny.items() if key != "nnunet_semcl_plan"} | own
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))

    (tmp_path / "results").mkdir()
    trainers = tmp_path / "short_trainers"
    trainers.mkdir()
    (trainers / "short_trainers.py").write_text(SHORT_TRAINERS)
    shutil.copy(TRAINERS / "forked_pools.py", trainers)
    for folder in ("imagesTs", "FOLDER"):
        shutil.copytree(raw / "imagesTs", tmp_path / "here" / folder)
    environment = {key: value for key, value in os.environ.items() if key != EXT_TRAINER}
    return environment | {
        **{f"nnUNet_{kind}": str(tmp_path / kind) for kind in ("raw", "preprocessed", "results")},
        "nnUNet_n_proc_DA": "0",
        "nnUNet_def_n_proc": "1",
        "SHORT_TRAINERS": str(trainers),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }


def test_the_commands_run_one_after_another(your_data: dict[str, str], tmp_path: Path):
    lines = "\n".join(lines for page in PAGES for marker, lines in blocks(page) if marker == "run")
    for kind in KINDS_RUN:
        assert f"nnunet-semcl {kind}" in lines, f"no block runs {kind}"
    here = tmp_path / "here"
    output = tmp_path / "output.txt"
    with output.open("w") as stream:
        result = subprocess.run(
            ["bash", "-c", SHELL + lines], env=your_data, cwd=here, stdout=stream, stderr=stream, timeout=600
        )
    assert result.returncode == 0, output.read_text()[-4000:]
    case = next((here / "imagesTs").iterdir()).name.replace("_0000", "")
    assert (here / "predictions" / case).is_file()
    assert (here / "MODEL_FOLDER" / "fold_0" / "checkpoint_final.pth").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_runs_or_says_why_not(page: Path):
    for marker, lines in blocks(page):
        assert marker == "run" or re.fullmatch(r"not run: \S.+", marker or ""), f"above the block: {lines}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_the_text_stand_in_a_block_too(page: Path):
    in_blocks = "\n".join(lines for other in PAGES for _, lines in blocks(other))
    for code in inline_code(page):
        if re.match(r"(nnunet-semcl|nnUNetv2_\w+) .* ?-", code) and "..." not in code:
            assert code in in_blocks, code


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path):
    for target, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)\s]+))?\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            file = (page.parent / target) if target else page
            assert file.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
                assert anchor in slugs, f"{target}#{anchor}"


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.stem)
def test_trainers_exist(page: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(EXT_TRAINER, raising=False)
    written_here = {name for other in PAGES for name in re.findall(r"^class (\w+)", other.read_text(), re.MULTILINE)}
    named = {name for code in inline_code(page) for name in re.findall(r"\b\w*Trainer\w*\b", code)}
    for name in sorted(named - {EXT_TRAINER} - written_here - trainer_classes().keys()):
        recursive_find_trainer_class_by_name(name)  # nnU-Net's own


def test_all_trainers_are_on_a_page():
    text = "".join(page.read_text() for page in PAGES)
    missing = [name for name in trainer_classes() if not name.endswith("Demo") and f"`{name}`" not in text]
    assert not missing


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 130

"""Writes docs/settings.md from the settings' dataclasses: python docs/settings_page.py."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.methods import settings_by_section
from nnunet_semcl.pretraining.interruptible_trainer import InterruptibleTrainer
from nnunet_semcl.pretraining.settings import MethodSettings
from nnunet_semcl.pretraining.trainer import PretrainingTrainer

PAGE = Path(__file__).with_name("settings.md")
EXAMPLE = {
    "batch_size": 12,
    "patch_size": [256, 256],
    "spacing": [0.8, 0.8],
    "architecture": {
        "network_class_name": "PlainConvUNet",
        "arch_kwargs": {
            "strides": [[1, 1], *[[2, 2]] * 6],
            "features_per_stage": [32, 64, 128, 256, 512, 512, 512],
        },
        "_kw_requires_import": [],
    },
}
INTRODUCTION = """# Settings

<!-- Written by docs/settings_page.py: change the dataclasses, then run it. -->

Settings are derived from nnU-Net's plan and logged at the start with the reason for each. A section of a configuration
in the plans overrides single ones, for example `"semcl": {"temperature": 0.2}`; a preset writes such a section for you
(see [your-data.md](your-data.md)). An unknown key or an impossible value is an error before training starts.

Values marked *from the plan* differ between data sets. The reason given here is that of a 2D plan with 12 patches of
256 x 256 voxels and 32 features in the first stage.
"""
LENGTHS = """## Lengths and switches

These are class attributes of the trainers. A variant is a class of two lines in a file of your own, in a folder that
`nnUNet_extTrainer` names:

```python
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer


class SemCLTrainer_short(SemCLTrainer):
    num_epochs = 200  # in all
```

nnU-Net's own, such as `num_epochs` or `initial_lr`, work in the same way.
"""


def page() -> str:
    settings_by_section()  # imports every method
    methods = sorted(_methods(PretrainingTrainer), key=lambda trainer: trainer.__name__)
    rows = [
        f"| `{name}` | `{getattr(owner, name)}` | {owner.__name__} | {meaning} |"
        for owner in (*methods, PretrainingTrainer, InterruptibleTrainer)
        for name, meaning in attributes(owner).items()
        if isinstance(getattr(owner, name, ...), (int, type(None)))
    ]
    table = ["| attribute | default | of | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([INTRODUCTION, *map(section, methods), LENGTHS, *table, ""])


def _methods(trainer: type[PretrainingTrainer]) -> list[type[PretrainingTrainer]]:
    """The trainers below this one that bring settings of their own."""
    below = [method for one in trainer.__subclasses__() for method in _methods(one)]
    return [trainer, *below] if "Settings" in vars(trainer) else below


def section(trainer: type[PretrainingTrainer]) -> str:
    settings = trainer.Settings
    derived = settings.derived(ConfigurationManager(EXAMPLE))
    meanings = attributes(MethodSettings) | attributes(settings)
    lines = [
        f'## "{settings.section}": {trainer.__name__}',
        "",
        "| setting | default | valid | meaning | why this default |",
        "|---|---|---|---|---|",
    ]
    for field in fields(settings):
        if field.name in derived:
            _, reason, rule = derived[field.name]
            default, rule = "*from the plan*", rule or field.metadata["rule"]
        elif field.name != "reasons":
            default, rule, reason = f"`{field.default}`", field.metadata["rule"], field.metadata["reason"]
        else:
            continue
        lines.append(f"| `{field.name}` | {default} | {rule.expected} | {meanings[field.name]} | {reason} |")
    return "\n".join([*lines, ""])


def attributes(owner: type) -> dict[str, str]:
    """Name -> meaning, from the Attributes section of a class's docstring; names on one line share their meaning."""
    _, _, text = inspect.getdoc(owner).partition("Attributes:\n")
    text = text.partition("\n\n")[0]
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {6,}.*)*)", text, flags=re.MULTILINE)
    return {name: " ".join(meaning.split()) for names, meaning in entries for name in names.split(", ")}


if __name__ == "__main__":
    PAGE.write_text(page())

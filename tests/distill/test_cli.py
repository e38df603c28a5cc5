"""``python -m slmlab.distill``, alone and on two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Phi3Config

import slmlab
from slmlab.distill import Distiller, OnPolicy
from slmlab.distill.cli import Config, build_method, build_student, load_model, main, read_rows
from slmlab.models import Decoder, save_decoder
from tests.distill.pairs import decoder, rows, sizes, weights

ROOT = Path(__file__).parents[2]


def write(path, **values):
    path.write_text(json.dumps(values))
    return path


def test_two_processes_equal_one_at_the_same_global_batch(tmp_path):
    """The two take over a checkpoint that one process wrote, their halves of a batch hold unequal
    numbers of counted positions, and some steps are on the student's own samples."""
    save_decoder(decoder(0, tied=False), tmp_path / "teacher", torch.float32)
    save_decoder(decoder(1, layers=1, width=16, tied=False), tmp_path / "student", torch.float32)
    ids = rows()
    mask = torch.rand(24, 16, generator=torch.Generator().manual_seed(0)) < torch.rand(24, 1)
    mask[:, 5] = True
    save_file({"ids": ids, "mask": mask}, tmp_path / "rows.safetensors")
    settings: dict[str, Any] = dict(
        steps=8, batch_size=4, learning_rate=0.01, hard_weight=0.3, warmup_steps=2
    )
    config = write(
        tmp_path / "config.json",
        teacher="teacher",
        student="student",
        rows="rows.safetensors",
        out="out",
        method="on_policy",
        options=dict(lambda_share=0.5, prompt_tokens=4),
        settings=settings,
    )

    def alone():
        student = load_model(str(tmp_path / "student")).requires_grad_()
        teacher = load_model(str(tmp_path / "teacher"))
        method = OnPolicy(0.5, prompt_tokens=4)
        path = tmp_path / "out-checkpoint.safetensors"
        return Distiller(
            student, teacher, ids, mask, method=method, checkpoint=path, progress=False, **settings
        )

    early = alone()
    early.train(until=1)
    started = weights(early.student)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    options = ["--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    options += ["--dynamo_backend=no", "--main_process_port=0"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    done = subprocess.run(
        [*launcher, *options, "-m", "slmlab.distill", str(config)],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    (tmp_path / "out-checkpoint.safetensors").unlink()
    expected = alone()
    history = expected.train()
    together = Decoder.from_pretrained(tmp_path / "out")
    assert facts["processes"] == 2 and facts["steps"] == 8
    assert facts["tokens"] == history.tokens
    assert facts["loss"] == pytest.approx(history.losses[-1], abs=1e-4)
    difference = (weights(together) - weights(expected.student)).abs().max()
    assert difference <= 1e-4
    assert (weights(expected.student) - started).abs().max() > 100 * difference


def test_a_run_from_text_writes_a_model_that_loads(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("def main():\n    return 0\n" * 40)
    config = Path("run.toml")
    config.write_text(
        'teacher = "tiny-draft"\nstudent_layers = 1\ntext = "text.txt"\nout = "small"\n'
        "sequence_length = 32\n[settings]\nsteps = 2\nbatch_size = 2\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    assert main([str(config)]) == 0
    assert signal.getsignal(signal.SIGTERM) == before
    facts = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert facts["steps"] == 2 and facts["tokens"] == 2 * 2 * 32 and facts["processes"] == 1
    lm = slmlab.load("small")
    assert lm.model.config.num_hidden_layers == 1 and lm.generate("def", max_new_tokens=2)
    # A finished run changes nothing; one with other settings is refused.
    assert main([str(config)]) == 0
    config.write_text(config.read_text() + "seed = 4\n")
    assert main([str(config)]) == 1
    assert "seed" in capsys.readouterr().err


def test_other_layouts_run_as_transformers_models(tmp_path):
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(Phi3Config(**sizes()), dtype=torch.float32)
    made.save_pretrained(tmp_path / "phi")
    teacher = load_model(str(tmp_path / "phi"))
    config = Config(teacher="phi", out="out", student_layers=1, rows="r", importance="evenly")
    student = build_student(config, teacher, rows())
    assert type(student).__name__ == "Phi3ForCausalLM" and len(student.model.layers) == 1
    history = Distiller(student, teacher, rows(), steps=2, progress=False).train()
    assert history.step == 2


def test_rows_from_text_cover_it_in_order(tmp_path):
    lm = slmlab.load("tiny-draft")
    text = "import os\n" * 30
    (tmp_path / "t.txt").write_text(text)
    config = Config(
        teacher="t", out="o", student="s", text=str(tmp_path / "t.txt"), sequence_length=9
    )
    ids, mask = read_rows(config, lm.tokenizer)
    whole = lm.tokenizer.encode(text)
    assert mask is None and ids.shape[1] == 10
    assert ids.flatten().tolist() == whole[: ids.numel()] and len(whole) - ids.numel() < 10


REFUSED = [
    (dict(), "'out' is missing"),
    (dict(teacher="t", out="o", students="s"), "unknown field 'students'"),
    (dict(teacher="t", out="o", text="t"), "either student or student_layers"),
    (dict(teacher="t", out="o", student="s", text="t", rows="r"), "either text or rows"),
    (
        dict(teacher="t", out="o", student="s", text="t", importance="size"),
        "evenly, block_influence",
    ),
    (dict(teacher="no-such", out="o", student="s", text="t"), "no model 'no-such'"),
    (
        dict(teacher="tiny-draft", out="o", student_layers=1, text="missing.txt"),
        "missing.txt cannot be read",
    ),
    (
        dict(teacher="tiny-draft", out="o", student_layers=1, rows="missing"),
        "missing cannot be read",
    ),
]


@pytest.mark.parametrize(("values", "says"), REFUSED)
def test_bad_config_is_named(values, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(write(tmp_path / "c.json", **values))]) == 1
    assert says in capsys.readouterr().err


def test_bad_calls_and_options_are_named(tmp_path, capsys):
    assert main([]) == 2 and main(["--help"]) == 0
    assert main([str(tmp_path / "c.yaml")]) == 1
    broken = tmp_path / "c.toml"
    broken.write_text("teacher = ")
    assert main([str(broken)]) == 1
    assert "cannot be read" in capsys.readouterr().err
    config = Config(teacher="t", out="o", student="s", text="t", options={"beam": 4})
    with pytest.raises(ValueError, match=r"options of method 'logits'.*beam"):
        build_method(config)

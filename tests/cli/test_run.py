"""`mpk run` from a checkpoint folder to tokens, on the simulator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mpk_ir.cli.main import main
from mpk_ir.cli.run_command import choose_target
from mpk_ir.cli.streaming import TextStream
from mpk_ir.core.errors import DeviceError
from mpk_ir.core.requests import assign_rows
from mpk_ir.core.target import H200, SIM
from mpk_ir.frontend import ByteTokenizer, StepOptions, build_step, load_config, open_checkpoint
from mpk_ir.interpreter import initial_state, run_step
from mpk_ir.runtime import driver
from mpk_ir.runtime.driver import Device
from mpk_ir.runtime.simulator import Simulator


def reference_tokens(folder: Path, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    """What the tensor graph's interpreter chooses, before any pass has touched the graph."""
    config = load_config(folder)
    length = max(map(len, prompts)) + new_tokens
    module = build_step(config, StepOptions(len(prompts), 8, length, stop_tokens=config.eos_tokens))
    state = initial_state(module)
    state["page_table"][:] = np.arange(state["page_table"].size).reshape(state["page_table"].shape)
    for request, prompt in enumerate(prompts):
        state["history"][request, : len(prompt)] = prompt
        state["requests"][request] = (0, 0, 0, len(prompt), len(prompt), len(prompt) + new_tokens)
    assign_rows(*(state[name] for name in ("history", "requests", "rows", "row_count")))
    checkpoint = open_checkpoint(folder)
    weights = {name: checkpoint.array(name) for name in checkpoint.entries}
    while state["row_count"][0]:
        run_step(module, weights, state)
    ends = state["requests"][:, 4]
    return [state["history"][r, len(p) : ends[r]].tolist() for r, p in enumerate(prompts)]


def run_json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["run", "--target", "sim", "--json", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.endswith("\n")
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.mark.parametrize("seed", ["0", "1"])
def test_tokens_are_those_of_the_reference(checkpoint: Path, capsys: pytest.CaptureFixture[str], seed: str) -> None:
    prompts = [list(b"a prompt of two chunks"), [1, 2, 3], [250]]
    given = [word for prompt in prompts for word in ("--tokens", ",".join(map(str, prompt)))]
    answer = run_json(["--model", str(checkpoint), *given, "--max-new-tokens", "9", "--seed", seed], capsys)
    assert answer["tokens"] == reference_tokens(checkpoint, prompts, 9)
    assert answer["target"] == "sim"


def test_json_tells_text_and_timings(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(["--model", str(checkpoint), "--prompt", "Hi", "--max-new-tokens", "4", "--batch", "2"], capsys)
    tokens, text, timings = answer["tokens"], answer["text"], answer["timings"]
    assert isinstance(tokens, list)
    assert isinstance(timings, dict)
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) == 4
    assert text == [ByteTokenizer().decode(tokens[0])] * 2
    assert set(timings) == {"plan_seconds", "load_seconds", "generate_seconds", "steps", "tokens_per_second"}
    assert timings["steps"] == 4


def test_one_launch_gives_the_same_text_at_its_end(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launches: list[int] = []
    run = Simulator.run
    monkeypatch.setattr(Simulator, "run", lambda self, steps: (launches.append(steps), run(self, steps))[1])
    arguments = ["--model", str(checkpoint), "--prompt", "p" * 70, "--max-new-tokens", "4"]
    texts, counts = [], []
    for more in ([], ["--one-launch"]):
        launches.clear()
        assert main(["run", "--target", "sim", *arguments, *more]) == 0
        texts.append(capsys.readouterr().out)
        counts.append(len(launches))
    assert texts[0] == texts[1]
    assert counts[0] > 1
    assert counts[1] == 1


def test_text_goes_to_stdout_and_the_account_to_stderr(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(checkpoint), "--prompt", "Hi", "--max-new-tokens", "4"]
    tokens = run_json(arguments, capsys)["tokens"]
    assert main(["run", "--target", "sim", *arguments]) == 0
    out, err = capsys.readouterr()
    assert isinstance(tokens, list)
    assert out == ByteTokenizer().decode(tokens[0]) + "\n"
    assert "sim: simulated on the CPU" in err
    assert "4 tokens in" in err
    assert "tokens/s" in err
    assert "4 steps of" in err


def test_several_requests_are_told_apart(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--target", "sim", "--model", str(checkpoint), "--tokens", "1", "--batch", "2"]) == 0
    lines = capsys.readouterr().out.split("\n[1] ")
    assert lines[0].removeprefix("[0] ") == lines[1].removesuffix("\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "1,288"], "token 288 is not in the vocabulary of 288"),
        (["--prompt", ""], "a prompt has no tokens"),
        (["--tokens", "1", "--max-new-tokens", "128"], "max_length: found 129, expected at most 128"),
        (["--tokens", "1", "--tokens", "2", "--batch", "1"], "--batch 1 for 2 prompts"),
        (["--tokens", "1", "--rows", "1", "--batch", "2", "--target", "h10"], "did you mean 'h100'?"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    checkpoint: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--target", "sim", "--model", str(checkpoint), *arguments]) == 2
    assert message in capsys.readouterr().err


def pretend(monkeypatch: pytest.MonkeyPatch, device: Device | None) -> None:
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: device)


def test_auto_takes_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Device(0, "NVIDIA H200", 132, (9, 0), 1))
    assert choose_target("auto").target is H200
    assert choose_target("sim").target is SIM
    with pytest.raises(DeviceError, match="target 'h100': found NVIDIA H200"):
        choose_target("h100")


@pytest.mark.parametrize("device", [None, Device(0, "NVIDIA GeForce", 128, (8, 9), 1)])
def test_auto_simulates_elsewhere_and_says_why(monkeypatch: pytest.MonkeyPatch, device: Device | None) -> None:
    pretend(monkeypatch, device)
    choice = choose_target("auto")
    assert choice.target is SIM
    assert ("GeForce is no target" if device else "no GPU found") in choice.reason
    with pytest.raises(DeviceError, match="target 'h200'"):
        choose_target("h200")


def test_a_character_of_several_tokens_appears_whole() -> None:
    stream = TextStream(ByteTokenizer())
    pieces = [stream.add(token) for token in "aé€".encode() + b"\xff"]
    assert pieces == ["a", "", "é", "", "", "€", ""]
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


def test_without_a_tokenizer_ids_are_shown() -> None:
    stream = TextStream(None)
    assert "".join(stream.add(token) for token in (5, 17)).split() == ["5", "17"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nowhere"
    assert main(["run", "--model", str(missing), "--prompt", "x", "--target", "sim"]) == 1
    assert f"{missing}: no such checkpoint" in capsys.readouterr().err

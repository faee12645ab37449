"""The examples for diffusers run as their docstrings say, on tiny random pipelines, and agree with the plain run."""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # imported with all pipelines

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ["class_conditional", "controlnet", "hand_written_loop", "image_to_image", "text_to_image", "video"]
TOL = 1e-3
STEPS = 10
COMPARED = re.compile(
    r"(\d+) rounds for (\d+) calls; .*?([\d.]+) s, (?:plainly [\d.]+ s, )?([\d.]+) times faster; error ([\d.e+-]+)"
)


@pytest.fixture
def example(monkeypatch):
    """Loads an example by its path, as running it would."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def load(name):
        found = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def compared(example, capsys):
    """Runs an example, checks what it says of the plain run, and returns all of that: (rounds, calls, error) a way."""

    def run(name, *arguments):
        example(name).main([*arguments, "--device", "cpu", "--tol", str(TOL), "--steps", str(STEPS)])
        lines = [found for found in map(COMPARED.search, capsys.readouterr().out.splitlines()) if found]
        ways = [(int(found[1]), int(found[2]), float(found[5])) for found in lines]
        assert ways
        for rounds, calls, error in ways:
            assert 1 <= rounds <= calls
            assert rounds < calls or "--window" not in arguments  # the planner may find it best to wait for each call
            assert error <= 10 * TOL
        return ways

    return run


def check_picture(path, width, height):
    with Image.open(path) as picture:
        assert picture.size == (width, height)
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.std() > 5  # not of one colour
    assert 20 < pixels.mean() < 235
    return pixels


@pytest.mark.parametrize("kind", ["sd", "sdxl", "flux"])
def test_text_to_image_draws_a_picture(kind, compared, tmp_path):
    out = tmp_path / "new" / "picture.png"
    [(_, calls, _)] = compared("text_to_image", "--tiny", kind, "--window", "16", "--out", str(out))
    assert calls == STEPS
    check_picture(out, 64, 64)


def test_text_to_image_plans_its_window(compared, tmp_path):
    out = tmp_path / "picture.png"
    compared("text_to_image", "--tiny", "sd", "--max-rows", "3", "--out", str(out))
    check_picture(out, 64, 64)


def test_text_to_image_takes_a_folder_of_weights(example, compared, tmp_path):
    example("tiny_pipelines").text_to_image("sd").save_pretrained(tmp_path / "weights")
    ways, pictures = [], []
    for number, arguments in enumerate((["--model", str(tmp_path / "weights"), "--compare"], ["--tiny", "sd"])):
        out = tmp_path / f"{number}.png"
        ways += compared("text_to_image", *arguments, "--window", "16", "--out", str(out))
        pictures.append(check_picture(out, 64, 64))
    assert len(ways) == 2
    assert np.array_equal(*pictures)


@pytest.mark.slow
def test_the_prompt_and_the_seed_change_the_picture(compared, tmp_path):
    pictures = []
    for number, arguments in enumerate(([], ["--prompt", "a whale"], ["--seed", "1"])):
        out = tmp_path / f"{number}.png"
        compared("text_to_image", "--tiny", "sd", "--window", "16", "--out", str(out), *arguments)
        pictures.append(check_picture(out, 64, 64).astype(float))
    assert all(np.abs(pictures[0] - other).mean() > 0.1 for other in pictures[1:])


def test_class_conditional_draws_one_picture_for_each_label(compared, tmp_path):
    out = tmp_path / "pictures.png"
    [(_, calls, _)] = compared(
        "class_conditional", "--tiny", "--labels", "1", "2", "3", "--window", "16", "--out", str(out)
    )
    assert calls == STEPS
    check_picture(out, 3 * 64, 64)


@pytest.mark.parametrize("kind", ["sd", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_image_to_image_runs_the_last_part_of_the_schedule(kind, compared, tmp_path):
    out = tmp_path / "picture.png"
    [(_, calls, _)] = compared(
        "image_to_image", "--tiny", kind, "--strength", "0.5", "--window", "16", "--out", str(out)
    )
    assert calls == STEPS // 2
    check_picture(out, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image_to_image", "controlnet"])
def test_another_picture_from_a_file_gives_another_picture(name, compared, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "given.png")
    tiny = ["--tiny", "sd"] if name == "image_to_image" else ["--tiny", "--edges"]
    pictures = []
    for number, arguments in enumerate(([], ["--image", str(tmp_path / "given.png")])):
        out = tmp_path / f"{number}.png"
        compared(name, *tiny, *arguments, "--window", "16", "--out", str(out))
        pictures.append(check_picture(out, 64, 64).astype(float))
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.1


def test_controlnet_replays_two_networks_in_turn(compared, tmp_path):
    out = tmp_path / "picture.png"
    [(_, calls, _)] = compared("controlnet", "--tiny", "--window", "16", "--out", str(out))
    assert calls == 2 * STEPS
    check_picture(out, 64, 64)


def test_video_writes_frames_and_a_contact_sheet(compared, tmp_path):
    out = tmp_path / "video.gif"
    [(_, calls, _)] = compared("video", "--tiny", "--window", "16", "--out", str(out))
    assert calls == 2 * STEPS  # with the prompt and without it
    with Image.open(out) as video:
        assert video.n_frames == 9
    check_picture(out, 48, 32)
    check_picture(out.with_suffix(".png"), 8 * 48, 32)


def test_a_hand_written_loop_is_drawn_three_ways(compared, tmp_path):
    out = tmp_path / "pictures.png"
    replayed, table = compared("hand_written_loop", "--tiny", "--rows", "2", "--window", "8", "--out", str(out))
    assert replayed[1] == table[1] == STEPS
    plain, *others = np.split(check_picture(out, 2 * 16, 3 * 16).astype(int), 3)
    assert all(np.abs(plain - other).max() <= 2 for other in others)


@pytest.mark.parametrize("name", ["image_to_image", "controlnet"])
def test_without_a_picture_an_example_says_what_to_give(name, example, capsys):
    with pytest.raises(SystemExit):
        example(name).main([])
    assert "give --image FILE, or --tiny" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_in_the_docstring_are_understood(name, example):
    module = example(name)
    commands = re.findall(r"python examples/(\w+)\.py(.*)", module.__doc__.replace("\\\n", ""))
    assert len(commands) >= 2
    for script, arguments in commands:
        assert script == name
        chosen = module.parse(shlex.split(arguments))
        assert chosen.out.suffix in (".png", ".gif")
    assert sum("--tiny" in arguments for _, arguments in commands) == 1


def test_the_list_of_examples_is_complete():
    listed = re.findall(r"^- \[(\w+\.py)\]\(\1\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))

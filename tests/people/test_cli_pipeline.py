"""``paradrift sample --model`` with tiny pipelines of random weights, loaded from folders and run for real."""

import functools
import importlib.util
import json
import re
import shutil
from pathlib import Path

import diffusers as d
import numpy as np
import pytest
import torch
from PIL import Image

from paradrift.cli import main

SIZE = 16  # pixels; the autoencoder halves them
WORDS = ("a", "cat", "dog", "red", "blue")


def _vae():
    return d.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=SIZE,
        scaling_factor=1.0,
    )


def _text(folder: Path):
    """A tokenizer of some words, and an untrained encoder of what it says."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = sorted({letter for word in WORDS for letter in word})
    entries = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({entry: number for number, entry in enumerate(entries)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = CLIPTextConfig(
        vocab_size=len(entries),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=len(entries) - 2,
        eos_token_id=len(entries) - 1,
        pad_token_id=len(entries) - 1,
    )
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=12)
    return {"tokenizer": tokenizer, "text_encoder": CLIPTextModel(config)}


UNET = {"block_out_channels": (8, 16), "norm_num_groups": 4, "cross_attention_dim": 16, "attention_head_dim": 4}


@pytest.fixture(scope="module")
def words_to_picture(tmp_path_factory) -> Path:
    """Stable Diffusion, with a text encoder and a tokenizer of its own."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("stable")
    pipe = d.StableDiffusionPipeline(
        vae=_vae(),
        unet=d.UNet2DConditionModel(
            sample_size=SIZE // 2,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            **UNET,
        ),
        scheduler=d.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **_text(folder),
    )
    pipe.save_pretrained(folder / "pipe")
    return folder / "pipe"


@pytest.fixture(scope="module")
def words_to_frames(tmp_path_factory) -> Path:
    """A video of 16 frames."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("video")
    unet = d.UNet3DConditionModel(
        sample_size=SIZE // 2,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        **UNET,
    )
    scheduler = d.DDIMScheduler(clip_sample=False, steps_offset=1)
    d.TextToVideoSDPipeline(vae=_vae(), unet=unet, scheduler=scheduler, **_text(folder)).save_pretrained(
        folder / "pipe"
    )
    return folder / "pipe"


@pytest.fixture(scope="module")
def noise_to_picture(tmp_path_factory) -> Path:
    """DDPM on pixels: no prompt, no classes."""
    torch.manual_seed(0)
    unet = d.UNet2DModel(
        sample_size=SIZE,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    folder = tmp_path_factory.mktemp("ddpm")
    d.DDPMPipeline(unet, d.DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def class_to_picture(tmp_path_factory) -> Path:
    """A diffusion transformer that draws classes."""
    torch.manual_seed(0)
    transformer = d.DiTTransformer2DModel(
        sample_size=SIZE // 2,
        num_layers=1,
        patch_size=4,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    folder = tmp_path_factory.mktemp("dit")
    d.DiTPipeline(transformer, _vae(), d.DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder


def run(*words: object) -> int:
    return main(["sample", *map(str, words)])


def sentence(capsys) -> str:
    """What a refusal says; loaders may have printed something of their own before it."""
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("paradrift: ")]
    assert captured.err.rstrip().endswith(lines[-1])
    assert len(lines) == 1
    return lines[0].removeprefix("paradrift: ")


def levels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.float64)


def assert_drawn(path: Path, size: tuple[int, int] = (SIZE, SIZE)) -> None:
    """A picture of that size with something on it."""
    found = levels(path)
    assert found.shape == (*size, 3)
    assert found.std() > 3


def test_a_prompt_is_drawn_plainly_and_in_parallel(words_to_picture, tmp_path, capsys):
    words = ("--model", words_to_picture, "--prompt", "a red cat", "--negative-prompt", "dog", "-n", 2, "--seed", 3)
    how = ("--steps", 12, "--guidance", 4, "--tol", 1e-3, "--window", 8)
    assert run(*words, *how, "--out", tmp_path) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Choice: window 8 as asked. Pictures: " in text
    assert re.search(
        r"sequential [\d.]+ 12 12 12 parallel [\d.]+ \d+ \d+ 12 \d\.\de-\d\d \d\.\de-\d\d 1?\d rounds", text
    )
    for word in (
        "sequential",
        "parallel",
        "seconds",
        "rounds",
        "evaluations",
        "calls",
        "estimated",
        "measured",
        "12 calls",
    ):
        assert word in text
    assert {path.name for path in tmp_path.iterdir()} == {
        "samples.png",
        *(f"{name}-{number}.png" for name in ("sequential", "parallel") for number in (1, 2)),
    }
    for number in (1, 2):
        assert_drawn(tmp_path / f"parallel-{number}.png")
        gap = levels(tmp_path / f"parallel-{number}.png") - levels(tmp_path / f"sequential-{number}.png")
        assert np.abs(gap).max() <= 1  # of 255 levels
    assert np.abs(levels(tmp_path / "parallel-1.png") - levels(tmp_path / "parallel-2.png")).max() > 3
    assert levels(tmp_path / "samples.png").std() > 3


def test_the_pictures_are_those_of_the_pipeline_called_from_python(words_to_picture, tmp_path):
    words = ("--model", words_to_picture, "--prompt", "a dog", "--steps", 6, "--tol", 1e-4, "--seed", 5)
    assert run(*words, "--height", 24, "--width", 32, "--window", 4, "--max-rows", 2, "--out", tmp_path) == 0
    pipe = d.DiffusionPipeline.from_pretrained(words_to_picture, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    expected = pipe("a dog", num_inference_steps=6, height=24, width=32, generator=generator).images[0]
    assert np.array_equal(levels(tmp_path / "sequential-1.png"), np.asarray(expected))
    assert np.abs(levels(tmp_path / "parallel-1.png") - np.asarray(expected)).max() <= 1
    assert_drawn(tmp_path / "parallel-1.png", (24, 32))


def test_json_says_what_was_asked_and_what_it_cost(noise_to_picture, tmp_path, capsys):
    assert run("--model", noise_to_picture, "--steps", 10, "-n", 2, "--window", 8, "--out", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {
        "pipeline": "DDPMPipeline",
        "scheduler": "DDPMScheduler",
        "arguments": {"num_inference_steps": 10, "batch_size": 2},
        "seed": 0,
        "tol": 0.01,
        "window": 8,
        "secant": True,
        "single": False,
        "max_rows": None,
        "pad": False,
    }
    sequential, parallel = found["runs"]
    assert (sequential["name"], sequential["stats"], sequential["error_measured"]) == ("sequential", None, None)
    assert parallel["stats"]["calls"] == 10
    assert parallel["stats"]["rounds"] < 10
    assert parallel["stats"]["fallback"] is None
    assert parallel["stats"]["window"] == 8
    assert parallel["stats"]["plan"] == "window 8 as asked"
    assert len(parallel["error_measured"]) == 2
    assert 0 < max(parallel["error_measured"]) < 0.02
    assert min(run["seconds"] for run in found["runs"]) > 0
    assert [Path(path).name for path in found["pictures"]] == [
        "samples.png",
        "sequential-1.png",
        "sequential-2.png",
        "parallel-1.png",
        "parallel-2.png",
    ]
    assert_drawn(Path(found["pictures"][-1]))


def test_steps_and_window_are_the_pipelines_own_if_not_given(noise_to_picture, tmp_path, monkeypatch, capsys):
    calls = []
    original = d.DDPMPipeline.__call__

    def watched(self, batch_size=1, generator=None, num_inference_steps=7, output_type="pil", return_dict=True):
        calls.append(num_inference_steps)
        assert (generator.initial_seed(), output_type) == (9, "np")
        return original(self, batch_size, generator, num_inference_steps, output_type, return_dict)

    monkeypatch.setattr(d.DDPMPipeline, "__call__", watched)
    assert run("--model", noise_to_picture, "--seed", 9, "--out", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert calls[:2] == [3, 7]  # a warm-up, and the plain run
    assert found["settings"]["arguments"] == {}
    assert found["runs"][1]["stats"]["calls"] == 7


def test_a_small_tolerance_gives_a_small_error(noise_to_picture, tmp_path, capsys):
    """Far below what rounding to 255 levels would leave."""
    assert run("--model", noise_to_picture, "--steps", 8, "--tol", 1e-5, "--out", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["runs"][1]["error_measured"][0] < 2e-5


@pytest.mark.parametrize(("words", "most"), [(["--window", 6], 7), (["--window", 6, "--max-rows", 3], 3)])
def test_the_window_and_the_largest_batch_are_what_was_asked(
    noise_to_picture, tmp_path, monkeypatch, capsys, words, most
):
    original, rows = d.UNet2DModel.forward, []

    @functools.wraps(original)
    def counted(self, sample, *args, **kwargs):
        rows.append(len(sample))
        return original(self, sample, *args, **kwargs)

    monkeypatch.setattr(d.UNet2DModel, "forward", counted)
    assert run("--model", noise_to_picture, "--steps", 20, "--out", tmp_path, *words, "--json") == 0
    assert most - 1 <= max(rows) <= most  # a batch that is tried first has a known call with it
    assert json.loads(capsys.readouterr().out)["runs"][1]["stats"]["calls"] == 20


def test_without_the_plain_run_there_is_nothing_to_compare(noise_to_picture, tmp_path, capsys):
    assert run("--model", noise_to_picture, "--steps", 6, "--no-sequential", "--out", tmp_path) == 0
    text = capsys.readouterr().out
    assert "sequential" not in text
    assert "measured" in text
    assert "where the plain run makes 6 calls" in text
    assert "than its networks' predicted time. Choice: " in text
    assert [path.name for path in tmp_path.iterdir()] == ["parallel-1.png"]


def test_classes_are_drawn_in_turn(class_to_picture, tmp_path, capsys):
    words = ("--model", class_to_picture, "--labels", "7,999", "-n", 3, "--steps", 8, "--guidance", 1, "--json")
    assert run(*words, "--window", 6, "--out", tmp_path) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["arguments"]["class_labels"] == [7, 999, 7]
    assert len(found["runs"][1]["error_measured"]) == 3
    assert 0 < found["runs"][1]["stats"]["error_bound"] < 0.05
    for number in (1, 2, 3):
        assert_drawn(tmp_path / f"parallel-{number}.png")


def test_the_reason_of_a_plain_run_is_told(noise_to_picture, tmp_path, monkeypatch, capsys):
    original = d.UNet2DModel.forward
    drawn = torch.Generator().manual_seed(0)

    def drawing(self, sample, timestep, class_labels=None, return_dict=True):
        found = original(self, sample, timestep, class_labels, return_dict=False)[0]
        return (found + torch.randn(found.shape, generator=drawn),)

    monkeypatch.setattr(d.UNet2DModel, "forward", drawing)
    monkeypatch.setattr(
        d.DDPMPipeline, "__call__", lambda self, generator=None, output_type="np": _pictures_of(self.unet, generator)
    )
    assert run("--model", noise_to_picture, "--out", tmp_path) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Run plainly, not in parallel: expected unet to be a function of its arguments" in text
    assert (tmp_path / "parallel-1.png").is_file()


def _pictures_of(unet, generator):
    x = torch.randn(1, 3, SIZE, SIZE, generator=generator)
    for time in range(4, 0, -1):
        x = 0.5 * x + 0.1 * unet(x, torch.tensor(time), return_dict=False)[0]
    return d.ImagePipelineOutput(images=(x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())


@pytest.mark.slow
def test_videos_are_animated_pictures_and_a_sheet_of_their_frames(words_to_frames, tmp_path, capsys):
    words = ("--model", words_to_frames, "--prompt", "a cat", "--steps", 4, "--height", SIZE, "--width", SIZE)
    assert run(*words, "--out", tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "sequential-1.png", "parallel-1.png"}
    with Image.open(tmp_path / "parallel-1.png") as video:
        assert video.n_frames == 16
        assert video.size == (SIZE, SIZE)
    assert levels(tmp_path / "samples.png").std() > 3


def test_frames_are_drawn_in_a_sheet(tmp_path):
    from paradrift import cli_pipeline
    from paradrift.takes import Take

    frames = np.random.default_rng(0).random((2, 30, 8, 12, 3))
    take = Take(name="parallel", pictures=frames, seconds=1.0)
    written = cli_pipeline.pictures(tmp_path, take)
    assert [path.name for path in written] == ["parallel-1.png", "parallel-2.png"]
    with Image.open(written[1]) as video:
        assert video.n_frames == 30
        video.seek(29)
        assert np.abs(np.asarray(video.convert("RGB")) / 255 - frames[1, 29]).max() < 0.01
    sheet = levels(cli_pipeline.sheet(tmp_path / "sheet.png", [take], None))
    assert sheet.shape[1] > 12 * 130
    assert sheet.std() > 3


REFUSED = {
    "a prompt is needed": (
        "words_to_picture",
        [],
        "expected a prompt for StableDiffusionPipeline, found none: give --pr",
    ),
    "no prompt is taken": (
        "noise_to_picture",
        ["--prompt", "a cat"],
        "expected no --prompt for DDPMPipeline, whose call",
    ),
    "no guidance": (
        "noise_to_picture",
        ["--guidance", "2"],
        "expected no --guidance for DDPMPipeline, whose call takes",
    ),
    "no height": ("noise_to_picture", ["--height", "16"], "expected no --height for DDPMPipeline"),
    "no labels": (
        "noise_to_picture",
        ["--labels", "3"],
        "expected no --labels for DDPMPipeline, whose call takes no cl",
    ),
    "classes are needed": (
        "class_to_picture",
        [],
        "expected classes for DiTPipeline, found none: give --labels, such as",
    ),
    "a class too many": (
        "class_to_picture",
        ["--labels", "5000"],
        "expected DiTPipeline to run as asked, found IndexError: index out of range in self: change what is asked for",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_pipeline_does_not_take_is_one_sentence(request, tmp_path, capsys, case):
    pipeline, words, expected = REFUSED[case]
    assert run("--model", request.getfixturevalue(pipeline), "--out", tmp_path / "out", *words) == 2
    assert expected in sentence(capsys)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--sampler", "ddim"],
            "expected no --sampler with --model owner/name, a pipeline, which brings its own sampler",
        ),
        (["--solver", "paradigms"], "expected no --solver with --model owner/name"),
        (["--blocks", "4"], "expected no --blocks with --model owner/name"),
        (["--sweeps", "4"], "expected no --sweeps with --model owner/name"),
        (["--tensors"], "expected no --tensors with --model owner/name"),
        (["--window", "whole"], "expected a window of auto or a width such as 16 for a pipeline, found 'whole'"),
        (["--window", "blocks:4"], "expected a window of auto or a width such as 16 for a pipeline, found 'blocks:4'"),
        (["--window", "0"], "expected a window of auto or a width such as 16 for a pipeline, found '0'"),
        (["--tol", "-1"], "expected a tolerance of at least 0, found -1.0"),
        (["--max-rows", "0"], "expected at least 1 call in a batch, found max_rows=0"),
        (["--steps", "0"], "expected --steps of at least 1, found 0"),
        (["--number", "0"], "expected --number of at least 1, found 0"),
        (["--labels", "cat"], "expected classes as whole numbers with commas between, such as 3,1,4,1, found 'cat'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_loaded(tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.setattr(d.DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    assert run("--model", "owner/name", "--out", tmp_path, *words) == 2
    assert expected in sentence(capsys)


@pytest.mark.parametrize("option", ["--prompt", "--negative-prompt", "--height", "--width"])
def test_the_embedded_model_refuses_what_only_pipelines_take(tmp_path, capsys, option):
    assert run(option, "16", "--out", tmp_path) == 2
    assert f"expected no {option} with --model digits, which draws classes (see --labels): leave it out" in sentence(
        capsys
    )


def test_a_folder_that_is_none(tmp_path, capsys):
    assert run("--model", tmp_path / "nothing", "--out", tmp_path) == 2
    assert f"expected a pipeline's folder at {tmp_path / 'nothing'}, found none: check the path" in sentence(capsys)


def test_a_folder_without_a_pipeline(noise_to_picture, tmp_path, capsys):
    assert run("--model", noise_to_picture / "unet", "--out", tmp_path) == 2
    assert "expected a pipeline's folder with a model_index.json in it" in sentence(capsys)


def test_a_folder_that_lacks_a_part(noise_to_picture, tmp_path, capsys):
    shutil.copytree(noise_to_picture, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "unet")
    assert run("--model", tmp_path / "copy", "--out", tmp_path) == 2
    assert f"expected a complete pipeline in {tmp_path / 'copy'}, found one that does not load: " in sentence(capsys)


def test_a_part_of_an_unknown_library(noise_to_picture, tmp_path, capsys):
    shutil.copytree(noise_to_picture, tmp_path / "copy")
    index = tmp_path / "copy" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"unet": ["no_such_library", "Net"]}))
    assert run("--model", tmp_path / "copy", "--out", tmp_path) == 2
    assert "found one that does not load: no_such_library is not one of the libraries" in sentence(capsys)


def test_a_package_that_is_missing(words_to_picture, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "transformers" else find(name))
    monkeypatch.setattr(  # what diffusers raises without transformers, whose classes it stands in for
        d.DiffusionPipeline, "from_pretrained", lambda *_, **__: object().text_encoder
    )
    assert run("--model", words_to_picture, "--prompt", "a", "--out", tmp_path) == 2
    found = sentence(capsys)
    assert f"expected the packages that {words_to_picture} needs, found one missing: " in found
    assert 'pip install "paradrift[pipelines]" brings transformers and sentencepiece' in found


def test_a_hub_out_of_reach(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run("--model", "nobody/no-such-pipeline", "--out", tmp_path) == 2
    assert "expected nobody/no-such-pipeline on the hub or in its cache, found it out of reach: check" in sentence(
        capsys
    )


def test_a_pipeline_that_needs_more_than_noise(noise_to_picture, tmp_path, capsys):
    unet = d.UNet2DModel.from_pretrained(noise_to_picture / "unet", low_cpu_mem_usage=False)
    d.RePaintPipeline(unet, d.RePaintScheduler()).save_pretrained(tmp_path / "pipe")
    assert run("--model", tmp_path / "pipe", "--out", tmp_path) == 2
    expected = (
        "found RePaintPipeline, which needs image, mask_image too: call it from Python, inside paradrift.parallelize"
    )
    assert expected in sentence(capsys)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_interrupt_ends_it_wherever_it_comes(noise_to_picture, tmp_path, monkeypatch, capsys, number):
    original, calls = d.DDPMPipeline.__call__, []

    @functools.wraps(original)
    def interrupted(self, *args, **kwargs):
        calls.append(kwargs)
        if len(calls) == number:  # the warm-up, the plain run, the parallel one
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(d.DDPMPipeline, "__call__", interrupted)
    assert run("--model", noise_to_picture, "--steps", 4, "--out", tmp_path) == 130
    assert len(calls) == number
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


def test_pictures_that_are_not_finite_are_owned_up_to(noise_to_picture, tmp_path, monkeypatch, capsys):
    original = d.DDPMPipeline.__call__

    @functools.wraps(original)
    def broken(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        found.images[0, 0] = float("nan")
        return found

    monkeypatch.setattr(d.DDPMPipeline, "__call__", broken)
    assert run("--model", noise_to_picture, "--steps", 4, "--out", tmp_path, "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["runs"][1]["error_measured"] == [None]
    assert "paradrift: the pictures hold values that are not finite: try --dtype" in captured.err
    assert levels(tmp_path / "parallel-1.png")[1:].std() > 3


def test_what_is_unknown_is_said_so(tmp_path):
    from paradrift import cli_pipeline
    from paradrift.diffusers import ReplayStats
    from paradrift.takes import Take

    assert cli_pipeline.number(None) == cli_pipeline.number(float("nan")) == "unknown"
    assert (cli_pipeline.number(0.0), cli_pipeline.number(0.0123)) == ("0", "1.2e-02")
    stats = ReplayStats(error_bound=float("inf"), rounds=3)
    take = Take(name="parallel", pictures=np.zeros((1, 1, 2, 2, 3)), seconds=1.0, stats=stats)
    (run,) = cli_pipeline.plain([take], None, {}, [])["runs"]
    assert (run["stats"]["error_bound"], run["stats"]["rounds"], run["error_measured"]) == (None, 3, None)


def test_gaps_are_in_units_of_the_spread():
    from paradrift.takes import gap

    reference = np.stack([np.zeros((1, 4, 4, 3)), np.ones((1, 4, 4, 3))])
    assert np.allclose(gap(reference + np.array([0.1, 0.0])[:, None, None, None, None], reference), [0.2, 0.0])
    assert np.allclose(gap(np.full((1, 1, 2, 2, 1), 1 / 255), np.zeros((1, 1, 2, 2, 1))), 1.0)

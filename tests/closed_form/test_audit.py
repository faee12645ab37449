"""The audit: one batch, no solver code, everything that the parts say one by one, and nothing slips through."""

import dataclasses

import pytest
import torch

import paradrift as pd
from paradrift.cli import main

MIXTURE = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.05, pd.Discrete.linear(1000))


def solved(sampler=None, **request):
    chosen = dict(sampler=sampler or pd.DDPM(), steps=20, window=pd.Sliding(6), tol=0.1, seed=3) | request
    return pd.sample(MIXTURE, (7, 2), dtype=torch.float64, trajectory=True, **chosen)


def test_one_batch_says_what_the_parts_say_one_by_one():
    solution, counted = solved(), pd.Counted(MIXTURE)
    found = pd.audit(solution, counted)
    assert (counted.calls, counted.rows, found.evaluations) == (1, 7 * 20, 7 * 20)
    assert found.reason is None
    law, error = pd.certificate.kl(solution, MIXTURE), pd.forward_error(solution, MIXTURE, rounds=1)
    for name in ("nats", "per_node", "llr", "samples"):
        assert torch.equal(getattr(found.certificate, name), getattr(law, name))
    assert torch.equal(found.error.error, error.error)
    assert str(found) == f"{found.error}\n{found.certificate}"
    assert torch.equal(pd.audit(solution, MIXTURE, rounds=2).error.error, pd.forward_error(solution, MIXTURE).error)


def test_the_call_itself_certifies_as_the_audit_does():
    plain = solved()
    certified = solved(certify=True)
    assert torch.equal(certified.certificate.nats, pd.audit(plain, MIXTURE).certificate.nats)
    assert certified.stats.evaluations == plain.stats.evaluations + 7 * 20
    assert certified.stats.rounds == plain.stats.rounds + 1
    thin = pd.sample(MIXTURE, (7, 2), steps=20, window=pd.Sliding(6), certify=True)
    assert thin.trajectory is None
    assert thin.certificate is not None


def test_a_path_that_was_changed_afterwards_does_not_pass():
    solution = solved(tol=0.0)
    assert float(pd.audit(solution, MIXTURE).certificate.nats.max()) < 1e-20
    path = solution.trajectory.clone()
    path[4, 11] += 0.01
    found = pd.audit(dataclasses.replace(solution, trajectory=path), MIXTURE)
    assert (found.certificate.nats > 1e-6).tolist() == [False] * 4 + [True] + [False] * 2
    assert (found.error.error > 1e-4).tolist() == [False] * 4 + [True] + [False] * 2


def test_without_noise_the_distance_stands_and_the_reason_is_told():
    found = pd.audit(solved(pd.DDIM()), MIXTURE)
    assert found.certificate is None
    assert "found none in row 1" in found.reason
    assert "no divergence in nats: expected noise in every row but the last" in str(found)
    assert bool((found.error.error < 0.1).all())


def test_what_did_not_converge_has_no_law_but_a_distance():
    found = pd.audit(solved(sampler=pd.DDPM(), max_rounds=2), MIXTURE)
    assert found.certificate is None
    assert "budget exhausted" in found.reason
    assert bool(torch.isinf(found.error.error).all())  # their paths end early


def test_other_noises_are_noticed():
    solution = solved()
    strange = dataclasses.replace(solution, recipe=dataclasses.replace(solution.recipe, seed=4))
    with pytest.raises(pd.SpecError, match="expected the noises and the sampler of this solution"):
        pd.audit(strange, MIXTURE)


def test_a_file_of_the_command_line_is_audited(tmp_path, capsys):
    words = ["sample", "--labels", "7", "--steps", "8", "--window", "4", "--guidance", "1", "--kl", "0.5", "--tensors"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "KL(parallel || sequential) = " in said
    assert main(["audit", str(tmp_path / "samples.safetensors")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("distance to the sequential answer: median ")
    again, itself = (float(line.split("= ")[1].split(" ")[0]) for line in lines[1:])
    assert again == pytest.approx(itself, rel=1e-2)
    assert "8 evaluations" in lines[1]


def test_a_file_of_another_model_is_left_to_python(tmp_path, capsys):
    solved().save(tmp_path / "mine.safetensors")
    assert main(["audit", str(tmp_path / "mine.safetensors")]) == 2
    assert "call paradrift.audit(solution, denoiser) with your own model" in capsys.readouterr().err
    again = pd.Solution.load(tmp_path / "mine.safetensors")
    assert torch.equal(pd.audit(again, MIXTURE).certificate.nats, pd.audit(solved(), MIXTURE).certificate.nats)


def test_what_cannot_be_certified_is_refused_before_the_first_evaluation():
    counted = pd.Counted(MIXTURE)
    with pytest.raises(pd.SpecError, match="found none in row 1"):
        pd.sample(counted, (2, 2), sampler=pd.DDIM(), steps=10, certify=True)
    assert counted.calls == 0

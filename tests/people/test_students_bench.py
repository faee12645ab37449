"""The students' benchmark at two samples: every point runs, has a name, and is what it says."""

from paradrift.bench import students


def test_a_quick_run_measures_students_alone_and_as_drafts():
    found = list(students.students(quick=True))
    keys = [record.extra["key"] for record in found]
    assert keys == [key for key, _ in students.points(quick=True)]
    assert len(set(keys)) == len(keys)
    by_key = dict(zip(keys, found, strict=True))
    for name in ("trajectory", "consistency", "consistency x 2"):
        alone = by_key[f"DDIM 4 {name} alone"]
        assert alone.evaluations == 2 * alone.rounds_max
        assert alone.error_worst is not None
        assert 0 < alone.error_worst < 3
    for record in found:
        if record.tol is not None:
            assert record.extra["converged"] == 2
            assert record.error_worst is not None
            assert record.error_worst < record.tol
            assert record.rounds_max <= 4 + 1 + ("x 2" in record.method) + (record.method != "default")
    assert by_key["DDPM 4 Whole() 1e-01 consistency x 2"].rounds_max >= 3
    assert students.GUESSES["consistency x 2"]().calls == 2

from __future__ import annotations

from cohort_jobs import subjects_named

from calid.cohort.queue import Queue


def test_subjects_come_in_order_and_the_orphan_first():
    a, b, c = subjects_named("abc")
    queue = Queue([a, b, c], retries=1)
    assert queue.take() == a
    assert queue.take() == b
    assert queue.died(a) is None
    assert (queue.take(), queue.attempts(a)) == (a, 2)
    assert (queue.take(), queue.attempts(c), len(queue)) == (c, 1, 0)


def test_a_subject_is_begun_again_as_often_as_allowed():
    (subject,) = subjects_named("a")
    for retries in range(3):
        queue = Queue([subject], retries)
        for _ in range(retries):
            queue.take()
            assert queue.died(subject) is None
        queue.take()
        outcome = queue.died(subject)
        assert outcome is not None
        assert (outcome.status, outcome.attempts) == ("lost", retries + 1)
        assert not queue

"""The table counts what was tried and what held, over marked tests and loops."""

from types import SimpleNamespace

from tests.faults.tally import table_of


def test_the_table_sums_marked_tests_and_loops():
    passed = SimpleNamespace(passed=True, user_properties=[("fault", ["YAML", 1, None]), ("other", 3)])
    failed = SimpleNamespace(passed=False, user_properties=[("fault", ["YAML", 1, None]), ("fault", ["kills", 60, 59])])
    assert table_of([passed, failed]) == ["YAML         2 tried        1 held", "kills       60 tried       59 held"]

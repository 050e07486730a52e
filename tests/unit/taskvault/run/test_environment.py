from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskvault.run.environment import VariableInvalid, changed_environment, counting_variables


def test_only_named_variables_and_those_of_the_list_count() -> None:
    base = {"HOME": "/root", "CFLAGS": "-O2", "LC_ALL": "C", "SECRET": "x", "MODE": "debug", "PATH": "/bin"}
    assert counting_variables(base, ["MODE"]) == {"CFLAGS": "-O2", "LC_ALL": "C", "MODE": "debug"}


def test_a_named_variable_that_is_not_set_is_not_the_same_as_an_empty_one() -> None:
    assert counting_variables({}, ["MODE"]) == {}
    assert counting_variables({"MODE": ""}, ["MODE"]) == {"MODE": ""}


def test_a_value_given_with_the_name_is_set_and_counts() -> None:
    environment = changed_environment({"MODE": "release"}, ["MODE=debug=1"])
    assert environment["MODE"] == "debug=1"
    assert counting_variables(environment, ["MODE=debug=1"]) == {"MODE": "debug=1"}


@given(st.sampled_from(["-j", "-j8", "--jobserver-auth=3,4", "--jobserver-fds=3,4", "-l2.5"]))
def test_how_many_jobs_make_runs_says_nothing_about_what_it_makes(option: str) -> None:
    assert counting_variables({"MAKEFLAGS": f"{option} -k"}, []) == counting_variables({"MAKEFLAGS": "-k"}, [])


def test_what_looks_like_a_job_option_in_a_variable_of_make_counts() -> None:
    one, other = ({"MAKEFLAGS": f"k -j4 -- LIBS=-la\\ -l{name}"} for name in "xy")
    assert counting_variables(one, []) != counting_variables(other, [])


@pytest.mark.parametrize("text", ["", "=x", "A\0B"])
def test_what_names_no_variable_is_refused(text: str) -> None:
    with pytest.raises(VariableInvalid):
        changed_environment({}, [text])

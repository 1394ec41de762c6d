"""A user's mistake stays one sentence, said once, though it is a ``ValueError`` as well."""

import pickle

import pytest

from otfew import catalogue
from otfew.errors import UserError
from otfew.experiments import pretrain
from otfew.experiments.common import cli
from otfew.experiments.long_tail import command as long_tail


def test_it_is_what_scikit_learn_expects():
    error = UserError("labels are missing: give them.")
    assert isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        # A nested dataclass, whose errors the parser takes for its own, and one at the root.
        (long_tail, ["--all-layers.epochs", "-1"], "--all-layers.epochs must be positive, not -1."),
        (pretrain, ["--momentum", "7"], "--momentum must lie between 0 and 1, not 7.0."),
    ],
)
def test_a_dataclass_keeps_its_sentence_through_the_parser(command, arguments, said):
    with pytest.raises(UserError) as caught:
        cli.parse(command.Config, "x", arguments)
    assert str(caught.value) == said


def test_what_the_parser_itself_refuses_is_still_a_sentence():
    with pytest.raises(UserError, match=r"see x --help\.$"):
        cli.parse(pretrain.Config, "x", ["--settings.no-such-option", "1"])


def test_a_method_that_refuses_an_option_says_so_once():
    with pytest.raises(UserError) as caught:
        catalogue.build("tim", alpha=-1.0)
    assert str(caught.value).count("tim") == 1


@pytest.mark.parametrize("options", [{"shot_head": "sfc", "sfc_lr": "fast"}, {"shot_head": 3}, {"solver": 3}])
def test_options_of_a_wrong_type_are_named_with_their_method(options):
    with pytest.raises(UserError, match="deepemd-fcn: "):
        catalogue.build("deepemd-fcn", **options)


def test_an_option_may_be_called_as_the_argument_is():
    with pytest.raises(UserError, match="no option 'name'"):
        catalogue.build("protonet", name="x")

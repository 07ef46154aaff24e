"""Message: an immutable value."""

import copy
import pickle

import pytest

from tachyon import Message


def test_it_holds_what_it_was_given():
    message = Message(7, 3, b"abc")
    assert (message.type_id, message.size, message.data) == (7, 3, b"abc")
    assert message == Message(type_id=7, size=3, data=b"abc") == Message(7, data=b"abc")


@pytest.mark.parametrize("name", ["type_id", "size", "data", "anything"])
def test_it_is_immutable(name):
    message = Message(7, 3, b"abc")
    with pytest.raises(AttributeError):
        setattr(message, name, 1)
    with pytest.raises(AttributeError):
        delattr(message, name)
    assert message == Message(7, 3, b"abc")


def test_it_cannot_be_made_anew():
    message = Message(7, 3, b"abc")
    with pytest.raises(TypeError, match="cannot be changed"):
        message.__init__(8, 1, b"x")
    assert message == Message(7, 3, b"abc")


def test_it_compares_by_value():
    assert Message(1, 1, b"a") == Message(1, 1, b"a")
    assert not Message(1, 1, b"a") != Message(1, 1, b"a")  # noqa: SIM202
    assert Message(1, 1, b"a") != Message(2, 1, b"a")
    assert Message(1, 1, b"a") != Message(1, 1, b"b")
    assert Message(1, 1, b"a") != (1, 1, b"a")
    assert Message(1, 1, b"a") != "a"


def test_it_has_an_order():
    low, high = Message(1, 2, b"zz"), Message(2, 1, b"a")
    assert low < high
    assert low <= high
    assert low <= Message(1, 2, b"zz")
    assert high > low
    assert high >= low
    assert high >= Message(2, 1, b"a")
    same = Message(1, 2, b"zz")
    assert not (high < low or high <= low or low > high or low >= high)
    assert not (low < same or low > same)
    assert sorted([high, low, Message(1, 1, b"z")]) == [Message(1, 1, b"z"), low, high]
    with pytest.raises(TypeError):
        sorted([low, (2, 1, b"a")])


def test_it_hashes_as_it_compares():
    assert hash(Message(1, 1, b"a")) == hash(Message(1, 1, b"a"))
    assert len({Message(1, 1, b"a"), Message(1, 1, b"a"), Message(2, 1, b"a")}) == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_pickles(protocol):
    message = Message(2**32 - 1, 4, b"\x00\xff\n\r")
    again = pickle.loads(pickle.dumps(message, protocol))
    assert again == message
    assert type(again) is Message


def test_it_copies():
    message = Message(1, 1, b"a")
    assert copy.copy(message) == copy.deepcopy(message) == message


def test_it_unpacks():
    type_id, size, data = Message(7, 3, b"abc")
    assert (type_id, size, data) == (7, 3, b"abc")


def test_it_matches_by_position():
    assert Message.__match_args__ == ("type_id", "size", "data")
    match Message(7, 3, b"abc"):
        case Message(7, size, data):
            assert (size, data) == (3, b"abc")
        case _:
            pytest.fail("no match")


def test_its_repr_makes_it_again():
    message = Message(7, 3, b"a\x00c")
    assert repr(message) == r"Message(type_id=7, size=3, data=b'a\x00c')"
    assert eval(repr(message)) == message


def test_a_long_repr_is_cut():
    text = repr(Message(7, 1 << 20, bytes(1 << 20)))
    assert len(text) < 400
    assert "size=1048576" in text
    assert "..." in text


@pytest.mark.parametrize(
    "arguments, error",
    [
        ((1, 2, b"abc"), ValueError),
        ((-1, 3, b"abc"), OverflowError),
        ((2**32, 3, b"abc"), OverflowError),
        ((1.0, 3, b"abc"), TypeError),
        ((1, 3, "abc"), TypeError),
        ((1, 3, bytearray(b"abc")), TypeError),
    ],
)
def test_what_cannot_be_a_message_is_refused(arguments, error):
    with pytest.raises(error):
        Message(*arguments)


def test_it_cannot_be_subclassed():
    with pytest.raises(TypeError):
        type("Mine", (Message,), {})

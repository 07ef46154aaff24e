"""type_id = route_id << 16 | msg_type, refused outside its bounds."""

import pytest

from tachyon import make_type_id, msg_type, route_id


def test_the_published_example():
    type_id = make_type_id(0, 42)
    assert (type_id, route_id(type_id), msg_type(type_id)) == (42, 0, 42)


@pytest.mark.parametrize("route", [0, 1, 0x1234, 0xFFFF])
@pytest.mark.parametrize("kind", [0, 1, 0xABCD, 0xFFFF])
def test_both_halves_come_back(route, kind):
    type_id = make_type_id(route, kind)
    assert 0 <= type_id < 2**32
    assert (route_id(type_id), msg_type(type_id)) == (route, kind)


@pytest.mark.parametrize("bad", [-1, 0x10000, 2**64])
def test_a_half_out_of_range_is_refused_by_name_and_value(bad):
    with pytest.raises(OverflowError, match=f"route_id must be between 0 and 65535, not {bad}"):
        make_type_id(bad, 0)
    with pytest.raises(OverflowError, match=f"msg_type must be between 0 and 65535, not {bad}"):
        make_type_id(0, bad)


@pytest.mark.parametrize("bad", [-1, 2**32, 2**70])
@pytest.mark.parametrize("part", [route_id, msg_type])
def test_a_whole_out_of_range_is_refused(part, bad):
    with pytest.raises(OverflowError, match=f"between 0 and {2**32 - 1}, not {bad}"):
        part(bad)


@pytest.mark.parametrize("bad", [1.0, "1", None])
def test_a_wrong_type_is_refused(bad):
    for call in (
        lambda: make_type_id(bad, 0),
        lambda: make_type_id(0, bad),
        lambda: route_id(bad),
        lambda: msg_type(bad),
    ):
        with pytest.raises(TypeError):
            call()

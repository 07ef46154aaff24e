"""The examples of docs/objects.md, as they stand."""

import json
import pickle
import re
from pathlib import Path

import pytest

import tachyon

msgspec = pytest.importorskip("msgspec")
np = pytest.importorskip("numpy")

DOCS = Path(__file__).parent.parent / "docs" / "objects.md"
if not DOCS.is_file():
    pytest.skip("only in the source tree", allow_module_level=True)
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)


def test_the_first_lines(pair):
    producer, consumer = pair()
    space = {"producer": producer, "consumer": consumer}
    first, loop = BLOCKS[0].split("\nfor ")
    exec(first, space)
    assert space["order"] == space["Order"]("ABC", 1.5)
    for price in (1.0, 2.0):
        producer.send_obj(space["Order"]("X", price))
    producer.close()
    space["got"] = []
    exec("for " + loop.replace("    ...\n", "    got.append(order)\n"), space)
    assert space["got"] == [space["Order"]("X", 1.0), space["Order"]("X", 2.0)]


class Model:
    """As pydantic's: for the example beside it."""

    def __init__(self, a):
        self.a = a

    def model_dump_json(self):
        return json.dumps({"a": self.a})


class TypeAdapter:
    def __init__(self, model):
        self.model = model

    def validate_json(self, data):
        return self.model(**json.loads(data))


class Orjson:
    dumps = staticmethod(lambda o: json.dumps(o).encode())
    loads = staticmethod(json.loads)


def test_codecs_of_ones_own(pair):
    producer, consumer = pair()
    space = {"tachyon": tachyon, "msgspec": msgspec, "json": json, "TypeAdapter": TypeAdapter, "orjson": Orjson}
    space |= {"bus": producer, "o": [1, {"a": None}]}
    space |= {"to_plain": lambda o: [o.real, o.imag], "from_plain": lambda type, o: complex(*o)}
    exec(BLOCKS[1], space)
    assert consumer.recv_obj(codec=(Orjson.dumps, Orjson.loads)) == [1, {"a": None}]
    producer.send_obj({"z": 1 + 2j}, codec=space["packed"])
    assert consumer.recv_obj() == {"z": [1.0, 2.0]}  # the same format
    producer.send_obj(Model(5), codec=space["models"])
    assert consumer.recv_obj(type=Model, codec=space["models"]).a == 5
    producer.send_obj(Model(5), codec=space["models"])
    assert consumer.recv_obj(codec=space["models"]) == {"a": 5}


def test_pickle(pair):
    producer, consumer = pair()
    space = {"producer": producer, "consumer": consumer, "array": np.arange(1000.0)}
    exec(BLOCKS[2], space)
    assert space["state"]["step"] == 7
    assert (space["state"]["grad"] == space["array"]).all()
    assert space["state"]["grad"].flags.writeable
    producer.send_obj({1}, allow_pickle=True)
    with pytest.raises(tachyon.CodecError, match="allow_pickle=True"):
        consumer.recv_obj()
    assert consumer.try_recv() is None
    producer.send_obj({1}, codec=(pickle.dumps, pickle.loads))  # by another name
    assert consumer.recv_obj(codec=(pickle.dumps, pickle.loads)) == {1}


def test_the_header_is_laid_out_as_the_text_says():
    data = tachyon.encode_obj([1])
    assert data[:2] == b"\xb7o"
    assert (data[2], data[3]) == (1, 0)
    size, name = int.from_bytes(data[4:6], "little"), data[6]
    assert size == 16 and data[7 : 7 + name] == b"msgpack"
    assert data[7 + name : size] == bytes(size - 7 - name)
    assert msgspec.msgpack.decode(data[size:]) == [1]


def test_every_block_is_of_one_of_the_examples():
    assert len(BLOCKS) == 3

"""Objects: the header, pickle, typed RPC."""

from table import Mutant as M

OBJECTS = "tachyon/_objects.py"
OBJECTS_PXI = "tachyon/_objects.pxi"
RPC_PY = "tachyon/_rpc.py"
DISPATCHER = "tachyon/_dispatcher.py"

TABLE = {
"objects": [
    M("what another codec wrote is decoded", OBJECTS,
      "if found == self.name:", "if True:",
      "test_objects.py::test_any_codec_does[codec0-json.dumps]"),
    M("a pickle is unpickled unasked", OBJECTS,
      "return chosen.unpack(", "return (_PICKLE if b'pickle' in bytes(raw[:16]) else chosen).unpack(",
      "test_objects_pickle.py::test_nothing_is_unpickled_unless_the_receiver_asks_for_it"),
    M("a header of another version is read", OBJECTS,
      "if version != _VERSION or flags:", "if False:",
      "test_objects.py::test_a_header_of_a_later_version_may_have_more_fields_and_one_of_another_kind_is_refused"),
    M("a header may end anywhere", OBJECTS,
      "if not _HEAD.size + length <= size <= len(data):", "if False:",
      "test_objects.py::test_a_header_that_ends_within_the_name_or_beyond_the_message_is_refused[7]"),
    M("buffers lie anywhere", OBJECTS,
      "return offset + (48 - offset) % 64", "return offset",
      "test_objects_pickle.py::test_buffers_lie_on_64_bytes_on_both_sides_and_keep_what_may_be_done_with_them[4096-False]"),
    M("received buffers lie anywhere", OBJECTS_PXI,
      "shift = (16 - <uintptr_t>PyByteArray_AS_STRING(memory)) & 63",
      "shift = (24 - <uintptr_t>PyByteArray_AS_STRING(memory)) & 63",
      "test_objects_pickle.py::test_buffers_lie_on_64_bytes_on_both_sides_and_keep_what_may_be_done_with_them[4096-False]"),
    M("what lay between the buffers before is sent", OBJECTS,
      "(end, bytes(start - end)), ", "",
      "test_objects_pickle.py::test_what_is_between_the_buffers_is_zeros"),
    M("a buffer may end beyond the message", OBJECTS,
      "end = first + length\nif end > len(view):\nraise damaged", "end = first + length",
      "test_objects_random.py::test_a_message_that_ends_anywhere_is_a_codec_error[200]"),
    M("a count that no message holds is believed", OBJECTS,
      "if count > (len(view) - start) // 8:", "if False:",
      "test_objects_random.py::test_counts_that_no_message_can_hold_need_no_memory"),
],
"typed RPC": [
    M("why a request is refused is told only with details", RPC_PY,
      "error.in_request = True", "pass",
      "test_typed_rpc.py::test_a_request_that_cannot_be_decoded_is_an_error_reply_that_says_why_and_the_loop_goes_on[False]"),
    M("what a handler's own decoding says is told", DISPATCHER,
      "(isinstance(failure, CodecError) and failure.in_request)", "isinstance(failure, CodecError)",
      "test_typed_rpc.py::test_a_codec_error_of_the_handler_itself_is_told_only_with_details"),
],
}

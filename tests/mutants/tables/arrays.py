"""Arrays in messages: what is checked of a header, what goes in front of one, and how an array goes with its block."""

from table import Mutant as M

ARRAY = "cxx/include/tachyon/array.hpp"
RPC = "cxx/include/tachyon/rpc.hpp"
ARRAYS = "tachyon/_arrays.pxi"
GUARD = "tachyon/_array_guard.pxi"
ENDS = "tachyon/_array_ends.pxi"
DTYPES = "tachyon/_dtypes.py"

TABLE = {
"a peer's array": [
    M("a message shorter than a header", ARRAY,
      "if (payload.size() < sizeof header) return ArrayFault::no_array;", "", "cxx/array"),
    M("any message is an array", ARRAY, "header.magic != kArrayMagic", "false", "cxx/array"),
    M("any version", ARRAY, "header.version != kArrayVersion", "false", "cxx/array"),
    M("nine dimensions", ARRAY, "header.dimensions > kMostDimensions ||", "", "cxx/array"),
    M("pointers", ARRAY, "header.reserved != 0 || opaque ||", "header.reserved != 0 ||", "cxx/array"),
    M("halves of bytes", ARRAY, "header.bits == 0 || header.bits % 8 != 0", "header.bits == 0", "cxx/array"),
    M("lines that are not there", ARRAY,
      "if (before_data > payload.size()) return ArrayFault::size;", "", "cxx/array"),
    M("lines of no use", ARRAY, "if (extended != (header.more_lines != 0))",
      "if (extended && header.more_lines == 0)", "cxx/array"),
    M("a description beyond its lines", ARRAY,
      "if (array.more_lines() != header.more_lines) return ArrayFault::corrupt;", "", "cxx/array"),
    M("lengths of dimensions that there are not", ARRAY,
      "if (array.shape[i] != 0) return ArrayFault::corrupt;", "", "cxx/array"),
    M("negative lengths", ARRAY, "bytes > std::uint64_t{INT64_MAX})\nreturn {};", "false)\nreturn {};", "cxx/array"),
    M("more items than a number can hold, beside a length of 0", ARRAY,
      "shape[i] == 0 ? 1 : static_cast<std::uint64_t>(shape[i]);\nif (__builtin",
      "static_cast<std::uint64_t>(shape[i]);\nif (__builtin", "cxx/array"),
    M("items beyond the message", ARRAY,
      "if (*items * array.item_bytes != payload.size() - before_data) return ArrayFault::size;", "", "cxx/array"),
    M("a view of the other byte order", ARRAY, "|| (array.swapped && sizeof(T) > 1)) return false;", ") return false;",
      "cxx/array"),
    M("a view of a type of the same size", ARRAY, "return array.code == code || truth;", "return true;", "cxx/array"),
    M("a view of what is not aligned", ARRAY, "% alignof(T) != 0", "% 1 != 0", "cxx/array"),
    M("a type may be of another size than the header says", DTYPES,
      " or dtype.itemsize != item_bytes:", ":", "test_array_headers.py::test_a_message_that_is_no_array_is_an_error_that_holds_it"),
    M("a type of objects", DTYPES, r"[biufcmMSUV]\d{1,9}", r"[biufcmMSUVO]\d{0,9}",
      "test_array_headers.py::test_a_message_that_is_no_array_is_an_error_that_holds_it",
      also=((DTYPES, "if dtype.hasobject or dtype.subdtype", "if dtype.subdtype"),)),  # either is enough
    M("an error without its message", GUARD, "error.message = new_message(frame.type_id, copy_of(frame))", "pass",
      "test_array_headers.py::test_a_message_that_is_no_array_is_an_error_that_holds_it"),
    M("what is no array stays the next message", ENDS, "with_message(error, frame)\ntaken = True",
      "with_message(error, frame)", "test_array_headers.py::test_a_message_that_is_no_array_is_an_error_that_holds_it"),
    M("an array goes into whatever out", ENDS, "if target.shape != shape_of(&said) or target.dtype != dtype:",
      "if out.shape != shape_of(&said):", "test_array_headers.py::test_an_array_that_does_not_fit_out_is_an_error_that_holds_it"),
],
"an array in place": [
    M("a copy that is set aside is not aligned", RPC, "kAligned{kLine};", "kAligned{16};",
      "test_array_rpc.py::test_an_answer_that_was_set_aside_is_aligned_too"),
    M("a new array is not aligned", ARRAYS, "start = -<uint64_t>view.buf & (core.kArrayAlignment - 1)", "start = 0",
      "test_arrays.py::test_the_data_of_every_received_array_is_aligned_wherever_in_the_ring_it_is"),
    M("every array is emptied", ARRAYS,
      "frame = None\nif Py_REFCNT(array) - 1 <= names:", "frame = None\nif True:",
      "test_array_views.py::test_what_else_is_alive_of_it_holds_the_frame"),
    M("no array is emptied", ARRAYS,
      "frame = None\nif Py_REFCNT(array) - 1 <= names:", "frame = None\nif False:",
      "test_array_views.py::test_the_block_gets_an_array_and_the_array_goes_with_the_block"),
    M("a variable of an enclosing function counts twice", ARRAYS, " and name not in code.co_freevars", "",
      "test_array_views.py::test_a_variable_of_two_functions_counts_once"),
    M("a variable of a module counts twice", ARRAYS, "if not own:\n    seen.append(local)", "if not own:\n    pass",
      "test_array_views.py::test_a_variable_of_two_frames_of_one_module_counts_once"),
    M("only the block's own function is looked at", ARRAYS, "for depth in range(16):", "for depth in range(1):",
      "test_array_views.py::test_a_loop_over_a_generator_needs_no_del"),
    M("a guard's buffer is no view", GUARD, "view.obj = self\nwindow._view_made()", "view.obj = self", "test_array_guards.py::test_a_guard_is_a_buffer_with_shape_and_format"),
    M("a received array can be written to", GUARD, "view.readonly = window._readonly", "view.readonly = False",
      "test_array_guards.py::test_a_guard_is_a_buffer_with_shape_and_format"),
],
"an array on its way": [
    M("a mask is lost", ARRAYS, 'if hasattr(array, "filled") and hasattr(array, "mask"):', "if False:", "test_arrays.py::test_what_is_no_array_or_has_pointers_is_refused_and_nothing_is_sent"),
    M("a tensor on a device is read", ARRAYS, "if device[0] not in (1, 3, 11):", "if False:", "test_array_tensors.py::test_a_tensor_that_cannot_be_sent_is_refused"),
    M("an order is lost", ARRAYS, "said.column_major = is_column_major(&self._view)", "pass",
      "test_arrays.py::test_an_order_is_kept"),
    M("a byte order is lost", ARRAYS, "said.swapped = swapped and self._view.itemsize > 1", "said.swapped = False",
      "test_arrays.py::test_every_type_goes_through_in_every_shape"),
    M("what stands before the items is not copied in front of strided ones", "tachyon/_sending.pxi",
      "memcpy(room, payload.head, payload.head_size)", "pass", "test_arrays.py::test_whatever_array_is_sent_comes_out"),
],
}

#include "tachyon/error.hpp"

#include <cerrno>
#include <cstring>

namespace tachyon {

void fail_handshake(int error_number, const std::string& what) {
    throw SetupError(SetupFailure::handshake, error_number, what);
}

void fail_descriptor(int error_number, const std::string& doing) {
    fail_handshake(error_number,
                   doing + ": " + std::strerror(error_number) + "; close some descriptors or raise `ulimit -n`");
}

void fail_memory(int error_number, std::uint64_t bytes, const std::string& doing) {
    throw SetupError(SetupFailure::memory, error_number,
                     "cannot get " + std::to_string(bytes) + " bytes of shared memory (" + doing + ": " +
                         std::strerror(error_number) + "); use a smaller capacity or free some memory");
}

void fail_out_of_memory() {
    throw SetupError(SetupFailure::memory, ENOMEM, "this process has no memory left; free some");
}

}  // namespace tachyon

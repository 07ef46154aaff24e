// Sends frames of 256 float32, each a sine wave, to one consumer in another process.
//
// producer SOCKET [COUNT]
//
// A frame's type_id is its number, modulo 2^32. The amplitude follows from the number: 1, 2, … 8, 1, 2, …

#include <array>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <numbers>
#include <string_view>
#include <system_error>
#include <tachyon/bus.hpp>

namespace {

using tachyon::Status;
using Wave = std::array<float, 256>;

constexpr std::uint32_t kFrameBytes = sizeof(Wave);
constexpr std::uint64_t kRingBytes = 1 << 20;  // a power of two; nearly 1,000 frames

volatile std::sig_atomic_t stop = 0;

void on_signal(int) { stop = 1; }

// Amplitude 1, and four whole periods: the RMS is 1/√2.
Wave make_wave() {
    Wave wave;
    for (std::size_t i = 0; i < wave.size(); ++i) {
        wave[i] = static_cast<float>(std::sin(2 * std::numbers::pi * 4 * static_cast<double>(i) / wave.size()));
    }
    return wave;
}

void write_frame(float* samples, const Wave& wave, std::uint64_t number) {
    const auto amplitude = static_cast<float>(1 + number % 8);
    for (const float value : wave) *samples++ = amplitude * value;
}

// Why no more can be sent; nullptr if that is no failure. With a `default`: later releases append to Status.
const char* failure(Status status) {
    switch (status) {
        case Status::ok:
        case Status::full: return nullptr;
        case Status::peer_closed: return "the consumer has closed";
        case Status::peer_aborted: return "the consumer has given up";
        case Status::peer_dead: return "the consumer has died";
        case Status::corrupt: return "the consumer has damaged the ring";
        default: return "a mistake in this program";
    }
}

int run(const char* path, std::uint64_t count) {
    tachyon::ListenOptions options;
    options.capacities = {kRingBytes};
    const tachyon::Interrupt interrupt{[](void*) { return stop != 0; }};
    std::printf("waiting for a consumer at %s; Ctrl-C ends it\n", path);
    std::fflush(stdout);
    const auto bus = tachyon::Bus::listen(path, options, interrupt);

    const Wave wave = make_wave();
    Status status = Status::ok;
    std::uint64_t sent = 0;
    while (sent < count && stop == 0) {
        std::uint8_t* payload = nullptr;
        status = bus->try_claim(kFrameBytes, payload);
        if (status == Status::full) {
            // Waits for at most 50 ms. Then we look at `stop`, and try again, which tells if the consumer is gone.
            static_cast<void>(bus->wait_writable(kFrameBytes, tachyon::kNever));
            continue;
        }
        if (status != Status::ok) break;
        write_frame(reinterpret_cast<float*>(payload), wave, sent);  // in the ring itself
        status = bus->commit(kFrameBytes, static_cast<std::uint32_t>(sent));
        if (status != Status::ok) break;  // payload is gone now, in any case
        ++sent;
    }
    std::printf("sent %llu frames\n", static_cast<unsigned long long>(sent));
    if (const char* const reason = failure(status)) {
        std::fprintf(stderr, "producer: %s\n", reason);
        return 1;
    }
    return 0;  // closes the bus; the consumer still reads what is in the ring
}

}  // namespace

int main(int argc, char** argv) try {
    std::uint64_t count = UINT64_MAX;
    bool understood = argc == 2 || argc == 3;
    if (argc == 3) {
        const std::string_view text = argv[2];
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
        understood = error == std::errc{} && end == text.data() + text.size();
    }
    if (!understood) {
        std::fprintf(stderr, "usage: producer SOCKET [COUNT]\n");
        return 2;
    }
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
    return run(argv[1], count);
} catch (const tachyon::SetupError& error) {
    std::fprintf(stderr, "producer: %s\n", error.what());
    return 1;
}

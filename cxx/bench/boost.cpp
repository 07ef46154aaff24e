// Boost.Lockfree's queue for each size and capacity of the grid: both are template arguments.
#include <array>
#include <utility>

#include "peers.hpp"
#include "programs.hpp"

namespace bench {
namespace {

#ifdef HAVE_BOOST

constexpr std::array<std::size_t, 8> kSizes = {8, 32, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20};
constexpr std::array<std::size_t, 5> kCapacities = {4 << 10, 64 << 10, 1 << 20, 8 << 20, 256 << 20};

template <std::size_t kIndex>
void offer(const Shape& shape, bool there_and_back, Measure& found) {
    constexpr std::size_t kSize = kSizes[kIndex % kSizes.size()], kCapacity = kCapacities[kIndex / kSizes.size()];
    if constexpr (kSize * 4 <= kCapacity) {
        if (shape.size != kSize || shape.capacity != kCapacity) return;
        using Channel = BoostSpsc<kSize, kCapacity>;
        found = there_and_back ? round_trip<Channel> : one_way<Channel>;
    }
}

template <std::size_t... kIndex>
Measure find(const Shape& shape, bool there_and_back, std::index_sequence<kIndex...>) {
    Measure found = nullptr;
    (offer<kIndex>(shape, there_and_back, found), ...);
    return found;
}

Measure find(const Shape& shape, bool there_and_back) {
    return find(shape, there_and_back, std::make_index_sequence<kSizes.size() * kCapacities.size()>());
}

#else

Measure find(const Shape&, bool) { return nullptr; }

#endif

}  // namespace

Measure boost_one_way(const Shape& shape) { return find(shape, false); }
Measure boost_round_trip(const Shape& shape) { return find(shape, true); }

}  // namespace bench

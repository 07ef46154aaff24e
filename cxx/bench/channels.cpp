// The channels by name, and the loops over them: all channels of one cell in turn, again and again, so that what is compared
// has been measured side by side.
#include "channels.hpp"

#include <cstring>
#include <iterator>
#include <sstream>

#include "kernel_peers.hpp"
#include "limits.hpp"
#include "peers.hpp"
#include "programs.hpp"

namespace bench {
namespace {

const std::vector<Entry>& entries() {
    static const std::vector<Entry> all = {
        entry<Ring>(),
        entry<WholeBus<Wait::spin>>(),
        entry<WholeBus<Wait::block>>(),
        entry<ParkedRing>(),
        {RotatingLines::kName, nullptr, round_trip<RotatingLines>},
        entry<IndexRing<1>>(),
        entry<IndexRing<32>>(),
        entry<PlainCopy>(),
        entry<Stream<Kind::pipe>>(),
        entry<Stream<Kind::socket>>(),
#ifdef HAVE_BOOST
        entry<BoostMessageQueue<true>>(),
        entry<BoostMessageQueue<false>>(),
#endif
#ifdef HAVE_ZMQ
        entry<ZeroMq>(true),
#endif
#ifdef HAVE_NNG
        entry<Nng>(true),
#endif
    };
    return all;
}

Sample in_its_own_process(const std::function<Sample()>& measure) {
    struct Outcome {
        double value;
        Placement placement;
        std::size_t count;
        std::pair<double, double> quantiles[32];
    };
    const Shared memory(sizeof(Outcome));
    auto* const outcome = static_cast<Outcome*>(memory.get());
    std::fflush(stdout);
    const pid_t child = ::fork();
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        const Sample sample = measure();
        outcome->value = sample.value;
        outcome->placement = sample.placement;
        outcome->count = std::min(sample.quantiles.size(), std::size(outcome->quantiles));
        std::copy_n(sample.quantiles.begin(), outcome->count, outcome->quantiles);
        ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (status != 0) {
        std::fprintf(stderr, "a measurement failed: status %x\n", static_cast<unsigned>(status));
        std::exit(1);
    }
    Sample sample{outcome->value, outcome->placement, {}};
    sample.quantiles.assign(outcome->quantiles, outcome->quantiles + outcome->count);
    return sample;
}

struct Found {
    Measure measure = nullptr;
    bool alone = false;
};

Found find(const std::string& channel, bool there_and_back, const Shape& shape) {
    if (channel == "boost") return {there_and_back ? boost_round_trip(shape) : boost_one_way(shape)};
    for (const Entry& entry : entries()) {
        if (channel == entry.name) return {there_and_back ? entry.round_trip : entry.one_way, entry.alone};
    }
    return {};
}

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
    return parts;
}

}  // namespace

// one_way|round_trip CHANNELS SIZES CAPACITIES [REPETITIONS [MILLISECONDS]], lists separated by commas. Cells where a message
// takes more than a quarter of the memory are left out, and channels that this build does not have.
int run_channels(Control& control, const Arguments& arguments) {
    if (arguments.size() < 4) {
        std::fprintf(stderr, "%s: CHANNELS SIZES CAPACITIES [REPETITIONS [MILLISECONDS]]\n", arguments[0].c_str());
        return 2;
    }
    const bool there_and_back = arguments[0] == "round_trip";
    const std::size_t repetitions = number(arguments, 4, 5);
    const std::uint64_t budget = number(arguments, 5, 30) * tachyon::kMillisecond;
    for (const std::string& capacity : split(arguments[3])) {
        for (const std::string& size : split(arguments[2])) {
            const Shape shape{std::stoul(size), std::stoul(capacity)};
            if (shape.size * 4 > shape.capacity) continue;
            for (std::size_t i = 0; i < repetitions; ++i) {
                for (const std::string& channel : split(arguments[1])) {
                    const Found found = find(channel, there_and_back, shape);
                    if (found.measure == nullptr) continue;
                    const auto measure = [&] { return found.measure(control, shape, budget); };
                    print(arguments[0] + ":" + channel, shape, found.alone ? in_its_own_process(measure) : measure());
                }
            }
        }
    }
    return 0;
}

}  // namespace bench

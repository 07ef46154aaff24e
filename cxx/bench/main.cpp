// The C++ side of `make bench`: two pinned processes, next to what they are compared with. Each sample is a line of JSON;
// `python bench` asks for them in turns and makes ratios of them.
//
//   tachyon_bench COMMAND [ARGUMENTS]    without arguments it lists what there is
#include "programs.hpp"

int main(int argc, char** argv) {
    const bench::Arguments arguments(argv + 1, argv + argc);
    if (!arguments.empty() && arguments[0] == "info") {  // with what this was built, and which peers it has
        std::printf(R"({"compiler": "%s", "flags": "%s", "peers": {)", TACHYON_BENCH_COMPILER, TACHYON_BENCH_FLAGS);
        std::printf(R"("boost": "%s", "zeromq": "%s", "nng": "%s"}})", TACHYON_BENCH_BOOST, TACHYON_BENCH_ZMQ,
                    TACHYON_BENCH_NNG);
        std::printf("\n");
        return 0;
    }
    return bench::run(arguments);
}

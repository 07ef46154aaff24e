#include "tachyon/port/inlet.hpp"

namespace tachyon {

Status Inlet::peek(Frame& frame, const Waiting& waiting) {
    struct Next {
        Inlet& inlet;
        Frame& frame;
        [[nodiscard]] Status attempt() const noexcept { return inlet.try_peek(frame); }
        [[nodiscard]] bool look(std::uint64_t looks) const noexcept { return inlet.look_for_frame(looks); }
        [[nodiscard]] std::uint64_t prepare(std::uint64_t until) const noexcept {
            inlet.prepare_for_frame();
            return until;
        }
        [[nodiscard]] Status sleep(std::uint64_t until) const noexcept { return inlet.sleep_for_frame(until); }
        [[nodiscard]] bool unfinished() const noexcept { return inlet.unfinished(); }
    } next{*this, frame};
    return detail::persist(waiting, Status::empty, next);
}

void Inlet::copy_out(void* to, const Frame& frame, const Host& host) {
    if (frame.size < kLargeCopy || !host) {
        std::memcpy(to, frame.payload, frame.size);
    } else {
        (void)host.without([&] { return std::memcpy(to, frame.payload, frame.size); });
    }
}

}  // namespace tachyon

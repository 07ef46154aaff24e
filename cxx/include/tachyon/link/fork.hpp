// Purpose: what a forked child must let go of at once: its copies of our sockets would keep a peer from noticing our end, and
//   two processes at one end of a ring would destroy it.
// Threads: any, for different nodes. Lifetime: a node is in the list as long as it lives; make it the last member of its
//   owner, so that it leaves the list before anything of the owner is destroyed.
// Ordering: none; the list has a lock, which fork takes.
#pragma once

namespace tachyon {

class ForkNode {
  public:
    // In a forked child disown(owner) is called, before fork returns there. It may close descriptors and set flags; another
    // thread of the parent may have been in the middle of using the owner.
    using Disown = void (*)(void* owner) noexcept;
    ForkNode(void* owner, Disown disown);
    ForkNode(const ForkNode&) = delete;
    ForkNode& operator=(const ForkNode&) = delete;
    ~ForkNode();

  private:
    friend struct ForkList;
    void* owner_;
    Disown disown_;
    ForkNode* next_ = nullptr;
    ForkNode* previous_ = nullptr;
};

}  // namespace tachyon

#include "tachyon/link/fork.hpp"

#include <pthread.h>

#include <mutex>

namespace tachyon {

struct ForkList {
    static std::mutex& mutex() {
        static auto* const it = new std::mutex;  // never destroyed: nodes may outlive static destruction
        return *it;
    }
    static ForkNode*& first() {
        static ForkNode* it = nullptr;
        return it;
    }
    static void before() { mutex().lock(); }
    static void after_in_parent() { mutex().unlock(); }
    static void after_in_child() {
        for (const ForkNode* node = first(); node != nullptr; node = node->next_) node->disown_(node->owner_);
        mutex().unlock();
    }
};

ForkNode::ForkNode(void* owner, Disown disown) : owner_(owner), disown_(disown) {
    static const int installed =
        ::pthread_atfork(ForkList::before, ForkList::after_in_parent, ForkList::after_in_child);
    (void)installed;
    const std::lock_guard lock(ForkList::mutex());
    next_ = ForkList::first();
    if (next_ != nullptr) next_->previous_ = this;
    ForkList::first() = this;
}

ForkNode::~ForkNode() {
    const std::lock_guard lock(ForkList::mutex());
    (previous_ != nullptr ? previous_->next_ : ForkList::first()) = next_;
    if (next_ != nullptr) next_->previous_ = previous_;
}

}  // namespace tachyon

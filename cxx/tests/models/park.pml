/* Purpose: sleeping and waking of wait.hpp on a machine with store buffers (x86-TSO), exhaustively. check.sh runs it.
 *
 * A waker publishes ITEMS pieces of work; a sleeper takes them and parks in between. There are no slices: a lost wake is a
 * sleeper that sleeps for ever, which spin reports as an invalid end state.
 *
 * A store goes into its process's buffer and from there, in order, at any later time, into memory. Neither process loads what
 * it has in its own buffer (the waker changes `parked` by a locked exchange only, the sleeper never stores `work`), so loads
 * read memory. Locked instructions and system calls empty the own buffer first. membarrier empties the waker's as well, at one
 * moment between its call and its return.
 *
 * Form:    MEMBARRIER or LOCKED.
 * Mutants: NO_BARRIER, SLEEPER_ONLY (also an unregistered waker), WAKER_ONLY, NO_LOOK, NO_RESET, RESET_LATE. */

#ifndef ITEMS
#define ITEMS 3
#endif

#define WAKER 0
#define SLEEPER 1
#define WORK 0
#define PARKED 1

byte memory[2];
bool asleep;
chan buffer0 = [2] of { bit, byte };
chan buffer1 = [2] of { bit, byte };

inline fence_waker() { empty(buffer0) }
inline fence_sleeper() { empty(buffer1) }

active proctype drain_waker() {
    bit at; byte value;
end:
    do
    :: atomic { buffer0 ? at, value -> memory[at] = value }
    od
}

active proctype drain_sleeper() {
    bit at; byte value;
end:
    do
    :: atomic { buffer1 ? at, value -> memory[at] = value }
    od
}

active proctype waker() {
    byte item = 1;
    byte old;
    do
    :: item <= ITEMS ->
        buffer0 ! WORK, item;                       /* publish */
#if defined(LOCKED) || defined(WAKER_ONLY)
        fence_waker();                              /* wake-barrier */
#endif
        if
        :: memory[PARKED] == 0
        :: else ->
#if defined(NO_RESET)
            fence_waker();
            asleep = false                          /* FUTEX_WAKE */
#elif defined(RESET_LATE)
            fence_waker();
            asleep = false;
            memory[PARKED] = 0
#else
            atomic { empty(buffer0) -> old = memory[PARKED]; memory[PARKED] = 0 };
            if
            :: old != 0 -> asleep = false
            :: else
            fi
#endif
        fi;
        item++
    :: else -> break
    od
}

active proctype sleeper() {
    byte taken = 0;
    bit at; byte value;
    do
    :: taken == ITEMS -> break
    :: taken != ITEMS ->
        if
        :: memory[WORK] != taken -> taken = memory[WORK]
        :: else ->
            buffer1 ! PARKED, 1;
#if defined(MEMBARRIER)
            fence_sleeper();
            atomic {                                /* the interrupt that every running thread of the peer takes */
                do
                :: buffer0 ? at, value -> memory[at] = value
                :: empty(buffer0) -> break
                od
            };
#elif defined(LOCKED) || defined(SLEEPER_ONLY)
            fence_sleeper();                        /* park-barrier */
#endif
#if defined(NO_LOOK)
            if
            :: true ->
#else
            if
            :: memory[WORK] != taken
            :: else ->
#endif
                /* FUTEX_WAIT: compares and goes to sleep as one step, after emptying the own buffer. */
                atomic {
                    empty(buffer1) ->
                    if
                    :: memory[PARKED] == 1 -> asleep = true
                    :: else
                    fi
                };
                !asleep
            fi;
            buffer1 ! PARKED, 0
        fi
    od
}

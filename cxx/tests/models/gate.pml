/* Purpose: coming, going and closing of host/gate.hpp on a machine with store buffers (x86-TSO), exhaustively. check.sh runs it.
 *
 * Two free users come, use the bus and go; the first may keep a frame, and give it back in a second call. A locked user does the
 * same under the lock, lets go of the lock while it is inside (a wait), and may keep a guard, which it ends without coming in. A
 * closer asks to close under the lock. At last somebody with the lock looks whether the memory can go. They do all that in any
 * order and beside each other. Checked:
 *   - nobody uses the bus, or what is kept of it, while it is being closed by another, or after its memory went;
 *   - in the end it has been closed, once, and its memory is gone.
 *
 * Left out: two users who come in at one time. That such a second user is found is not promised (`door` keeps them apart until
 * the store of the first has arrived). One may come in while another one is still on its way out.
 *
 * A store goes into its process's buffer and from there, in order, at any later time, into memory. Nobody loads what it has in
 * its own buffer, so loads read memory. Locks and locked instructions empty the own buffer first. The heavy barrier of the
 * membarrier form empties everybody's, one after the other.
 *
 * Form:    MEMBARRIER or LOCKED.
 * Mutants: NO_LIGHT, NO_HEAVY, ENTER_LOOKS_FIRST, LEAVE_LOOKS_FIRST, NO_LOOK_BEHIND, LOOKS_BEHIND_UNFENCED, NO_EXCHANGE,
 *          LOCKED_COMES_IN, BESIDE_GUARD, HELD_MAY_GO, CLOSING_IS_CLOSED. */

#define A_FREE_USER 0 /* and 1 */
#define THE_LOCKED_USER 2
#define THE_CLOSER 3

#define INSIDE 0
#define CLOSING 1
#define CLOSED 2 /* 0, 1: somebody is at it, 2 */
#define HELD 3   /* by free code; counts as a guard too */
#define GUARDS 4 /* of locked users */

byte memory[5];
chan buffer[4] = [4] of { byte, byte };

bool lock;  /* the host's */
bool door;  /* somebody has looked and come in, and its store has not arrived */
/* What really happens, seen from nowhere. */
byte using;
bool kept;
bool being_closed, was_closed, gone;
byte ended;

#define fence(me) empty(buffer[me])

inline store(me, at, value) { buffer[me] ! at, value }

inline drain(whose) {
    atomic {
        do
        :: buffer[whose] ? at, value -> arrive()
        :: empty(buffer[whose]) -> break
        od
    }
}

inline arrive() {
    memory[at] = value;
    if
    :: at == INSIDE && value != 0 -> door = false
    :: else
    fi
}

active [4] proctype drainer() {
    byte at, value;
end:
    do
    :: atomic { buffer[_pid] ? at, value -> arrive() }
    od
}

inline light_barrier(me) {
#if defined(LOCKED) && !defined(NO_LIGHT)
    fence(me)
#else
    skip
#endif
}

inline heavy_barrier(me) {
#if !defined(NO_HEAVY)
    fence(me);
#if defined(MEMBARRIER)
    drain(0);
    drain(1);
    drain(2);
    drain(3)
#endif
#else
    skip
#endif
}

inline take_lock(me) { atomic { !lock && empty(buffer[me]) -> lock = true } }
inline give_lock(me) { atomic { empty(buffer[me]) -> lock = false } }

inline use() {
    atomic { assert(!being_closed && !gone); using++ };
    atomic { assert(!being_closed && !gone); using-- }
}

/* ---- closing ---- */

inline begin_closing(me, free) {
    won = false;
    if
    :: memory[CLOSED] != 0
    :: else ->
#if defined(LOOKS_BEHIND_UNFENCED)
        if
        :: free -> fence(me)
        :: else -> heavy_barrier(me)
        fi;
#else
        heavy_barrier(me);
#endif
        if
#if defined(NO_LOOK_BEHIND)
        :: !free && memory[INSIDE] != 0
#else
        :: memory[INSIDE] != 0
#endif
        :: else ->
#if defined(NO_EXCHANGE)
            if
            :: memory[CLOSED] == 0 -> won = true; store(me, CLOSED, 1)
            :: else
            fi
#else
            atomic {
                empty(buffer[me]);
                if
                :: memory[CLOSED] == 0 -> memory[CLOSED] = 1; won = true
                :: else
                fi
            }
#endif
        fi
    fi
}

inline close_bus(me) {
    atomic { assert(using == 0 && !being_closed && !was_closed && !gone); being_closed = true };
    atomic { being_closed = false; was_closed = true };
    store(me, CLOSED, 2)
}

inline close_freely(me) {
    if
#if !defined(BESIDE_GUARD)
    :: memory[GUARDS] != 0
#endif
    :: else ->
        begin_closing(me, true);
        if
        :: won -> close_bus(me)
        :: else
        fi
    fi
}

inline finish_close(me) {
    begin_closing(me, false);
    if
    :: won -> close_bus(me)
    :: else
    fi;
    fence(me);
    if
#if defined(CLOSING_IS_CLOSED)
    :: memory[CLOSED] != 0 &&
#else
    :: memory[CLOSED] == 2 &&
#endif
#if !defined(HELD_MAY_GO)
       memory[HELD] == 0 &&
#endif
       memory[GUARDS] == 0 && memory[INSIDE] == 0 && !gone ->
        atomic { assert(using == 0 && !being_closed && !kept); gone = true }
    :: else
    fi
}

/* ---- free users ---- */

/* `in`: inside. `over`: turned away because it is being closed. */
inline enter_free(me) {
    in = false;
    over = false;
#if defined(ENTER_LOOKS_FIRST)
    over = memory[CLOSING] != 0;
#endif
    atomic {
        !door;
        if
        :: memory[INSIDE] == 0 && memory[GUARDS] == 0 -> in = true; door = true; store(me, INSIDE, me + 1)
        :: else
        fi
    };
    if
    :: in ->
        light_barrier(me);
#if !defined(ENTER_LOOKS_FIRST)
        over = memory[CLOSING] != 0;
#endif
        if
        :: over -> in = false; store(me, INSIDE, 0); close_freely(me)
        :: else
        fi
    :: else -> over = memory[CLOSING] != 0
    fi
}

inline leave_free(me) {
#if defined(LEAVE_LOOKS_FIRST)
    over = memory[CLOSING] != 0;
    store(me, INSIDE, 0);
#else
    store(me, INSIDE, 0);
    light_barrier(me);
    over = memory[CLOSING] != 0;
#endif
    if
    :: over -> close_freely(me)
    :: else
    fi
}

active [2] proctype free_user() {
    byte me = _pid - 4;
    byte at, value;
    bool in, over, won, keeps;
    enter_free(me);
    if
    :: in ->
        use();
        if
        :: me == 0 -> keeps = true; kept = true; store(me, HELD, 1)
        :: true
        fi;
        leave_free(me)
    :: else
    fi;
    do
    :: keeps ->
        assert(!gone);
        enter_free(me);
        if
        :: in -> use(); kept = false; keeps = false; store(me, HELD, 0); leave_free(me)
        :: !in && over -> kept = false; keeps = false; store(me, HELD, 0)
        :: else
        fi
    :: else -> break
    od;
    fence(me);
    ended++
}

/* ---- with the lock ---- */

inline leave_locked() {
#if defined(LEAVE_LOOKS_FIRST)
    over = memory[CLOSING] != 0;
    store(THE_LOCKED_USER, INSIDE, 0);
#else
    store(THE_LOCKED_USER, INSIDE, 0);
    light_barrier(THE_LOCKED_USER);
    over = memory[CLOSING] != 0;
#endif
    if
    :: over -> finish_close(THE_LOCKED_USER)
    :: else
    fi
}

active proctype locked_user() {
    byte at, value;
    bool in, over, won, keeps;
    take_lock(THE_LOCKED_USER);
    atomic {
        !door;
        if
        :: !gone && memory[INSIDE] == 0 &&
#if !defined(LOCKED_COMES_IN)
           (memory[CLOSING] == 0 || memory[CLOSED] == 2) &&
#endif
           memory[HELD] == 0 ->
            in = true;
            door = true;
            store(THE_LOCKED_USER, INSIDE, THE_LOCKED_USER + 1)
        :: else
        fi
    };
    if
    :: in ->
        use();
        if
        :: memory[CLOSING] == 0 ->
            give_lock(THE_LOCKED_USER);
            use();
            take_lock(THE_LOCKED_USER)
        :: true
        fi;
        if
        :: memory[CLOSING] == 0 -> keeps = true; store(THE_LOCKED_USER, GUARDS, 1)
        :: true
        fi;
        leave_locked()
    :: else
    fi;
    give_lock(THE_LOCKED_USER);
    if
    :: keeps ->
        take_lock(THE_LOCKED_USER);
        use();  /* what is received is released without coming in */
        store(THE_LOCKED_USER, GUARDS, 0);
        fence(THE_LOCKED_USER);
        if
        :: memory[CLOSING] != 0 -> finish_close(THE_LOCKED_USER)
        :: else
        fi;
        give_lock(THE_LOCKED_USER)
    :: else
    fi;
    ended++
}

active proctype closer() {
    byte at, value;
    bool won;
    take_lock(THE_CLOSER);
    store(THE_CLOSER, CLOSING, 1);
    finish_close(THE_CLOSER);
    give_lock(THE_CLOSER);
    ended == 3;
    /* Nobody is left: the next call with the lock, or the end of the handle. */
    take_lock(THE_CLOSER);
    assert(was_closed && memory[CLOSED] == 2);
    finish_close(THE_CLOSER);
    assert(gone);
    give_lock(THE_CLOSER)
}

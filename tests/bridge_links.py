"""A link within this process: it delays, drops, repeats, reorders, and can be cut; gateways over it."""

from __future__ import annotations

import fnmatch
import queue
import random
import threading
import time

import pytest

from tachyon.bridge._gateway import Gateway


class Network:
    """What several MemoryLinks share. Change its attributes while it runs."""

    def __init__(self, seed=0):
        self.lock = threading.RLock()
        self.chance = random.Random(seed)
        self.delay = 0.0  # seconds, of each sample
        self.drop = 0.0  # share of samples
        self.repeat = 0.0
        self.reorder = 0.0  # share of samples that come up to 5 ms late
        self.is_cut = False
        self.samples = 0
        self.links = []
        self.tokens = set()  # (link, key)

    def link(self):
        return MemoryLink(self)

    def matches(self, pattern, key):
        return pattern.count("/") == key.count("/") and fnmatch.fnmatchcase(key, pattern)

    def cut(self):
        """Nothing goes through, what is under way is lost, and everybody sees the others go."""
        with self.lock:
            self.is_cut = True
            for link in self.links:
                link.forget()
            for owner, key in self.tokens:
                self.tell(key, False, but=owner)

    def mend(self):
        with self.lock:
            self.is_cut = False
            for owner, key in self.tokens:
                self.tell(key, True, but=owner)

    def tell(self, key, present, but=None):
        for link in self.links:
            if link is not but:
                for pattern, callback in link.watchers:
                    if self.matches(pattern, key):
                        link.later(0.0, callback, key, present)

    def send(self, sender, key, sample):
        with self.lock:
            self.samples += 1
            if self.is_cut or self.chance.random() < self.drop:
                return
            for _ in range(1 + (self.chance.random() < self.repeat)):
                late = self.chance.random() * 0.005 if self.chance.random() < self.reorder else 0.0
                for link in self.links:
                    if link is not sender:
                        for pattern, callback in link.subscribers:
                            if self.matches(pattern, key):
                                link.later(self.delay + late, callback, key, sample)


class MemoryLink:
    """A Link, with one thread that calls back."""

    def __init__(self, network):
        self.network = network
        self.subscribers = []
        self.watchers = []
        self.events = queue.PriorityQueue()
        self.count = 0
        self.closed = False
        network.links.append(self)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def later(self, delay, callback, key, what):
        self.count += 1
        self.events.put((time.monotonic() + delay, self.count, callback, key, what))

    def forget(self):
        """What is under way is lost; what was told of presence is not."""
        kept = []
        while True:
            try:
                event = self.events.get_nowait()
            except queue.Empty:
                break
            if isinstance(event[4], bool):
                kept.append(event)
        for event in kept:
            self.events.put(event)

    def run(self):
        while not self.closed:
            try:
                event = self.events.get(timeout=0.1)
            except queue.Empty:
                continue
            if (left := event[0] - time.monotonic()) > 0:
                self.events.put(event)
                time.sleep(min(left, 0.001))
                continue
            event[2](event[3], event[4])

    def open(self):
        return True

    def publish(self, key, *, urgent=False):
        def put(sample):
            assert isinstance(sample, bytes)
            if self.closed:
                raise OSError("this link is closed")
            self.network.send(self, key, sample)

        return put, lambda: None

    def _listed(self, entries, entry):
        with self.network.lock:
            entries.append(entry)

        def undo():
            with self.network.lock:
                if entry in entries:
                    entries.remove(entry)

        return undo

    def subscribe(self, key, on_sample):
        return self._listed(self.subscribers, (key, on_sample))

    def announce(self, key):
        network = self.network
        with network.lock:
            network.tokens.add((self, key))
            if not network.is_cut:
                network.tell(key, True, but=self)

        def undo():
            with network.lock:
                if (self, key) in network.tokens:
                    network.tokens.discard((self, key))
                    if not network.is_cut:
                        network.tell(key, False, but=self)

        return undo

    def watch(self, key, on_presence):
        with self.network.lock:
            undo = self._listed(self.watchers, (key, on_presence))
            if not self.network.is_cut:
                for owner, token in self.network.tokens:
                    if owner is not self and self.network.matches(key, token):
                        self.later(0.0, on_presence, token, True)
        return undo

    def close(self):
        """As a process that dies: its tokens go."""
        self.closed = True
        with self.network.lock:
            if self in self.network.links:
                self.network.links.remove(self)
            for owner, key in list(self.network.tokens):
                if owner is self:
                    self.network.tokens.discard((owner, key))
                    if not self.network.is_cut:
                        self.network.tell(key, False, but=self)


@pytest.fixture
def network():
    return Network(seed=1)


@pytest.fixture
def gateways(network):
    """gateways(**options) → (exporting, importing)"""
    made = []

    def make(**options):
        options = {"window": 1 << 16, "grace": 1.0, **options}
        pair = [Gateway(link=network.link(), **options) for _ in range(2)]
        made.extend(pair)
        return pair

    yield make
    for each in made:
        each.close()

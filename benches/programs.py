#!/usr/bin/env python3
"""Builds of popgate compared: what they take of the processor and of memory for the same work, by `peer` and
`growth`.

    python3 benches/programs.py NAME=PROGRAM …

Each is measured in turn, twice. An allocator is compared by a program that is a script of two lines:

    #!/bin/sh
    LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2 exec target/release/popgate "$@"

Processor time is counted in hundredths of a second, so each row is done ten times, and the mean is what counts.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

RUNS = 2
ROWS = {
    "large/processor": "RETR 5 × 50 MB near, s/GB",
    "many/alternating/processor": "RETR 2,000 × 20 KB near, one by one, s/1000",
    "many/pipelined/processor": "the same, 64 in flight, s/1000",
    "poll-near/processor": "poll of 200 near, warm, s/1000",
    "growth": "4 × RETR 50 MB at once, memory grows by, MB",
    "no TLS": "memory a session, 2,000 idle, no TLS, KB",
    "TLS on both sides": "the same, TLS on both sides, KB",
}


def bench(program, name, *arguments):
    environment = os.environ | {"TESTED_PROGRAM": os.path.abspath(program)}
    command = ["cargo", "bench", "--locked", "--bench", name, "--", *arguments]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(program):
    """The mean of each row."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        rows = "large,many,poll-near,growth"
        bench(program, "peer", "--targets", "popgate", "--rows", rows, "--repeat", "5", "--json", file.name)
        figures = {figure["key"]: figure for figure in json.load(file)["figures"]}
    means = {row: statistics.mean(figures[row]["targets"]["popgate"]["samples"]) for row in ROWS if row in figures}
    # Of a new process: one that has worked before has room, by chance more or less.
    sessions = bench(program, "growth", "--messages", "100", "--sessions", "2000")
    return means | {kind: float(each) for kind, each in re.findall(r" 2000  sessions, (.*): ([0-9.]+) KB each", sessions)}


programs = dict(argument.split("=", 1) for argument in sys.argv[1:])
samples = {name: [] for name in programs}
for run in range(RUNS):
    for name in [*programs][run:] + [*programs][:run]:
        samples[name].append(measure(programs[name]))
        print(name, samples[name][-1], file=sys.stderr)
print("| what |", " | ".join(programs), "|")
print("|---|" + "---|" * len(programs))
for row, words in ROWS.items():
    cells = (f"{statistics.mean(means[row] for means in samples[name]):.3g}" for name in programs)
    print(f"| {words} |", " | ".join(cells), "|")

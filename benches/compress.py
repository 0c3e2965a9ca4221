#!/usr/bin/env python3
"""What COMPRESS=DEFLATE (RFC 4978) would save where a mailbox is listed, and what it would cost.

The octets are those that Dovecot answers popgate's commands with; sizes are drawn as mail has them, half of it under 10 KB
and a tenth over 100 KB, and one message in five is gone where it says so. One round trip is lost, because nothing may be
sent until the answer to COMPRESS is there. It pays on lines slower than the last column.
"""

import base64
import math
import random
import time
import zlib

ROUND_TRIP = 0.050


def rows(messages, number=1):
    numbered = enumerate(messages, number)
    lines = (b"* %d FETCH (UID %d RFC822.SIZE %d)\r\n" % (number, *message) for number, message in numbered)
    return b"".join(lines) + b"A0003 OK Fetch completed (0.001 + 0.000 secs).\r\n"


def search(messages):
    return b"* SEARCH " + b" ".join(b"%d" % uid for uid, _ in messages) + b"\r\nA0003 OK Search completed.\r\n"


def esearch(messages):
    ranges = []
    for uid, _ in messages:
        if ranges and ranges[-1][1] + 1 == uid:
            ranges[-1][1] = uid
        else:
            ranges.append([uid, uid])
    ranges = b",".join(b"%d" % first if first == last else b"%d:%d" % (first, last) for first, last in ranges)
    return b'* ESEARCH (TAG "A0003") UID ALL ' + ranges + b"\r\nA0003 OK Search completed.\r\n"


def timed(work):
    """The result, and the least processor time of five."""
    times = []
    for _ in range(5):
        begun = time.process_time()
        result = work()
        times.append(time.process_time() - begun)
    return result, min(times)


def report(what, octets):
    for level in (1, 6):
        def deflate():
            stream = zlib.compressobj(level, zlib.DEFLATED, -15)
            return stream.compress(octets) + stream.flush(zlib.Z_SYNC_FLUSH)

        small, there = timed(deflate)
        back, here = timed(lambda: zlib.decompressobj(-15).decompress(small))
        assert back == octets
        saved = 8 * (len(octets) - len(small)) / (ROUND_TRIP + there + here)
        print(
            f"| {what} | {level} | {len(octets):,} | {len(small):,} | {len(octets) / len(small):.2f} "
            f"| {there * 1e3:.2f} | {here * 1e3:.2f} | {max(saved, 0) / 1e6:.2f} |"
        )


random.seed(1)
sizes = [int(min(50e6, max(400, random.lognormvariate(math.log(10_000), 1.8)))) for _ in range(100_000)]
whole = list(enumerate(sizes, 1))
gone = set(random.sample(range(1, len(whole) + 1), len(whole) // 5))
gaps = [message for message in whole if message[0] not in gone]
print("| what | level | octets | deflated | ratio | deflating, ms | inflating, ms | pays below, Mbit/s |")
print("|---|---|---|---|---|---|---|---|")
for count in (100_000, 10_000, 1_000, 200):
    report(f"rows of {count:,} messages", rows(whole[:count]))
report("rows of 80,000, with gaps", rows(gaps))
report("SEARCH of 80,000, with gaps", search(gaps))
report("ESEARCH of 80,000, with gaps", esearch(gaps))
report("the last row alone", rows(whole[-1:], len(whole)))
report("a message of 50 MB in base64", base64.encodebytes(random.randbytes(37_000_000)).replace(b"\n", b"\r\n"))

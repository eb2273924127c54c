"""The command: as many damaged files as wanted, over all readers."""

from __future__ import annotations

import argparse
import math
import sys
import time
import zlib
from collections import Counter

from tests.fuzz.hunt import CORPUS, hunt
from tests.fuzz.readers import READERS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="damaged files, over all readers")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=sorted(READERS), action="append", help="only this one; may be repeated")
    parser.add_argument("--keep", action="store_true", help="put what finds something into the corpus")
    options = parser.parse_args()
    chosen = [READERS[name] for name in options.reader or READERS]
    shares = sum(reader.share for reader in chosen)
    counts = {reader.name: max(1, round(options.count * reader.share / shares)) for reader in chosen}
    start, failed, tried, found = time.monotonic(), Counter(), Counter(), set()
    for finding in hunt(counts, options.seed, seconds=60 * options.minutes, tried=tried):
        failed[finding.reader] += 1
        if (finding.reader, finding.what[:60]) not in found:
            found.add((finding.reader, finding.what[:60]))
            print(f"  {finding.reader} {options.seed}/{finding.number}: {finding.what}", flush=True)
            if options.keep:
                (CORPUS / finding.reader).mkdir(parents=True, exist_ok=True)
                (CORPUS / finding.reader / f"{zlib.crc32(finding.content):08x}").write_bytes(finding.content)
    for name in counts:
        print(f"{name:<14} {tried[name]:>6} tried, {failed[name]:>4} failed")
    print(f"{sum(tried.values())} tried, {sum(failed.values())} failed, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

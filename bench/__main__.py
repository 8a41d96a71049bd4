"""``python -m bench [--report] [NAME ...]``: measures what costs time, memory or bytes, one line per figure.

A line is ``name value unit``. A value is the median of several runs. A ratio comes from runs that took turns, so that
what else the machine does falls on both sides. ``--report`` writes docs/performance.md.
"""

import argparse
import logging
import time

from bench import aws_auth, boot, fleet, people, preview, report, user_data
from bench.measure import Results

BENCHES = {
    "preview": preview,
    "fleet": fleet,
    "aws-auth": aws_auth,
    "boot": boot,
    "people": people,
    "user-data": user_data,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the project, one line per figure.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--report", action="store_true", help="write docs/performance.md and its plots")
    parser.add_argument("--remark", default="", help="a sentence for the report")
    args = parser.parse_args()
    if wrong := set(args.names) - set(BENCHES):
        parser.error(f"there is no benchmark {', '.join(sorted(wrong))}; there are: {', '.join(BENCHES)}")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # each request to the emulated account
    began, results = time.monotonic(), Results()
    for name in args.names or BENCHES:
        BENCHES[name].measure(results)
    results.add("bench.took", (time.monotonic() - began) / 60, "min", most=10)
    if args.report:
        report.write(results, args.remark)


if __name__ == "__main__":
    main()

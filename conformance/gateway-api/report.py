"""Results of runs of the Gateway API's suite: report.py PASSED LOG...

Compares what passed with the list PASSED: both ways, nothing may differ. Tests of features that were not asked for are
skipped by the suite, and count as not passed.
"""

import re
import sys


def results(log):
    """The result of each test of the suite, and what failed within."""
    found, failed = {}, []
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = re.match(r"\s+--- (PASS|FAIL|SKIP): TestConformance/(\S+) \(", line)
            if match and "/" not in match[2]:
                found[match[2]] = match[1]
            elif match and match[1] == "FAIL":
                failed.append(match[2])
    return found, failed


def main():
    passed_file, *logs = sys.argv[1:]
    with open(passed_file, encoding="utf-8") as lines:
        expected = set(lines.read().split())
    passed, wrong = set(), []
    for log in logs:
        found, failed = results(log)
        if not found:
            wrong.append(f"{log}: no test ran")
            with open(log, encoding="utf-8", errors="replace") as lines:
                wrong += [line.rstrip()[:300] for line in lines.readlines()[-20:]]
        passed |= {name for name, result in found.items() if result == "PASS"}
        wrong += [f"{name} (failed)" for name, result in sorted(found.items()) if result == "FAIL"]
        wrong += [f"{name} (failed)" for name in failed]
    wrong += [f"{name} (did not pass)" for name in sorted(expected - passed)]
    wrong += [f"{name} (not in the list)" for name in sorted(passed - expected)]
    for text in wrong:
        print(f"gateway-api: {text}")
    print(f"gateway-api: {len(passed)} tests pass")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

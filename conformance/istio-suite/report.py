"""Results of a run of Istio's suite, by group: report.py LOG PASSED PATTERN

With the default pattern, compares what passed with the list PASSED: both ways, nothing may differ.
"""

import collections
import re
import sys

DEFAULT = "TestTraffic/virtualservice$"


def plain(name):
    """A test's name without what differs from run to run."""
    return re.sub(r"(echo|external)-\d+(-\d+)?", r"\1-N", name)


def main():
    log, passed_file, pattern = sys.argv[1:]
    found, reasons = {}, []
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = re.match(r"\s*--- (PASS|FAIL|SKIP): (\S+)", line)
            if match:
                found[plain(match[2])] = match[1]
            elif re.match(r"\s+\w+\.go:\d+: (?!https)", line):
                reasons.append(line.strip()[:400])
    groups = collections.defaultdict(collections.Counter)
    for name, result in found.items():
        # Tests that hold others say nothing of their own.
        if not any(other.startswith(name + "/") for other in found):
            groups["/".join(name.split("/")[:2])][result] += 1
    for group, counts in sorted(groups.items()):
        print(f"{group}: " + ", ".join(f"{count} {result.lower()}" for result, count in sorted(counts.items())))
    if not found:
        print("istio-suite: no test ran")
        return 1
    wrong = [name for name, result in sorted(found.items()) if result == "FAIL"]
    if pattern == DEFAULT:
        with open(passed_file, encoding="utf-8") as lines:
            expected = set(lines.read().split())
        passed = {name for name, result in found.items() if result == "PASS"}
        wrong += [f"{name} (did not pass)" for name in sorted(expected - passed)]
        wrong += [f"{name} (not in the list)" for name in sorted(passed - expected)]
    for text in reasons + wrong if wrong else []:
        print(f"istio-suite: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

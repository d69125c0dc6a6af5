"""`make audit`: what is known about vulnerabilities of the versions that development runs with.

Those of constraints-oldest.txt are old on purpose, and not asked about. Exit status 1 where a vulnerability is known; 0
where none is, and where no database can be reached, which a line then says.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = ("constraints.txt", "constraints-audit.txt")
SERVICES = ("pypi", "osv")
PATIENCE = 300  # seconds for all versions of a file


def main() -> int:
    return max(tell(name, *first_answer(ROOT / name)) for name in FILES)


def first_answer(constraints: Path) -> tuple[list[dict], str]:
    """What the first database that can be reached says of each version, or why none can."""
    reasons = []
    for service in SERVICES:
        answers, reason = ask(service, constraints)
        if any("vulns" in answer for answer in answers):
            return answers, ""
        reasons.append(f"{service}: {reason or 'it knows none of the versions'}")
    return [], "; ".join(reasons)


def ask(service: str, constraints: Path) -> tuple[list[dict], str]:
    """What pip-audit was told of each version: `vulns`, or why it was told nothing; else why it could not ask."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(constraints), "--no-deps", "--disable-pip"]
    options = ["--vulnerability-service", service, "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, encoding="utf-8", timeout=PATIENCE)
        return json.loads(done.stdout)["dependencies"], ""
    except subprocess.TimeoutExpired:
        return [], f"no answer in {PATIENCE} s"
    except ValueError:
        return [], textwrap.shorten((done.stderr.strip().splitlines() or ["no answer"])[-1], 100)


def tell(name: str, answers: list[dict], reason: str) -> int:
    """Print what was found out about the versions in a file; the exit status."""
    if not answers:
        print(f"{name}: no database of vulnerabilities can be reached, so nothing is known ({reason})")
        return 0
    found = [(answer, problem) for answer in answers for problem in answer.get("vulns", ())]
    for answer, problem in found:
        mended = f"mended in {', '.join(problem['fix_versions'])}" if problem["fix_versions"] else "not mended yet"
        print(f"{name}: {answer['name']} {answer['version']} has {problem['id']} ({mended})")
    unknown = [answer["name"] for answer in answers if "vulns" not in answer]
    missing = f"; {', '.join(unknown)} could not be looked up" if unknown else ""
    print(f"{name}: {len(found)} known vulnerabilities in {len(answers) - len(unknown)} versions{missing}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python3 go.py mutants [--json] [ID ...]`: what each check rejects, and with which sentence."""

import argparse
import json
import sys

from minim1.course.checks import exercises
from minim1.errors import UserError
from tests.mutants import summary, verdicts


def main() -> None:
    parser = argparse.ArgumentParser(prog="go.py mutants", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help="exercises such as 4.2; default: all")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for exercise_id, found in verdicts(arguments.ids or list(exercises())):
        rows.append(summary(exercise_id, found))
        if not arguments.json:
            show(rows[-1])
    if arguments.json:
        print(json.dumps({"exercises": rows}, ensure_ascii=False))
        return
    killed, total = (sum(row[key] for row in rows) for key in ("killed", "mutants"))
    print(f"in all: {killed} of {total} rejected ({killed / max(total, 1):.1%})")


def show(row: dict) -> None:
    print(f"{row['id']}: {row['killed']} of {row['mutants']} rejected")
    for name, sentence in row["sentences"].items():
        print(f"  ✗ {name}\n      {sentence}")
    for survivor in row["survivors"]:
        print(f"  SURVIVES {survivor['name']}: {survivor['argued'] or 'no argument given'}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"go.py: {error}", file=sys.stderr)
        sys.exit(2)

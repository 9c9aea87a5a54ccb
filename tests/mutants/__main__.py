"""`python3 go.py mutants [--json] [--cards] [ID ...]`: what each check rejects, and with which sentence."""

import argparse
import json
import sys

from minim1.course.checks import exercises
from minim1.errors import UserError
from tests.mutants import on_the_cards, summary, verdicts


def main() -> None:
    parser = argparse.ArgumentParser(prog="go.py mutants", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help="exercises such as 4.2; default: all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cards", action="store_true", help="those written from the exercise cards alone, right ones too")
    arguments = parser.parse_args()
    ids, rows = arguments.ids or list(exercises()), []
    for row in map(on_the_cards, ids) if arguments.cards else (summary(*verdict) for verdict in verdicts(ids)):
        rows.append(row)
        if not arguments.json:
            show(row)
    if arguments.json:
        print(json.dumps({"exercises": rows}, ensure_ascii=False))
        return
    killed, total = (sum(row[key] for row in rows) for key in ("killed", "mutants"))
    print(f"in all: {killed} of {total} rejected ({killed / max(total, 1):.1%})")


def show(row: dict) -> None:
    right = f", {row['right'] - len(row['right_rejected'])} of {row['right']} right ones accepted" if "right" in row else ""
    print(f"{row['id']}: {row['killed']} of {row['mutants']} rejected{right}")
    for name, sentence in row.get("sentences", {}).items():
        print(f"  ✗ {name}\n      {sentence}")
    for survivor in row["survivors"]:
        print(f"  SURVIVES {survivor['name']}" + (f": {survivor['argued']}" if survivor["argued"] else ""))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"go.py: {error}", file=sys.stderr)
        sys.exit(2)

"""The command line: adds, lists, shows and checks models."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from models.catalog import Catalog, Feature, Manifest, ModelsError

ARTIFACTS = Path(__file__).parent / "artifacts"
EPILOG = """\
examples:
  python -m models add model_file.p --name rent --sample rows.csv --target price
  python -m models show rent
  python -m models check

A pickle runs code when it is loaded: add only files whose origin you trust.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 is success, 1 an error that was printed."""
    options = build_parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except ModelsError as error:
        print(f"error: {error}", file=sys.stderr)
        # What was shown to clients must not hold an exception's text; here it is for the one who added the file.
        if error.__cause__ is not None and str(error.__cause__) not in str(error):
            print(f"  ({type(error.__cause__).__name__}: {error.__cause__})", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m models",
        description="The models that can be predicted with.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--models-path", type=Path, default=ARTIFACTS, metavar="DIR", help="default: %(default)s")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _define_add(commands.add_parser("add", parents=[shared], help="make a fitted estimator servable"))
    listing = commands.add_parser("list", parents=[shared], help="list all versions of all models")
    listing.set_defaults(command=list_models)
    show = commands.add_parser("show", parents=[shared], help="print what is known of a model")
    show.add_argument("model", metavar="NAME[@VERSION]")
    show.set_defaults(command=show_model)
    check = commands.add_parser("check", parents=[shared], help="verify every digest and load every model")
    check.set_defaults(command=check_models)
    return parser


def _define_add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Takes a pickle or joblib file of a fitted estimator, or of {'model': estimator}, finds out what it takes and "
        "gives by predicting a few rows, and copies it into the models folder. Restart the servers to serve it."
    )
    parser.add_argument("file", type=Path, help="the pickle or joblib file")
    parser.add_argument("--name", required=True, help="the name to serve it under")
    parser.add_argument(
        "--sample", type=Path, metavar="CSV", help="some rows with a header: needed for text columns, tells the ranges"
    )
    parser.add_argument("--version", help="default: the next free number")
    parser.add_argument("--target", default="prediction", help="what it predicts (default: %(default)s)")
    parser.add_argument("--description", default="", help="one sentence on what it is for")
    parser.set_defaults(command=add_model)


def add_model(options: argparse.Namespace) -> int:
    """Adds a file and prints what was found in it."""
    # Here and in check_models: scikit-learn takes a second to import, and list and show do without.
    from models import add, sample  # noqa: PLC0415

    try:
        artifact = options.file.read_bytes()
    except OSError as error:
        raise ModelsError(f"The file {options.file} cannot be read.") from error
    added = add.add(
        options.models_path,
        options.name,
        artifact,
        version=options.version,
        sample=sample.read(options.sample) if options.sample else None,
        target=options.target,
        description=options.description,
    )
    print(f"Added {added.manifest.name}@{added.manifest.version} ({len(artifact):,} bytes).\n")
    print(describe(added.manifest))
    body = json.dumps({"input": added.example}, ensure_ascii=False)
    print("\nRestart the servers, then try it:\n")
    print(f"curl 'http://localhost:8080/predict?model={added.manifest.name}' \\")
    print(f"  -H 'Content-Type: application/json' -d {shlex.quote(body)}")
    return 0


def list_models(options: argparse.Namespace) -> int:
    """Prints one line for each version."""
    catalog = Catalog.read(options.models_path, "")
    for manifest in catalog.manifests:
        reference = f"{manifest.name}@{manifest.version}"
        count = len(manifest.features)
        features = f"{count:>3} {'feature' if count == 1 else 'features'}"
        print(f"{reference:<24} {manifest.task:<18} {features:<13} -> {manifest.target}")
    return 0


def show_model(options: argparse.Namespace) -> int:
    """Prints a manifest."""
    print(json.dumps(Catalog.read(options.models_path, "").find(options.model).to_json(), indent=2, ensure_ascii=False))
    return 0


def check_models(options: argparse.Namespace) -> int:
    """Loads every model as a worker would; 1 when one of them cannot be loaded."""
    from models.loading import CannotLoad, load  # noqa: PLC0415

    bad = 0
    for manifest in Catalog.read(options.models_path, "").manifests:
        reference = f"{manifest.name}@{manifest.version}"
        try:
            load(options.models_path, manifest.name, manifest.version, manifest.sha256)
            print(f"ok   {reference}")
        except CannotLoad as error:
            bad += 1
            print(f"BAD  {reference}: {error.code}: {error}")
        except MemoryError:
            bad += 1
            print(f"BAD  {reference}: out_of_memory: loading it takes more memory than there is here.")
    return 1 if bad else 0


def describe(manifest: Manifest) -> str:
    """What a person wants to see of a manifest, a line for each feature."""
    lines = [f"{manifest.task} of {manifest.target}; scikit-learn {manifest.library_versions.get('scikit-learn')}"]
    if manifest.classes:
        probabilities = "with" if manifest.has_probabilities else "without"
        lines.append(f"classes: {', '.join(map(str, manifest.classes))} ({probabilities} probabilities)")
    width = max(len(feature.name) for feature in manifest.features)
    lines += [f"  {feature.name:<{width}}  {_describe_feature(feature)}" for feature in manifest.features]
    return "\n".join(lines)


def _describe_feature(feature: Feature) -> str:
    facts = [feature.type]
    if feature.minimum is not None:
        facts.append(f"{feature.minimum:g} to {feature.maximum:g}")
    if feature.categories is not None:
        facts.append(f"{len(feature.categories)} categories, others {'ok' if feature.accepts_unknown else 'refused'}")
    facts.append(f"missing {'ok' if feature.accepts_missing else 'refused'}")
    return ", ".join(facts)


if __name__ == "__main__":
    sys.exit(main())

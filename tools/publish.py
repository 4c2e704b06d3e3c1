"""Publish a trained model on the Hugging Face hub, with its model card and the code that decodes.

python -m tools.publish outputs/run --repo_id me/my-tagger --license apache-2.0 --dry_run copy
python -m tools.publish outputs/run --repo_id me/my-tagger --license apache-2.0 --private
"""

import argparse
import logging
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from common.command_line import CommandLine
from common.log import setup_logging
from common.run_files import RunFolder
from models import BertCrfForNer, BertSoftmaxForNer
from models.heads.flat import FlatTagger
from models.heads.transitions import transition_table
from tools.heads import check_has_model, head_of_folder
from tools.loading import load_model_and_tokenizer
from tools.model_card import model_card
from tools.run import Run
from tools.script import run_script
from tools.settings import Settings

logger = logging.getLogger(__name__)
_CODE = Path(__file__).parent.parent / "inference" / "hub_model.py"
_AUTO_CLASSES = ("AutoModel", "AutoModelForTokenClassification")
_HEADS: tuple[type[FlatTagger], ...] = (BertCrfForNer, BertSoftmaxForNer)  # the code has classes of these names


def main() -> None:
    parser = CommandLine(prog="python -m tools.publish", description="Publish a trained model on the Hugging Face hub.")
    parser.add_argument("model", type=Path, help="output_dir of a training run, or one of its checkpoints")
    parser.add_argument("--repo_id", type=_repo_id, required=True, help="name on the hub, as USER/NAME")
    parser.add_argument("--private", action="store_true", help="only you, or your organisation, may see it")
    parser.add_argument("--license", default="", help="licence of the weights, as the hub writes it: apache-2.0, ...")
    parser.add_argument("--dry_run", type=Path, help="new folder to write the files to; nothing is uploaded")
    args = parser.parse_args()
    setup_logging()
    if args.dry_run:
        write_copy(args.model, args.dry_run, args.repo_id, args.license)
        logger.info("%s holds what would be published as %s", args.dry_run, args.repo_id)
        return
    with TemporaryDirectory() as scratch:
        copy = Path(scratch, "model")
        write_copy(args.model, copy, args.repo_id, args.license)
        logger.info("Published: %s", upload(copy, args.repo_id, args.private, HfApi()))


def _repo_id(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text, re.ASCII):
        raise argparse.ArgumentTypeError("must be USER/NAME")
    return text


def write_copy(folder: Path, copy: Path, repo_id: str, license: str = "") -> None:
    """Write what is published to a new folder: model, tokenizer, code, card and scores, but no sentence of the data.

    Raises:
        ValueError: the folder holds no trained model, or one whose head the code does not have; or the copy exists.
    """
    check_has_model(folder, "name the output_dir of a run")
    found = head_of_folder(folder)
    head = next((one for one in _HEADS if one is found), None)
    if head is None:
        known = " and ".join(one.__name__ for one in _HEADS)
        raise ValueError(
            f"{folder} holds the head {found.__name__}: the code to publish, {_CODE.name}, has only {known}"
        )
    if copy.exists():
        raise ValueError(f"{copy} already exists; name a new folder")
    run, model, tokenizer = load_model_and_tokenizer(Run.of(Settings.of(output_dir=str(folder))), head)
    config = model.config
    config.eval_max_seq_length, config.window_overlap = run.eval_max_seq_length, run.window_overlap
    if isinstance(model, BertSoftmaxForNer) and model.searches:
        config.tag_transitions = transition_table(model.legal_crf())
    config.auto_map = dict.fromkeys(_AUTO_CLASSES, f"{_CODE.stem}.{head.__name__}")
    if not license:
        logger.warning("The model card states no licence: add --license, for example --license apache-2.0")
    files = RunFolder(folder)
    card = model_card(files, model, repo_id, license, _CODE.name)
    model.save_pretrained(copy)
    tokenizer.save_pretrained(copy)
    for path in (_CODE, files.results("dev"), files.results("test")):
        if path.is_file():
            shutil.copyfile(path, copy / path.name)
    (copy / "README.md").write_text(card, "utf-8")


def upload(copy: Path, repo_id: str, private: bool, api: HfApi) -> str:
    """Create the repository if it is new, upload the folder in one commit, and return the address.

    Raises:
        ValueError: the repository is public although it should be private.
        OSError: the hub does not answer, or refuses.
    """
    try:
        address = api.create_repo(repo_id, private=private or None, exist_ok=True)
    except (OSError, ValueError):
        raise
    except Exception as error:  # of the HTTP library, another one in other versions of huggingface_hub
        raise OSError(f"{api.endpoint} does not answer: {error}") from error
    if private and not api.model_info(repo_id).private:
        raise ValueError(f"{address} exists and is public: make it private there, or leave out --private")
    api.upload_folder(repo_id=repo_id, folder_path=copy, commit_message="Publish the model")
    return str(address)


if __name__ == "__main__":
    run_script(main)

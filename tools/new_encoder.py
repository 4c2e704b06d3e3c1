"""Write an encoder folder: one without weights, for ``--from_scratch``, or one with some layers of another encoder.

python -m tools.new_encoder --vocab vocab.txt --layers 4 --width 256 --output_dir outputs/encoder
python -m tools.new_encoder --encoder bert-base-uncased --keep_layers 0 5 11 --output_dir outputs/student
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from transformers import AutoModel, AutoTokenizer, BertConfig, BertTokenizer

from common.command_line import Bounds, CommandLine
from processors.examples import DataError
from processors.formats.text_lines import read_lines
from tools.heads import has_weights


def main() -> None:
    parser = CommandLine(description="Write a new encoder: an untrained BERT, or some layers of a trained encoder.")
    count = Bounds(int, at_least=1)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--vocab", type=Path, help="untrained BERT: word pieces, one per line (vocab.txt)")
    source.add_argument("--encoder", help="trained encoder whose layers to keep: a folder, or a name on the hub")
    parser.add_argument("--keep_layers", nargs="+", type=Bounds(int, at_least=0), help="with --encoder: from 0")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder to write")
    parser.add_argument("--layers", type=count, default=4, help="hidden layers")
    parser.add_argument("--width", type=count, default=256, help="hidden size, a multiple of 64 (size of a head)")
    parser.add_argument("--max_positions", type=count, default=512, help="longest window in tokens")
    parser.add_argument("--cased", action="store_true", help="keep upper case")
    args = parser.parse_args()
    if args.output_dir.is_file() or has_weights(args.output_dir):
        parser.error(f"--output_dir {args.output_dir} is a file, or already has weights; name a new folder")
    if bool(args.encoder) != bool(args.keep_layers):
        parser.error("--encoder and --keep_layers belong together")
    if args.encoder:
        try:
            keep_layers(args.encoder, args.output_dir, args.keep_layers)
        except (ValueError, OSError) as error:
            parser.error(f"--encoder {args.encoder}: {error}")
        print(f"{args.output_dir}: layers {' '.join(map(str, args.keep_layers))} of {args.encoder}")
        return
    try:
        if not [line for _, line in read_lines(args.vocab) if line.strip()]:
            raise DataError("no word pieces in this file", args.vocab)
    except DataError as error:
        parser.error(f"--vocab {error}")
    if args.width % 64:
        parser.error(f"--width {args.width} is not a multiple of 64")
    write_encoder(args.output_dir, args.vocab, args.layers, args.width, args.max_positions, args.cased)
    print(f"{args.output_dir}: {args.layers} layers, width {args.width}; train it with --from_scratch")


def keep_layers(encoder: str, output_dir: Path, layers: Sequence[int]) -> None:
    """Write an encoder with some layers of another one, in the given order, and its tokenizer.

    Raises:
        ValueError: the encoder lacks a layer, or its layers are not one list of modules.
    """
    model = AutoModel.from_pretrained(encoder)
    config, count = model.config, getattr(model.config, "num_hidden_layers", 0)
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    stacks = [(name, part) for name, part in lists if len(part) == count]
    if len(stacks) != 1:
        raise ValueError(f"{config.model_type} encoders have no single list of {count} layers")
    if missing := [layer for layer in layers if layer >= count]:
        raise ValueError(f"there is no layer {missing[0]}: the encoder has {count}, numbered from 0")
    if len(set(layers)) < len(layers):
        raise ValueError("a layer is named twice")
    name, stack = stacks[0]
    model.set_submodule(name, nn.ModuleList([stack[layer] for layer in layers]))
    for name, values in list(vars(config).items()):  # such as layer_types
        if isinstance(values, list) and len(values) == count:
            setattr(config, name, [values[layer] for layer in layers])
    config.num_hidden_layers = len(layers)
    model.save_pretrained(output_dir)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(output_dir)


def write_encoder(
    output_dir: Path, vocab: Path, layers: int, width: int, max_positions: int = 512, cased: bool = False
) -> None:
    """Write config and tokenizer of a BERT with attention heads of size 64 (one head if ``width`` is smaller)."""
    tokenizer = BertTokenizer(str(vocab), do_lower_case=not cased)
    tokenizer.model_max_length = max_positions
    config = BertConfig(
        vocab_size=max(tokenizer.get_vocab().values()) + 1,  # exceeds the number of pieces if one is listed twice
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
        max_position_embeddings=max_positions,
    )
    config.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)


if __name__ == "__main__":
    main()

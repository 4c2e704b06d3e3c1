"""Write an encoder folder without weights, for training with ``--from_scratch``.

python -m tools.new_encoder --vocab vocab.txt --layers 4 --width 256 --output_dir outputs/encoder
"""

from pathlib import Path

from transformers import BertConfig, BertTokenizer

from common.command_line import Bounds, CommandLine
from processors.examples import DataError
from processors.formats.text_lines import read_lines
from tools.heads import has_weights


def main() -> None:
    parser = CommandLine(description="Write config and tokenizer of a new BERT encoder, without weights.")
    count = Bounds(int, at_least=1)
    parser.add_argument("--vocab", required=True, type=Path, help="word pieces, one per line (a BERT vocab.txt)")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder to write")
    parser.add_argument("--layers", type=count, default=4, help="hidden layers")
    parser.add_argument("--width", type=count, default=256, help="hidden size, a multiple of 64 (size of a head)")
    parser.add_argument("--max_positions", type=count, default=512, help="longest window in tokens")
    parser.add_argument("--cased", action="store_true", help="keep upper case")
    args = parser.parse_args()
    try:
        if not [line for _, line in read_lines(args.vocab) if line.strip()]:
            raise DataError("no word pieces in this file", args.vocab)
    except DataError as error:
        parser.error(f"--vocab {error}")
    if args.width % 64:
        parser.error(f"--width {args.width} is not a multiple of 64")
    if args.output_dir.is_file() or has_weights(args.output_dir):
        parser.error(f"--output_dir {args.output_dir} is a file, or already has weights; name a new folder")
    write_encoder(args.output_dir, args.vocab, args.layers, args.width, args.max_positions, args.cased)
    print(f"{args.output_dir}: {args.layers} layers, width {args.width}; train it with --from_scratch")


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

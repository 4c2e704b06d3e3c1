"""The share of test sentences whose raw text is split into the words of the corpus, after learning from train.

python -m benchmarks.word_cutting datasets/sample $DATA/conll2003 $DATA/bio/NCBI-disease-IOB
python -m benchmarks.word_cutting --tweets 300
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from common.log import console
from processors.corpus import Corpus
from processors.examples import Example
from processors.text.word_cutting import LearnedCutter, WordCutter, find_words, learn_cutter, shares_cut_alike
from tools.script import run_script

# Parts of tweets, two spaces apart. A bar separates words that WNUT-17 separates although the text has no space.
_PARTS = """\
so  I  saw  my  new  phone  at  home  today  and  was  not  good  but  we  had  fun  with  old  friends  in
2nite  lol
it|'s  I|'m  you|'re  do|n't  ca|n't  Justin|'s  IS|N'T|?  phone|,  (|lol|)  home|;  yes|!!!  "|wow|"  well|...
@anna_k  @Bob|:  #nowplaying  #win|!  http://t.co/Ab3dE?x=1  www.example.com/a  RT  &  w/  :)  :-(  ;D  <3  😀  ♥
...  -  --
Rock-n-Roll  AT&T  U.S.  St. Louis  Jan. 3  New York  Dr. Lee  J. Lee  vs.  p.m.  Yahoo!  7:30  10.5  2-1  24/7
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("folders", nargs="*", type=Path, help="corpora: folders with a train and a test file")
    parser.add_argument("--tweets", type=int, default=0, help="also split this many generated tweets")
    args = parser.parse_args()
    table = Table("corpus", "unit", "kept words", "test sentences", "cut alike", "punctuation attached")
    for folder in args.folders:
        corpus = Corpus("", folder)
        table.add_row(folder.name, *_row(corpus.learned_cutter(), list(corpus.examples("test"))))
    if args.tweets:
        train, test = _tweets(10 * args.tweets, seed=0), _tweets(args.tweets, seed=1)
        table.add_row("generated tweets", *_row(learn_cutter(train, WordCutter()), test))
    console().print(table)


def _row(learned: LearnedCutter, test: Sequence[Example]) -> list[str]:
    cutter = learned.cutter
    shares = (f"{100 * share:.1f} %" for share in shares_cut_alike(cutter, test))
    return [cutter.unit, str(len(cutter.kept)), str(len(test)), *shares]


def _tweets(count: int, seed: int) -> list[Example]:
    generator = random.Random(seed)
    all_parts = _PARTS.strip().replace("\n", "  ").split("  ")
    tweets = []
    for number in range(count):
        parts = generator.choices(all_parts, k=generator.randrange(4, 20))
        end = generator.choice(["", "|.", "|!", "|?"]) if parts[-1].isalpha() else ""
        tweet = " ".join(parts) + end
        text, words = tweet.replace("|", ""), tweet.replace("|", " ").split()
        tweets.append(Example(f"tweet-{number}", words, None, text, find_words(words, text)))
    return tweets


if __name__ == "__main__":
    run_script(main)
